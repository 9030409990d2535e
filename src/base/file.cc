#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <system_error>

#include "base/durable_file.h"
#include "base/error.h"

namespace salient {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail_errno(const std::string& path, std::string_view action, int code) {
  const auto kind = code == ENOENT || code == ENOTDIR ? ErrorKind::not_found : ErrorKind::io;
  fail(kind, "{}: cannot {}: {}", path, action, std::strerror(code));
}

/// A file descriptor that closes itself.
class Descriptor {
 public:
  Descriptor(const std::string& path, int flags) : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0644)) {
    if (fd_ < 0) fail_errno(path, "open", errno);
  }
  ~Descriptor() { ::close(fd_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

void sync_path(const fs::path& path) {
  const Descriptor descriptor(path.string(), O_RDONLY);
  if (::fsync(descriptor.get()) != 0) fail_errno(path.string(), "flush", errno);
}

void rename_or_fail(const fs::path& from, const fs::path& to) {
  std::error_code code;
  fs::rename(from, to, code);
  if (code) fail(ErrorKind::io, "{}: cannot rename to {}: {}", from.string(), to.string(), code.message());
}

/// Swaps two directories in one step, so that at no moment one is missing; on file systems that cannot, by
/// three renames.
void exchange(const fs::path& a, const fs::path& b) {
  if (::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0) return;
  if (errno != EINVAL && errno != ENOSYS && errno != ENOTSUP) fail_errno(b.string(), "replace", errno);
  const fs::path aside = b.string() + ".replaced";
  rename_or_fail(b, aside);
  try {
    rename_or_fail(a, b);
  } catch (const Error&) {
    rename_or_fail(aside, b);
    throw;
  }
  rename_or_fail(aside, a);
}

void create_folders(const fs::path& path) {
  std::error_code code;
  fs::create_directories(path, code);
  if (code) fail(ErrorKind::io, "{}: cannot create: {}", path.string(), code.message());
}

fs::path lock_path(const fs::path& partial) { return partial.string() + ".lock"; }

/// What a killed process left.
void remove_leftover(const fs::path& partial) {
  std::error_code code;
  fs::remove_all(partial, code);
  if (code) fail(ErrorKind::io, "{}: cannot remove: {}", partial.string(), code.message());
}

fs::path absolute_path(const std::string& path) {
  std::error_code code;
  const fs::path absolute = fs::absolute(path, code);
  if (path.empty() || code) fail(ErrorKind::invalid_argument, "\"{}\" names no output directory", path);
  return absolute.lexically_normal();
}

/// What a link stands for, there or not.
fs::path followed(fs::path path) {
  constexpr int kMostLinks = 40;  // as the kernel allows
  std::error_code code;
  for (int i = 0; i < kMostLinks && fs::is_symlink(path, code); ++i) {
    const fs::path target = fs::read_symlink(path, code);
    if (code) break;
    path = (path.parent_path() / target).lexically_normal();
  }
  return path;
}

std::string unique_suffix() {
  return fmt::format("{}-{:x}", ::getpid(), reinterpret_cast<uintptr_t>(&errno));
}

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const Descriptor descriptor(path, O_RDONLY);
  struct stat info {};
  if (::fstat(descriptor.get(), &info) != 0) fail_errno(path, "stat", errno);
  if (!S_ISREG(info.st_mode)) fail(ErrorKind::io, "{}: not a regular file", path);
  size_ = static_cast<size_t>(info.st_size);
  if (size_ == 0) return;  // mmap refuses an empty range
  void* mapping = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, descriptor.get(), 0);
  if (mapping == MAP_FAILED) fail_errno(path, "map", errno);
  data_ = static_cast<const std::byte*>(mapping);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::release(size_t offset, size_t length) const {
  // Only whole pages inside the range: neighbours may be in use.
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t begin = (offset + page - 1) / page * page;
  const size_t end = (offset + length) / page * page;
  if (end > begin) ::madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_DONTNEED);
}

void MappedFile::read_ahead(size_t offset, size_t length) const {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t begin = offset / page * page;
  const size_t end = std::min(size_, offset + length);
  if (end > begin) ::madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_WILLNEED);
}

bool path_exists(const fs::path& path) {
  std::error_code code;
  const bool exists = fs::exists(path, code);
  if (code) fail(ErrorKind::io, "{}: cannot look: {}", path.string(), code.message());
  return exists;
}

