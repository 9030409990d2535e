#include "checkpoint/shard_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/json.h"

namespace salient {
namespace {

constexpr size_t kLengthBytes = 8;
constexpr size_t kAlignment = 64;  // of the data in the file, for readers that map it

[[noreturn]] void fail_errno(const std::filesystem::path& path, std::string_view action, int code) {
  fail(ErrorKind::io, "{}: cannot {}: {}", path.string(), action, std::strerror(code));
}

size_t data_begin_for(size_t header_room) {
  return (kLengthBytes + header_room + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

ShardFile::ShardFile(std::filesystem::path path, size_t header_room)
    : path_(std::move(path)),
      data_begin_(data_begin_for(header_room)),
      fd_(::open(path_.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644)),
      header_(R"({"__metadata__":{"format":"pt"})") {
  if (fd_ < 0) fail_errno(path_, "create", errno);
}

ShardFile::~ShardFile() {
  if (fd_ >= 0) ::close(fd_);
}

std::string ShardFile::entry_of(const std::string& name, const Tensor& tensor) const {
  return fmt::format(R"(,{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", Json(name).dump(),
                     to_string(tensor.dtype()), fmt::join(tensor.shape(), ","), data_size_,
                     data_size_ + tensor.byte_size());
}

bool ShardFile::has_room_for(const std::string& name, const Tensor& tensor) const {
  return kLengthBytes + header_.size() + entry_of(name, tensor).size() + 1 <= data_begin_;
}

void ShardFile::append(const std::string& name, const Tensor& tensor) {
  const std::string entry = entry_of(name, tensor);
  write({tensor.bytes(), tensor.byte_size()}, data_begin_ + data_size_);
  header_ += entry;
  data_size_ += tensor.byte_size();
  empty_ = false;
}

void ShardFile::close() {
  const uint64_t length = data_begin_ - kLengthBytes;
  std::string text;
  for (size_t i = 0; i < kLengthBytes; ++i) text += static_cast<char>(length >> (8 * i) & 0xff);
  text += header_ + "}";
  text.resize(data_begin_, ' ');
  write(std::as_bytes(std::span(text)), 0);
  // Some file systems report a full disk only now.
  if (::close(std::exchange(fd_, -1)) != 0) fail_errno(path_, "write", errno);
}

void ShardFile::write(std::span<const std::byte> bytes, size_t offset) {
  constexpr size_t kLargest = size_t{1} << 30;  // Linux writes at most 2 GiB at once
  while (!bytes.empty()) {
    const auto count =
        ::pwrite(fd_, bytes.data(), std::min(bytes.size(), kLargest), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_errno(path_, "write", errno);
    bytes = bytes.subspan(static_cast<size_t>(count));
    offset += static_cast<size_t>(count);
  }
}

}  // namespace salient
