#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <string_view>

namespace salient {

/// The linears of a decoder layer by what they do, in the order of the forward pass. No layer has them all.
enum class LinearRole {
  q,
  attention_gate,  ///< hidden -> features of all heads: their outputs are multiplied by its sigmoid (AFMoE)
  k,
  v,
  q_a,   ///< latent attention (DeepSeek-AI 2024): hidden -> query latent
  q_b,   ///< query latent -> heads
  kv_a,  ///< hidden -> key-value latent and the one rotated key part
  kv_b,  ///< key-value latent -> heads
  o,
  state_q,  ///< linear attention (see LinearAttention): hidden -> queries, keys and values of its heads
  state_k,
  state_v,
  state_gate,   ///< hidden -> features of all value heads: their outputs are multiplied by its silu
  state_beta,   ///< hidden -> how much of a value each head writes
  state_decay,  ///< hidden -> how much each head forgets
  state_out,
  gate,  ///< of a gated feed-forward block; the others have up and down only
  up,
  down,
  router,       ///< hidden -> a score per expert
  expert_gate,  ///< one of each per expert
  expert_up,
  expert_down,
  shared_router,  ///< hidden -> the weight of the expert that sees every token
  shared_gate,
  shared_up,
  shared_down,
};
inline constexpr size_t kLinearRoles = 27;
std::string_view to_string(LinearRole role);

/// One linear of a layer.
struct LinearId {
  LinearRole role;
  int64_t expert = 0;  ///< for expert_gate, expert_up and expert_down

  LinearId(LinearRole of, int64_t which = 0) : role(of), expert(which) {}  // NOLINT: a role is an id
  auto operator<=>(const LinearId&) const = default;
};

/// A value for each linear of a layer, in order of the forward pass.
template <typename T>
using PerLinear = std::map<LinearId, T>;

/// The norms of a decoder layer.
enum class NormRole {
  attention,        ///< before the attention; of a parallel block, before both
  mlp,              ///< before the feed-forward block
  after_attention,  ///< on what the attention adds to the residual stream (Gemma 2)
  after_mlp,
  query,  ///< on every head of the queries
  key,
  query_latent,  ///< between q_a and q_b
  key_latent,    ///< between kv_a and kv_b
};
inline constexpr size_t kNormRoles = 8;

/// The tensors of a layer with linear attention that are neither linears nor norms of the residual stream.
enum class StateTensor {
  convolution,  ///< [channels, 1, kernel]
  log_decay,    ///< [value heads]
  step_bias,    ///< [value heads]
  gain,         ///< [value_dim] of the norm on every head's output
};
inline constexpr size_t kStateTensors = 4;

inline bool is_expert(LinearRole role) {
  return role == LinearRole::expert_gate || role == LinearRole::expert_up || role == LinearRole::expert_down;
}

}  // namespace salient
