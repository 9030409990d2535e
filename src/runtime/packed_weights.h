#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "backend/backend.h"
#include "base/cancellation.h"
#include "checkpoint/safetensors.h"
#include "model/weights.h"

namespace salient {

/// A model's weights as a back end has packed them, in a file (safetensors) of a folder of such files. It is
/// mapped: a load takes no time, and processes that run one model share its pages. The file's name is a
/// checksum of where the checkpoint lies, its config, its tensors' names, types and places and its files'
/// sizes and times, so that a changed checkpoint has another one.
class PackedWeights {
 public:
  /// None; so of a model that is not quantized.
  PackedWeights() = default;
  /// Makes the folder and the file if need be, one layer in memory at a time; a file whose header or
  /// layouts are damaged is made anew. While another process makes it there are none. Errors:
  /// invalid_argument for the model's own folder; io; cancelled.
  PackedWeights(const std::string& folder, Backend& backend, const ModelWeights& weights,
                const CancellationFlag* cancelled);

  bool contains(int64_t layer, const LinearId& id) const;
  /// The linear in the file's memory.
  std::unique_ptr<PreparedLinear> prepare(Backend& backend, int64_t layer, const LinearSlot& slot,
                                          const Tensor& bias) const;

 private:
  std::filesystem::path path_;
  std::unique_ptr<SafetensorsFile> file_;
};

}  // namespace salient
