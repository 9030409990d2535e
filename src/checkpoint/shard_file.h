#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

#include "tensor/tensor.h"

namespace salient {

/// One .safetensors file written front to back. The header stands before the data but is known only at the
/// end, so room is left for it and what it does not need is filled with spaces, which the format allows.
class ShardFile {
 public:
  /// Creates the file. Errors: io.
  ShardFile(std::filesystem::path path, size_t header_room);
  ~ShardFile();
  ShardFile(const ShardFile&) = delete;
  ShardFile& operator=(const ShardFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  size_t data_size() const { return data_size_; }
  bool empty() const { return empty_; }
  /// Whether the header has room for one more tensor.
  bool has_room_for(const std::string& name, const Tensor& tensor) const;
  /// Errors: io.
  void append(const std::string& name, const Tensor& tensor);
  /// Writes the header. Errors: io.
  void close();

 private:
  std::string entry_of(const std::string& name, const Tensor& tensor) const;
  void write(std::span<const std::byte> bytes, size_t offset);

  std::filesystem::path path_;
  size_t data_begin_;
  int fd_ = -1;
  std::string header_;
  size_t data_size_ = 0;
  bool empty_ = true;
};

}  // namespace salient
