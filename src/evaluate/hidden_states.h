#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "base/cancellation.h"
#include "model/weights.h"
#include "runtime/head.h"

namespace salient {

/// Token ids of the texts to predict, each on its own from its first token.
using TokenWindows = std::vector<std::vector<int32_t>>;

/// Where an evaluation stands: `step` of `steps` is done (each layer of each model and each window are a
/// step).
using EvaluationProgress = std::function<void(int64_t step, int64_t steps)>;

struct EvaluationOptions {
  EvaluationProgress on_progress;
  /// Of the model, not of a reference: attention reads keys and values as a cache of this type keeps them.
  KvType kv_type = KvType::fp32;
  const CancellationFlag* cancelled = nullptr;
  LmHead lm_head = LmHead::automatic;  ///< of the model; a reference has its own as stored
};

struct WindowsRun {
  Backend& backend;
  const ModelWeights& weights;
  std::span<const std::vector<int32_t>> windows;
  KvType kv_type = KvType::fp32;
};
/// Hidden states f32 [all tokens, hidden] of all windows behind the last layer. One layer's weights are
/// prepared at a time. `on_layer` is called after each. Attention reads caches of `kv_type`.
Tensor run_all_layers(const WindowsRun& run, const std::function<void()>& on_layer);

}  // namespace salient
