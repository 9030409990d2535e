#pragma once

#include "runtime/layer.h"

namespace salient {

/// Linear attention of a batch, x [rows, hidden_size] -> [rows, hidden_size] (see LinearAttention). Sequences
/// with a cache go on from its state and leave theirs there.
Tensor linear_attention_block(const LayerRun& run, const PreparedLayer& weights, const Tensor& x);

}  // namespace salient
