#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/digest.h"
#include "base/json.h"
#include "checkpoint/safetensors.h"

namespace salient {

/// A Hugging Face model directory: config.json plus model.safetensors, or shards with
/// model.safetensors.index.json (or any *.safetensors files when there is no index).
class Checkpoint {
 public:
  /// Errors: not_found (no such directory, no config.json, no safetensors; .bin-only directories are told
  /// that pickles are not read), bad_format (index naming files or tensors that do not exist, a tensor in two
  /// shards).
  explicit Checkpoint(const std::string& directory);

  const std::filesystem::path& directory() const { return directory_; }
  const Json& config() const { return config_; }
  JsonView config_view() const { return {config_, (directory_ / "config.json").string()}; }

  std::vector<std::string> tensor_names() const;  ///< sorted
  /// As they follow one another in the files.
  std::vector<std::string> stored_tensor_names() const;
  bool contains(const std::string& name) const;
  /// Errors: not_found with the nearest existing name, unsupported for a type that Salient does not know.
  Tensor tensor(const std::string& name) const;
  /// Type and shape without touching the data. Errors: not_found.
  const SafetensorsEntry& entry(const std::string& name) const { return file_of(name).entry(name); }
  /// Lets the pages of a tensor go. Errors: not_found.
  void release(const std::string& name) const;
  /// Has them read, see MappedFile. Errors: not_found.
  void read_ahead(const std::string& name) const;
  /// Sum of the bytes of all tensors.
  size_t byte_size() const;

 private:
  const SafetensorsFile& open(const std::filesystem::path& path);
  void open_all_of(const std::filesystem::path& path);
  void open_indexed(const std::filesystem::path& index);
  const SafetensorsFile& file_of(const std::string& name) const;

  std::filesystem::path directory_;
  Json config_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, const SafetensorsFile*> file_of_;
};

/// Adds config.json and the name, type and shape of every tensor: what tells checkpoints apart but for
/// values.
void add_headers(Digest& digest, const Checkpoint& checkpoint);

}  // namespace salient
