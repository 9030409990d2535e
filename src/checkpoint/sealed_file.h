#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "base/digest.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/shard_file.h"

namespace salient {

/// Name, type, shape and values.
void add_tensor(Digest& digest, std::string_view name, const Tensor& tensor);

/// Of all tensors of a file but the one named "checksum", which says it. Errors: unsupported for a type that
/// Salient does not know.
std::string file_checksum(const SafetensorsFile& file);

/// Writes a safetensors file of tensors and texts, with the checksum of all of them behind the last. It
/// appears whole or not at all.
class SealedFileWriter {
 public:
  /// `most_tensors`: as many as there will be at most, with names of up to 40 characters. Errors: io.
  SealedFileWriter(const std::filesystem::path& path, size_t most_tensors);
  /// Removes what was not finished.
  ~SealedFileWriter();
  SealedFileWriter(const SealedFileWriter&) = delete;
  SealedFileWriter& operator=(const SealedFileWriter&) = delete;

  /// Undefined ones are left out. Errors: io.
  void add(const std::string& name, const Tensor& tensor);
  void add_text(const std::string& name, std::string_view text);
  /// Gives the file its name. Errors: io.
  void finish();

 private:
  std::filesystem::path path_;
  ShardFile shard_;
  Digest digest_;
  bool finished_ = false;
};

/// Reads such a file: its bytes come from outside.
class SealedFile {
 public:
  /// Errors: those of SafetensorsFile; bad_format when the checksum is not that of the tensors.
  explicit SealedFile(const std::filesystem::path& path);

  const std::vector<std::string>& names() const { return file_.names(); }  ///< the checksum's included
  /// Type and shape. Errors: not_found.
  const SafetensorsEntry& entry(const std::string& name) const { return file_.entry(name); }
  /// Errors: not_found; bad_format for anything but bytes.
  std::string text(const std::string& name) const;

  enum class Elements { floating, bytes };
  /// Errors: not_found; bad_format for elements of another kind or another shape.
  Tensor tensor(const std::string& name, Elements elements, const Shape& shape) const;
  /// The same for one type.
  Tensor tensor(const std::string& name, DType dtype, const Shape& shape) const;

 private:
  [[noreturn]] void reject(const std::string& name, const Tensor& tensor) const;

  std::string path_;
  SafetensorsFile file_;
};

}  // namespace salient