bool file_exists(const fs::path& path) {
  std::error_code code;
  const fs::file_status status = fs::status(path, code);
  if (status.type() == fs::file_type::none)
    fail(ErrorKind::io, "{}: cannot look: {}", path.string(), code.message());
  return fs::is_regular_file(status);
}

std::vector<fs::path> list_directory(const fs::path& directory) {
  std::vector<fs::path> paths;
  std::error_code code;
  fs::directory_iterator entry(directory, code);
  for (; !code && entry != fs::directory_iterator(); entry.increment(code)) paths.push_back(entry->path());
  if (code) fail_errno(directory.string(), "list", code.value());
  return paths;
}

void check_creatable(const fs::path& path) {
  fs::path ancestor = followed(absolute_path(path.string())).parent_path();
  while (!path_exists(ancestor) && ancestor.has_relative_path()) ancestor = ancestor.parent_path();
  if (!fs::is_directory(ancestor))
    fail(ErrorKind::io, "{}: cannot create: {} is no folder", path.string(), ancestor.string());
  if (::access(ancestor.c_str(), W_OK | X_OK) != 0)
    fail(ErrorKind::io, "{}: cannot create: {}: {}", path.string(), ancestor.string(), std::strerror(errno));
}

bool contains_path(const fs::path& directory, const fs::path& inner) {
  const auto canonical = [](const fs::path& path) {
    std::error_code code;
    const fs::path result = fs::weakly_canonical(path, code);
    if (code) fail(ErrorKind::io, "{}: cannot follow: {}", path.string(), code.message());
    return result;
  };
  const fs::path outer = canonical(directory);
  const fs::path path = canonical(inner);
  return std::mismatch(outer.begin(), outer.end(), path.begin(), path.end()).first == outer.end();
}

std::string read_text_file(const std::string& path) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void write_file_atomically(const std::string& path, std::string_view content) {
  const std::string temporary = fmt::format("{}.partial-{}", path, unique_suffix());
  try {
    std::ofstream stream(temporary, std::ios::binary | std::ios::trunc);
    stream.write(content.data(), static_cast<std::streamsize>(content.size()));
    stream.close();
    if (!stream) fail(ErrorKind::io, "{}: cannot write: {}", path, std::strerror(errno));
    sync_path(temporary);
    rename_or_fail(temporary, path);
  } catch (...) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw;
  }
}

OutputDirectory::OutputDirectory(const std::string& target, IfExists if_exists)
    : target_(absolute_path(target)), if_exists_(if_exists) {
  if (!target_.has_filename()) target_ = target_.parent_path();  // "out/" names the same folder as "out"
  target_ = followed(target_);
  refuse_existing();
  partial_ = target_.parent_path() / fmt::format(".{}.partial", target_.filename().string());
  create_folders(target_.parent_path());
  lock_ = std::make_unique<FileLock>(
      lock_path(partial_),
      fmt::format("{}: another process is writing to this output; wait until it is done, or name another",
                  target_.string()));
  try {
    refuse_existing();  // whoever held the lock may just have written it
    remove_leftover(partial_);
    create_folders(partial_);
  } catch (const Error&) {
    std::error_code ignored;
    fs::remove(lock_path(partial_), ignored);
    throw;
  }
}

void OutputDirectory::refuse_existing() const {
  if (if_exists_ != IfExists::refuse || !path_exists(target_)) return;
  fail(ErrorKind::invalid_argument, "{}: the output exists already", target_.string());
}

OutputDirectory::~OutputDirectory() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(partial_, ignored);
  free_target();
}

void OutputDirectory::free_target() {
  std::error_code ignored;
  if (lock_) fs::remove(lock_path(partial_), ignored);  // while it is held, so that it is nobody else's
  lock_.reset();
}

void OutputDirectory::commit() {
  for (const fs::path& file : list_directory(partial_)) sync_path(file);
  sync_path(partial_);
  if (if_exists_ == IfExists::replace && path_exists(target_)) {
    exchange(partial_, target_);
    std::error_code ignored;
    fs::remove_all(partial_, ignored);
  } else {
    rename_or_fail(partial_, target_);
  }
  committed_ = true;
  free_target();
  sync_path(target_.parent_path());
}

}  // namespace salient
