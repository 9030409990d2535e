#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/file.h"
#include "tensor/tensor.h"

namespace salient {

/// Bytes of "5GB", "512MiB", "1500000". Errors: invalid_argument.
size_t parse_byte_size(const std::string& text);

/// Whatever stands at `target` is going to be removed: never one of `inputs` (empty names do not count), and
/// nothing but a model directory or an empty folder. Errors: invalid_argument.
void check_replaceable(const std::string& target, std::span<const std::string> inputs);

/// Writes a model directory, streaming: at most one tensor is held in memory. Nothing is visible under the
/// target's name before `finish`; destroyed without it, nothing remains.
class CheckpointWriter {
 public:
  struct Options {
    std::string target;
    size_t shard_size = 5'000'000'000;  ///< of tensor bytes, as Hugging Face counts "5GB"
    OutputDirectory::IfExists if_exists = OutputDirectory::IfExists::refuse;
    /// Sizes the room that each shard keeps for its header. With 0 or too small a number a model of very many
    /// tensors merely gets more shards.
    size_t expected_tensors = 0;
  };
  /// Errors: invalid_argument when the target exists and may not be replaced; io.
  explicit CheckpointWriter(const Options& options);
  ~CheckpointWriter();

  /// Appends a tensor; starts a new shard when the current one would pass the limit (a single larger tensor
  /// gets a shard of its own). Errors: invalid_argument for a name already written or not to be written; io
  /// with path and system message (a full disk among them).
  void add(const std::string& name, const Tensor& tensor);
  /// Any other file of the directory, e.g. "config.json", "recipe.yaml"; the last one of a name stays.
  /// Errors: invalid_argument unless `name` is a plain file name; io.
  void add_file(const std::string& name, std::string_view content);
  /// Copies the files that travel with a model (tokenizer*, special_tokens_map, vocab, merges, chat template,
  /// generation_config, preprocessor configs, licence and notice files; never weights, config.json or
  /// indexes), except those that add_file has written. Errors: not_found, io.
  void copy_companions(const std::filesystem::path& from);

  /// Closes the shards, renames them (model.safetensors, or model-00001-of-00003.safetensors with the index),
  /// and makes the directory visible. Errors: invalid_argument without any tensor; io.
  void finish();

  /// Of all tensors so far.
  size_t bytes_written() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace salient
