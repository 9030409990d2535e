#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "tensor/tensor.h"

namespace salient {

/// One .safetensors file, mapped. The header comes from outside and is believed in nothing.
class SafetensorsFile {
 public:
  /// Errors (kind bad_format unless said): a file shorter than its header length field, a header longer than the
  /// file or 100 MB, a header that is not valid JSON, not an object, duplicate tensor names, an unknown or missing
  /// dtype (unsupported), negative or overflowing shapes, offsets out of order or out of the file, a byte count
  /// that does not match shape and dtype, overlaps and holes; not_found, io.
  explicit SafetensorsFile(const std::string& path);

  std::vector<std::string> names() const;  ///< in order of their offsets
  bool contains(const std::string& name) const;
  /// A view into the mapping, which the tensor keeps alive. Errors: not_found.
  Tensor tensor(const std::string& name) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// Lets the pages of a tensor go (they come back from disk when touched again).
  void release(const std::string& name) const;

 private:
  struct Entry {
    DType dtype;
    Shape shape;
    size_t begin;
    size_t end;
  };

  std::shared_ptr<const MappedFile> file_;
  size_t data_begin_ = 0;
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace salient
