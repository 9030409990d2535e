#include "checkpoint/sealed_file.h"

#include <unistd.h>

#include "base/durable_file.h"
#include "base/error.h"

namespace salient {
namespace {

constexpr const char* kChecksum = "checksum";
constexpr size_t kBytesPerTensor = 160;  // of the header

/// Beside the file, so that it can be renamed; one that a killed process left is removed.
std::filesystem::path fresh_partial(const std::filesystem::path& path) {
  const std::filesystem::path partial = path.string() + ".partial";
  std::error_code ignored;
  std::filesystem::remove(partial, ignored);  // what cannot be removed cannot be created either
  return partial;
}

std::filesystem::path absolute_path(const std::filesystem::path& path) {
  if (path.empty()) fail(ErrorKind::invalid_argument, "a file without a name cannot be written");
  return std::filesystem::absolute(path);
}

Tensor text_tensor(std::string_view text) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
  return Tensor::of<uint8_t>({static_cast<int64_t>(text.size())}, {bytes, text.size()});
}

}  // namespace

void add_tensor(Digest& digest, std::string_view name, const Tensor& tensor) {
  digest.add_text(name).add_text(to_string(tensor.dtype())).add_text(to_string(tensor.shape()));
  digest.add({tensor.bytes(), tensor.byte_size()});
}

std::string file_checksum(const SafetensorsFile& file) {
  Digest digest;
  for (const std::string& name : file.names()) {
    if (name != kChecksum) add_tensor(digest, name, file.tensor(name));
  }
  return digest.hex();
}

SealedFileWriter::SealedFileWriter(const std::filesystem::path& path, size_t most_tensors)
    : path_(absolute_path(path)), shard_(fresh_partial(path_), (most_tensors + 1) * kBytesPerTensor) {}

SealedFileWriter::~SealedFileWriter() {
  std::error_code ignored;
  if (!finished_) std::filesystem::remove(shard_.path(), ignored);
}

void SealedFileWriter::add(const std::string& name, const Tensor& tensor) {
  if (!tensor.defined()) return;
  add_tensor(digest_, name, tensor);
  shard_.append(name, tensor);
}

void SealedFileWriter::add_text(const std::string& name, std::string_view text) {
  add(name, text_tensor(text));
}

void SealedFileWriter::finish() {
  shard_.append(kChecksum, text_tensor(digest_.hex()));
  shard_.close();
  publish_file(shard_.path(), path_);
  finished_ = true;
}

SealedFile::SealedFile(const std::filesystem::path& path) : path_(path.string()), file_(path_) {
  if (text(kChecksum) != file_checksum(file_))
    fail(ErrorKind::bad_format, "{}: the checksum is wrong", path_);
}

void SealedFile::reject(const std::string& name, const Tensor& tensor) const {
  fail(ErrorKind::bad_format, "{}: tensor {} is {} {}, which it cannot be", path_, quoted_name(name),
       to_string(tensor.dtype()), to_string(tensor.shape()));
}

std::string SealedFile::text(const std::string& name) const {
  const Tensor tensor = file_.tensor(name);
  if (tensor.dtype() != DType::u8) reject(name, tensor);
  const auto bytes = tensor.values<uint8_t>();
  return {bytes.begin(), bytes.end()};
}

Tensor SealedFile::tensor(const std::string& name, Elements elements, const Shape& shape) const {
  Tensor tensor = file_.tensor(name);
  const bool right = elements == Elements::bytes ? tensor.dtype() == DType::u8 : is_floating(tensor.dtype());
  if (!right || tensor.shape() != shape) reject(name, tensor);
  return tensor;
}

Tensor SealedFile::tensor(const std::string& name, DType dtype, const Shape& shape) const {
  Tensor tensor = file_.tensor(name);
  if (tensor.dtype() != dtype || tensor.shape() != shape) reject(name, tensor);
  return tensor;
}

}  // namespace salient
