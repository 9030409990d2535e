#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "backend/backend.h"
#include "base/cancellation.h"
#include "checkpoint/safetensors.h"
#include "model/weights.h"
#include "runtime/head.h"

namespace salient {

struct PackingOptions {
  std::string folder;
  LmHead lm_head = LmHead::automatic;
  const CancellationFlag* cancelled = nullptr;
};

/// A model's weights as a back end has packed them, in a file (safetensors) of a folder of such files. It is
/// mapped: a load takes no time, and processes that run one model share its pages. The file's name is a
/// checksum of where the checkpoint lies, its config, its tensors' names, types and places, its files'
/// sizes and times, and whether its head is rounded, so that a changed checkpoint has another one.
class PackedWeights {
 public:
  /// None; so of a model with neither quantized linears nor a rounded head.
  PackedWeights() = default;
  /// Makes the folder and the file if need be, one layer in memory at a time; a file whose header or
  /// layouts are damaged is made anew. While another process makes it there are none. Errors:
  /// invalid_argument for the model's own folder; those of rounded_head; io; cancelled.
  PackedWeights(Backend& backend, const ModelWeights& weights, const PackingOptions& options);

  bool contains(int64_t layer, const LinearId& id) const;
  /// The linear in the file's memory.
  std::unique_ptr<PreparedLinear> prepare(Backend& backend, int64_t layer, const LinearSlot& slot,
                                          const Tensor& bias) const;
  /// Whether a rounded head is among them; it, in the file's memory.
  bool contains_head() const;
  std::unique_ptr<PreparedLinear> prepare_head(Backend& backend, const DecoderSpec& spec) const;

 private:
  std::filesystem::path path_;
  std::unique_ptr<SafetensorsFile> file_;
};

}  // namespace salient
