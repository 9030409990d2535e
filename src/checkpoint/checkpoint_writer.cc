#include "checkpoint/checkpoint_writer.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <map>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "checkpoint/safetensors_header.h"
#include "checkpoint/shard_file.h"

namespace salient {
namespace {

namespace fs = std::filesystem;

struct Unit {
  std::string_view name;
  size_t bytes;
};

constexpr std::array<Unit, 9> kUnits{{{"", 1},
                                      {"b", 1},
                                      {"kb", 1'000},
                                      {"mb", 1'000'000},
                                      {"gb", 1'000'000'000},
                                      {"tb", 1'000'000'000'000},
                                      {"kib", size_t{1} << 10},
                                      {"mib", size_t{1} << 20},
                                      {"gib", size_t{1} << 30}}};

/// What a tensor takes in a header: a name of 80 characters, type, shape and offsets come to about 160 bytes.
constexpr size_t kHeaderBytesPerTensor = 192;
constexpr size_t kDefaultHeaderRoom = size_t{64} << 10;
constexpr size_t kSmallestHeaderRoom = size_t{4} << 10;

/// Room for all tensors in every shard, unless shards are so small that it would weigh.
size_t header_room(const CheckpointWriter::Options& options) {
  if (options.expected_tensors == 0) return kDefaultHeaderRoom;
  const size_t wanted = (std::min<size_t>(options.expected_tensors, 1'000'000) + 4) * kHeaderBytesPerTensor;
  return std::clamp(wanted, kSmallestHeaderRoom, std::max(kDefaultHeaderRoom, options.shard_size / 64));
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

bool is_utf8(const std::string& text) {
  try {
    return !Json(text).dump().empty();
  } catch (const Json::exception&) {
    return false;
  }
}

/// Files that belong to the text side of a model or to its licence, by the start of their names.
constexpr std::array<std::string_view, 22> kCompanions{"tokenizer",
                                                       "tekken",
                                                       "special_tokens_map",
                                                       "added_tokens",
                                                       "vocab",
                                                       "merges",
                                                       "chat_template",
                                                       "generation_config",
                                                       "preprocessor_config",
                                                       "processor_config",
                                                       "image_processor_config",
                                                       "video_preprocessor_config",
                                                       "feature_extractor_config",
                                                       "spiece",
                                                       "sentencepiece",
                                                       "tiktoken",
                                                       "qwen.tiktoken",
                                                       "license",
                                                       "licence",
                                                       "notice",
                                                       "copying",
                                                       "use_policy"};
constexpr std::array<std::string_view, 10> kWeightExtensions{
    ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".onnx", ".npz", ".msgpack"};

bool is_companion(const fs::path& file) {
  const std::string name = lower(file.filename().string());
  const std::string extension = lower(file.extension().string());
  if (std::find(kWeightExtensions.begin(), kWeightExtensions.end(), extension) != kWeightExtensions.end())
    return false;
  if (name.ends_with(".index.json")) return false;
  return std::any_of(kCompanions.begin(), kCompanions.end(),
                     [&](std::string_view start) { return name.starts_with(start); });
}

const CheckpointWriter::Options& checked(const CheckpointWriter::Options& options) {
  if (options.shard_size == 0)
    fail(ErrorKind::invalid_argument, "{}: a shard size of 0 bytes; at least 1 is needed", options.target);
  return options;
}

}  // namespace

void check_replaceable(const std::string& target, std::span<const std::string> inputs) {
  if (!path_exists(target)) return;
  for (const std::string& input : inputs) {
    if (input.empty() || !contains_path(target, input)) continue;
    fail(ErrorKind::invalid_argument, "{}: to overwrite it would remove the input {}", target, input);
  }
  std::error_code code;
  const bool directory = fs::is_directory(target, code);
  const bool empty = directory && fs::is_empty(target, code);
  if (!code && directory && (empty || path_exists(fs::path(target) / "config.json"))) return;
  fail(ErrorKind::invalid_argument, "{}: neither empty nor a model directory, so it is not overwritten",
       target);
}

size_t parse_byte_size(const std::string& text) {
  size_t number = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string unit = lower(std::string(rest, text.data() + text.size()));
  unit.erase(0, unit.find_first_not_of(' '));
  const auto found =
      std::find_if(kUnits.begin(), kUnits.end(), [&](const Unit& row) { return row.name == unit; });
  if (error != std::errc() || found == kUnits.end() || number == 0) {
    fail(ErrorKind::invalid_argument, "\"{}\" is no size; write for example 5GB, 512MiB or 1500000", text);
  }
  if (number > SIZE_MAX / 2 / found->bytes)
    fail(ErrorKind::invalid_argument, "the size \"{}\" is too large", text);
  return number * found->bytes;
}

/// Shards have numbers until their count is known.
struct CheckpointWriter::State {
  explicit State(const Options& chosen) : options(checked(chosen)), output(chosen.target, chosen.if_exists) {}

  void require_new_name(const std::string& name) const {
    if (shard_of.contains(name)) {
      fail(ErrorKind::invalid_argument, "{}: tensor {} is written twice", options.target, quoted_name(name));
    }
    if (name == "__metadata__") {
      fail(ErrorKind::invalid_argument, "{}: no tensor may have the name {}", options.target, name);
    }
    if (!is_utf8(name)) {
      fail(ErrorKind::invalid_argument, "{}: the name {} is not UTF-8", options.target, quoted_name(name));
    }
  }

  void close_shard() {
    if (!shard) return;
    shard->close();
    closed.push_back(shard->path());
    shard.reset();
  }

  void open_shard() {
    shard = std::make_unique<ShardFile>(output.path() / fmt::format("shard-{}.partial", closed.size()),
                                        header_room(options));
  }

  std::string shard_name(size_t index) const {
    if (closed.size() == 1) return "model.safetensors";
    return fmt::format("model-{:05}-of-{:05}.safetensors", index + 1, closed.size());
  }

  std::string index_text() const {
    // Appended without the map's search for an equal key, which would be quadratic in the number of tensors.
    Json::object_t weight_map;
    for (const auto& [name, index] : shard_of) weight_map.emplace_back(name, shard_name(index));
    return Json{{"metadata", {{"total_size", bytes}}}, {"weight_map", weight_map}}.dump(2) + "\n";
  }

  Options options;
  OutputDirectory output;  // declared before the shard: removes the directory after the file is closed
  std::unique_ptr<ShardFile> shard{};
  std::vector<fs::path> closed{};
  std::map<std::string, size_t> shard_of{};
  size_t bytes = 0;
  bool broken = false;  // a tensor was written in part
};

CheckpointWriter::CheckpointWriter(const Options& options) : state_(std::make_unique<State>(options)) {}

CheckpointWriter::~CheckpointWriter() = default;

void CheckpointWriter::add(const std::string& name, const Tensor& tensor) {
  if (!tensor.defined()) fail(ErrorKind::internal, "tensor {} to be written is undefined", quoted_name(name));
  State& state = *state_;
  state.require_new_name(name);
  const bool full = state.shard && !state.shard->empty() &&
                    (state.shard->data_size() + tensor.byte_size() > state.options.shard_size ||
                     !state.shard->has_room_for(name, tensor));
  if (full) state.close_shard();
  if (!state.shard) state.open_shard();
  if (!state.shard->has_room_for(name, tensor)) {
    fail(ErrorKind::invalid_argument, "{}: the name {} is too long", state.options.target, quoted_name(name));
  }
  state.broken = true;
  state.shard->append(name, tensor);
  state.broken = false;
  state.shard_of.emplace(name, state.closed.size());
  state.bytes += tensor.byte_size();
}

void CheckpointWriter::add_file(const std::string& name, std::string_view content) {
  if (name.empty() || name == "." || name == ".." || fs::path(name).filename() != name) {
    fail(ErrorKind::invalid_argument, "{}: {} is not a plain file name", state_->options.target,
         quoted_name(name));
  }
  write_file_atomically((state_->output.path() / name).string(), content);
}

void CheckpointWriter::copy_companions(const fs::path& from) {
  for (const fs::path& file : list_directory(from)) {
    const std::string name = file.filename().string();
    if (!is_companion(file) || !file_exists(file) || path_exists(state_->output.path() / name)) continue;
    add_file(name, read_text_file(file.string()));
  }
}

void CheckpointWriter::finish() {
  State& state = *state_;
  if (state.broken) fail(ErrorKind::internal, "{}: finished after a tensor had failed", state.options.target);
  state.close_shard();
  if (state.closed.empty())
    fail(ErrorKind::invalid_argument, "{}: there is no tensor to write", state.options.target);
  for (size_t i = 0; i < state.closed.size(); ++i) {
    std::error_code code;
    fs::rename(state.closed[i], state.output.path() / state.shard_name(i), code);
    if (code) fail(ErrorKind::io, "{}: cannot rename: {}", state.closed[i].string(), code.message());
  }
  if (state.closed.size() > 1) add_file("model.safetensors.index.json", state.index_text());
  state.output.commit();
}

size_t CheckpointWriter::bytes_written() const { return state_->bytes; }

}  // namespace salient
