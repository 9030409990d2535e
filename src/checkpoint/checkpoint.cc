#include "checkpoint/checkpoint.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "base/error.h"

namespace salient {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kIndexName = "model.safetensors.index.json";
constexpr std::string_view kSingleName = "model.safetensors";

/// Tensor name to shard, as the index says.
using WeightMap = std::map<std::string, std::string>;

/// A shard lies beside its index; anything but a plain file name could point elsewhere.
void require_plain_file_name(const JsonView& shard) {
  const fs::path name = shard.as_string();
  if (name.empty() || name != name.filename() || name == "." || name == "..") {
    shard.reject(fmt::format("{} is not a plain file name", quoted_name(name.string())));
  }
}

WeightMap read_weight_map(const fs::path& index) {
  const Json json = read_json_file(index.string());
  WeightMap result;
  for (const auto& [tensor, shard] : JsonView(json, index.string()).at("weight_map").members()) {
    require_plain_file_name(shard);
    if (!path_exists(index.parent_path() / shard.as_string())) {
      shard.reject(fmt::format("the shard {} does not exist; is the download complete?",
                               quoted_name(shard.as_string())));
    }
    result.emplace(tensor, shard.as_string());
  }
  return result;
}

std::vector<fs::path> files_with_extension(const fs::path& directory, std::string_view extension) {
  std::vector<fs::path> result;
  for (const fs::path& path : list_directory(directory)) {
    if (path.extension() == extension) result.push_back(path);
  }
  std::sort(result.begin(), result.end());
  return result;
}

[[noreturn]] void fail_without_weights(const fs::path& directory) {
  for (const std::string_view extension : {".bin", ".pt", ".pth"}) {
    const auto pickles = files_with_extension(directory, extension);
    if (pickles.empty()) continue;
    fail(ErrorKind::not_found,
         "{}: the weights are pickled ({}), which Salient does not read because a pickle can run code; load "
         "them with "
         "transformers and save with save_pretrained(..., safe_serialization=True)",
         directory.string(), pickles.front().filename().string());
  }
  fail(ErrorKind::not_found, "{}: there is no .safetensors file", directory.string());
}

std::vector<fs::path> files_without_index(const fs::path& directory) {
  if (path_exists(directory / kSingleName)) return {directory / kSingleName};
  auto files = files_with_extension(directory, ".safetensors");
  if (files.empty()) fail_without_weights(directory);
  return files;
}

/// Levenshtein distance, or something above `limit` once it is known to be above.
size_t edit_distance(std::string_view a, std::string_view b, size_t limit) {
  if (a.size() > b.size() + limit || b.size() > a.size() + limit) return limit + 1;
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
    if (*std::min_element(row.begin(), row.end()) > limit) return limit + 1;
  }
  return row.back();
}

/// `, did you mean "..."?` when an existing name is close.
std::string suggestion(const std::string& wanted, const std::vector<std::string>& names) {
  size_t best = wanted.size() / 3 + 1;
  const std::string* nearest = nullptr;
  for (const auto& name : names) {
    const size_t distance = edit_distance(wanted, name, best - 1);
    if (distance >= best) continue;
    best = distance;
    nearest = &name;
    if (best == 0) break;
  }
  return nearest == nullptr ? "" : fmt::format("; did you mean {}?", quoted_name(*nearest));
}

}  // namespace

Checkpoint::Checkpoint(const std::string& directory) : directory_(directory) {
  std::error_code ignored;
  if (!fs::is_directory(directory_, ignored))
    fail(ErrorKind::not_found, "{}: there is no such directory", directory);
  const auto config = directory_ / "config.json";
  if (!path_exists(config)) {
    fail(ErrorKind::not_found, "{}: there is no config.json, so this is no Hugging Face model directory",
         directory);
  }
  config_ = read_json_file(config.string());
  if (!config_.is_object()) fail(ErrorKind::bad_format, "{}: not a JSON object", config.string());
  const auto index = directory_ / kIndexName;
  // A single file comes first, as in transformers: an index beside it is a leftover.
  if (!path_exists(directory_ / kSingleName) && path_exists(index)) {
    open_indexed(index);
  } else {
    for (const auto& file : files_without_index(directory_)) open_all_of(file);
  }
}

const SafetensorsFile& Checkpoint::open(const fs::path& path) {
  files_.push_back(std::make_unique<SafetensorsFile>(path.string()));
  return *files_.back();
}

void Checkpoint::open_all_of(const fs::path& path) {
  const auto& file = open(path);
  for (const auto& name : file.names()) {
    if (file_of_.emplace(name, &file).second) continue;
    fail(ErrorKind::bad_format, "{}: tensor {} stands in another shard too", path.string(),
         quoted_name(name));
  }
}

void Checkpoint::open_indexed(const fs::path& index) {
  const auto weight_map = read_weight_map(index);
  std::map<std::string, const SafetensorsFile*> shards;
  for (const auto& [name, shard] : weight_map) shards.emplace(shard, nullptr);
  for (auto& [shard, file] : shards) {
    file = &open(directory_ / shard);
    for (const auto& name : file->names()) {
      const auto listed = weight_map.find(name);
      if (listed == weight_map.end() || listed->second == shard) continue;
      fail(ErrorKind::bad_format, "{}: tensor {} belongs into shard {} but stands in {} too", index.string(),
           quoted_name(name), listed->second, shard);
    }
  }
  for (const auto& [name, shard] : weight_map) {
    const auto* file = shards.at(shard);
    if (!file->contains(name)) {
      fail(ErrorKind::bad_format, "{}: tensor {} is not in its shard {}", index.string(), quoted_name(name),
           shard);
    }
    file_of_.emplace(name, file);
  }
}

std::vector<std::string> Checkpoint::tensor_names() const {
  std::vector<std::string> names;
  names.reserve(file_of_.size());
  for (const auto& [name, file] : file_of_) names.push_back(name);
  return names;
}

std::vector<std::string> Checkpoint::stored_tensor_names() const {
  std::vector<std::string> names;
  for (const auto& file : files_) {
    for (const std::string& name : file->names()) {
      const auto found = file_of_.find(name);
      if (found != file_of_.end() && found->second == file.get()) names.push_back(name);
    }
  }
  return names;
}

bool Checkpoint::contains(const std::string& name) const { return file_of_.contains(name); }

const SafetensorsFile& Checkpoint::file_of(const std::string& name) const {
  const auto found = file_of_.find(name);
  if (found != file_of_.end()) return *found->second;
  fail(ErrorKind::not_found, "{}: there is no tensor {}{}", directory_.string(), quoted_name(name),
       suggestion(name, tensor_names()));
}

Tensor Checkpoint::tensor(const std::string& name) const { return file_of(name).tensor(name); }

void Checkpoint::release(const std::string& name) const { file_of(name).release(name); }

void Checkpoint::read_ahead(const std::string& name) const { file_of(name).read_ahead(name); }

size_t Checkpoint::byte_size() const {
  size_t bytes = 0;
  for (const auto& [name, file] : file_of_) {
    const auto& entry = file->entry(name);
    bytes += entry.end - entry.begin;
  }
  return bytes;
}

void add_headers(Digest& digest, const Checkpoint& checkpoint) {
  digest.add_text(checkpoint.config().dump());
  for (const std::string& name : checkpoint.tensor_names()) {
    const SafetensorsEntry& entry = checkpoint.entry(name);
    digest.add_text(name).add_text(entry.dtype).add_text(to_string(entry.shape));
  }
}

}  // namespace salient
