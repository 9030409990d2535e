#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "checkpoint/safetensors_header.h"
#include "tensor/tensor.h"

namespace salient {

/// One .safetensors file, mapped. The header comes from outside and is believed in nothing.
class SafetensorsFile {
 public:
  /// Errors (kind bad_format unless said): a file shorter than its header length field, a header longer than
  /// the file or 100 MB, a header that is not valid JSON, not an object, duplicate keys, a missing dtype,
  /// negative or overflowing shapes, offsets out of order or out of the file, a byte count that does not
  /// match shape and dtype, overlaps, holes and trailing bytes, metadata other than strings; not_found, io.
  explicit SafetensorsFile(const std::string& path);

  const std::vector<std::string>& names() const { return header_.names; }  ///< in order of their offsets
  bool contains(const std::string& name) const { return header_.entries.contains(name); }
  /// Type, shape and place of a tensor. Errors: not_found.
  const SafetensorsEntry& entry(const std::string& name) const;
  /// A view into the mapping, which the tensor keeps alive; an owned copy when the file does not align the
  /// data. Errors: not_found, unsupported for a type that Salient does not know.
  Tensor tensor(const std::string& name) const;
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  /// Lets the pages of a tensor go (they come back from disk when touched again). Errors: not_found.
  void release(const std::string& name) const;
  /// Has them read, see MappedFile. Errors: not_found.
  void read_ahead(const std::string& name) const;

 private:
  std::shared_ptr<const MappedFile> file_;
  SafetensorsHeader header_;
};

}  // namespace salient
