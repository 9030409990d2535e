#include "checkpoint/safetensors.h"

#include <cstring>

#include "base/error.h"

namespace salient {

SafetensorsFile::SafetensorsFile(const std::string& path)
    : file_(std::make_shared<const MappedFile>(path)),
      header_(parse_safetensors_header(file_->bytes(), path)) {}

const SafetensorsEntry& SafetensorsFile::entry(const std::string& name) const {
  const auto found = header_.entries.find(name);
  if (found == header_.entries.end()) {
    fail(ErrorKind::not_found, "{}: there is no tensor {}", file_->path(), quoted_name(name));
  }
  return found->second;
}

Tensor SafetensorsFile::tensor(const std::string& name) const {
  const auto& found = entry(name);
  const auto dtype = dtype_from_safetensors(found.dtype);
  if (!dtype) {
    fail(ErrorKind::unsupported, "{}: tensor {} has type {}, which Salient does not read", file_->path(),
         quoted_name(name), quoted_name(found.dtype));
  }
  const std::byte* data = file_->bytes().data() + found.begin;
  if (reinterpret_cast<uintptr_t>(data) % salient::byte_size(*dtype) == 0) {
    return Tensor::view(*dtype, found.shape, data, file_);
  }
  // A header of odd length leaves the data at an address that typed access must not use.
  Tensor copy = Tensor::empty(*dtype, found.shape);
  std::memcpy(copy.mutable_bytes(), data, found.end - found.begin);
  return copy;
}

void SafetensorsFile::release(const std::string& name) const {
  const auto& found = entry(name);
  file_->release(found.begin, found.end - found.begin);
}

void SafetensorsFile::read_ahead(const std::string& name) const {
  const auto& found = entry(name);
  file_->read_ahead(found.begin, found.end - found.begin);
}

}  // namespace salient
