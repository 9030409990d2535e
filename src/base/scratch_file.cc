#include "base/scratch_file.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/error.h"

namespace salient {
namespace {

constexpr size_t kLargest = size_t{1} << 30;  // Linux moves at most 2 GiB at once

[[noreturn]] void fail_errno(const std::string& directory, std::string_view action, int code) {
  fail(ErrorKind::io, "{}: cannot {} a work file: {}", directory, action, std::strerror(code));
}

bool lies_on_disk(const std::string& directory) {
  struct statfs info {};
  if (directory.empty() || ::statfs(directory.c_str(), &info) != 0) return false;
  const auto type = static_cast<uint64_t>(info.f_type);
  return type != TMPFS_MAGIC && type != RAMFS_MAGIC;
}

/// A file that is removed already.
int open_nameless(const std::string& directory) {
  std::string name = directory + "/.salient-work-XXXXXX";
  const int fd = ::mkostemp(name.data(), O_CLOEXEC);
  if (fd < 0) fail_errno(directory, "create", errno);
  ::unlink(name.c_str());
  return fd;
}

}  // namespace

ScratchFile::ScratchFile(std::span<const std::string> directories, uint64_t bytes) {
  const auto found = std::ranges::find_if(directories, lies_on_disk);
  if (found == directories.end()) {
    fail(ErrorKind::io, "none of these directories lies on a disk where hidden states could wait: {}",
         fmt::join(directories, ", "));
  }
  directory_ = *found;
  fd_ = open_nameless(directory_);
  const int code = bytes == 0 ? 0 : ::posix_fallocate(fd_, 0, static_cast<off_t>(bytes));
  if (code == 0) return;
  ::close(fd_);
  fail(ErrorKind::io, "{}: cannot make room for a work file of {} bytes: {}", directory_, bytes,
       std::strerror(code));
}

ScratchFile::~ScratchFile() { ::close(fd_); }

void ScratchFile::write(uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto count =
        ::pwrite(fd_, bytes.data(), std::min(bytes.size(), kLargest), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_errno(directory_, "write", errno);
    bytes = bytes.subspan(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
}

void ScratchFile::read(uint64_t offset, std::span<std::byte> bytes) const {
  while (!bytes.empty()) {
    const auto count =
        ::pread(fd_, bytes.data(), std::min(bytes.size(), kLargest), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) fail_errno(directory_, "read", count == 0 ? EIO : errno);
    bytes = bytes.subspan(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
}

}  // namespace salient
