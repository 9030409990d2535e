#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace salient {

/// A whole file mapped read-only. Pages are loaded on first touch and shared between processes.
class MappedFile {
 public:
  /// Errors: not_found, io (also for a directory or an unreadable file).
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }

  /// Tells the kernel that a range is not needed soon, so that it stops counting as resident.
  void release(size_t offset, size_t length) const;
  /// Tells it that a range will be needed: it is read while the caller goes on, as far as the kernel likes.
  /// The pages count as resident when they are touched.
  void read_ahead(size_t offset, size_t length) const;

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

/// Whether something stands at `path`. Errors: io where std::filesystem cannot tell (a name too long, a
/// folder that may not be searched).
bool path_exists(const std::filesystem::path& path);

/// Whether a regular file, or a link to one, stands at `path`. Errors: io, as path_exists.
bool file_exists(const std::filesystem::path& path);

/// Whether a file or folder that does not exist could be made: the nearest folder above it may be written to.
/// Errors: io, naming both.
void check_creatable(const std::filesystem::path& path);

/// What lies in a directory, in no order. Errors: not_found, io.
std::vector<std::filesystem::path> list_directory(const std::filesystem::path& directory);

/// Whether `directory` is `inner` or a folder above it, links followed. Errors: io.
bool contains_path(const std::filesystem::path& directory, const std::filesystem::path& inner);

/// Reads a whole file. Errors: not_found, io.
std::string read_text_file(const std::string& path);

/// Writes through a temporary file beside `path`, then renames: the file is complete or absent. Errors: io.
void write_file_atomically(const std::string& path, std::string_view content);

class FileLock;

/// A directory that appears complete or not at all (a link stands for what it points to): files are written
/// to a hidden sibling (`path()`), which `commit` renames to the target. Destroyed without commit, the
/// sibling and all in it are removed; what a killed process left there goes when the next one writes to the
/// same target. One process at a time does: a lock beside the sibling, which the system frees with the
/// process, keeps others away.
class OutputDirectory {
 public:
  enum class IfExists { refuse, replace };

  /// Errors: invalid_argument when the target exists and may not be replaced, and when another process writes
  /// to it; io.
  OutputDirectory(const std::string& target, IfExists if_exists);
  ~OutputDirectory();
  OutputDirectory(const OutputDirectory&) = delete;
  OutputDirectory& operator=(const OutputDirectory&) = delete;

  /// Where to write before the commit.
  const std::filesystem::path& path() const { return partial_; }
  const std::filesystem::path& target() const { return target_; }

  /// Makes the files durable and visible under the target's name. Errors: io.
  void commit();

 private:
  void refuse_existing() const;
  void free_target();

  std::filesystem::path target_;
  std::filesystem::path partial_;
  std::unique_ptr<FileLock> lock_;
  IfExists if_exists_;
  bool committed_ = false;
};

}  // namespace salient
