#include "base/durable_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace salient {
namespace {

[[noreturn]] void fail_errno(const std::filesystem::path& path, std::string_view action, int code) {
  fail(ErrorKind::io, "{}: cannot {}: {}", path.string(), action, std::strerror(code));
}

void flush(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail_errno(path, "open", errno);
  const int code = ::fsync(fd) == 0 ? 0 : errno;
  ::close(fd);
  if (code != 0) fail_errno(path, "flush", code);
}

/// Whether `path` still names the open file: whoever held the lock before may have removed it.
bool names(const std::filesystem::path& path, int fd) {
  struct stat named {};
  struct stat open {};
  return ::stat(path.c_str(), &named) == 0 && ::fstat(fd, &open) == 0 && named.st_dev == open.st_dev &&
         named.st_ino == open.st_ino;
}

}  // namespace

void publish_file(const std::filesystem::path& temporary, const std::filesystem::path& path) {
  flush(temporary);
  if (::rename(temporary.c_str(), path.c_str()) != 0) fail_errno(path, "write", errno);
  flush(path.parent_path());
}

FileLock::FileLock(const std::filesystem::path& path, const std::string& held) {
  for (;;) {
    fd_ = ::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    if (fd_ < 0) fail_errno(path, "open", errno);
    const int code = ::flock(fd_, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
    if (code == 0 && names(path, fd_)) return;
    // Where the file system knows no locks, as some that lie on other machines, there is none.
    if (code == ENOLCK || code == ENOSYS || code == EOPNOTSUPP) return;
    ::close(fd_);
    if (code == EWOULDBLOCK) fail(ErrorKind::invalid_argument, "{}", held);
    if (code != 0 && code != EINTR) fail_errno(path, "lock", code);
  }
}

FileLock::~FileLock() { ::close(fd_); }

}  // namespace salient
