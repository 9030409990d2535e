#pragma once

#include <filesystem>
#include <string>

namespace salient {

/// Gives a finished file its name: durable first, then renamed, so that after a crash at any moment the name
/// stands for the whole file or for none. Errors: io.
void publish_file(const std::filesystem::path& temporary, const std::filesystem::path& path);

/// Makes the process the only one that works where the file lies; the system frees it when the process ends,
/// however that comes about. On a file system without locks it keeps nobody away. The file stays.
class FileLock {
 public:
  /// Creates the file if need be. Errors: invalid_argument with the text `held` when another process holds
  /// it; io.
  FileLock(const std::filesystem::path& path, const std::string& held);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int fd_ = -1;
};

}  // namespace salient
