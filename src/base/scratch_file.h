#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace salient {

/// Bytes that wait on disk. The file has no name, so that nothing of it remains however the process ends. It
/// is read and written by calls rather than mapped: a full disk is an error then and no signal, and nothing
/// of it counts as resident.
class ScratchFile {
 public:
  /// Takes the room of all `bytes` at once, in the first of `directories` (empty names do not count) that
  /// exists and lies on a disk: what is kept in a tmpfs is kept in memory. Errors: io when none does, or the
  /// disk is full.
  ScratchFile(std::span<const std::string> directories, uint64_t bytes);
  ~ScratchFile();
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;

  /// Errors: io.
  void write(uint64_t offset, std::span<const std::byte> bytes);
  void read(uint64_t offset, std::span<std::byte> bytes) const;

 private:
  std::string directory_;
  int fd_ = -1;
};

}  // namespace salient
