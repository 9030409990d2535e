#pragma once

#include "runtime/layer.h"

namespace salient {

/// The experts that one token goes to, and what their outputs are multiplied by.
struct Routing {
  std::vector<int32_t> experts;  ///< [rows * experts_per_token]
  std::vector<float> weights;    ///< like experts
};

/// Chooses experts from the router's scores f32 [rows, experts] (Shazeer et al. 2017; DeepSeek-AI 2024 for
/// sigmoid scores, groups and the correction).
Routing route(const MoeSpec& moe, const Tensor& scores, const Tensor& correction);

/// The mixture of experts in place of the feed-forward block: x [rows, hidden] -> [rows, hidden].
Tensor moe_block(const LayerRun& run, const PreparedLayer& weights, const Tensor& x);

struct MlpRoles {
  LinearId gate;
  LinearId up;
  LinearId down;
};
/// activation(gate(x)) * up(x), or activation(up(x)) without gating.
Tensor mlp_hidden(const LayerRun& run, const PreparedLayer& weights, const MlpRoles& roles, const Tensor& x);
/// down(mlp_hidden(x)).
Tensor mlp_block(const LayerRun& run, const PreparedLayer& weights, const MlpRoles& roles, const Tensor& x);

}  // namespace salient
