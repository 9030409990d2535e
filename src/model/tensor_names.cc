#include "model/tensor_names.h"

namespace salient {
namespace {

/// The names of several lists, such as an attention block and a feed-forward block.
template <size_t... Counts>
constexpr std::array<std::string_view, kLinearRoles> linears(const NamedLinear (&... lists)[Counts]) {
  std::array<std::string_view, kLinearRoles> names{};
  const auto add = [&](const auto& list) {
    for (const NamedLinear& entry : list) names[static_cast<size_t>(entry.role)] = entry.name;
  };
  (add(lists), ...);
  return names;
}

template <size_t Count>
constexpr std::array<std::string_view, kNormRoles> norms(const NamedNorm (&list)[Count]) {
  std::array<std::string_view, kNormRoles> names{};
  for (const auto& entry : list) names[static_cast<size_t>(entry.role)] = entry.name;
  return names;
}

using enum LinearRole;

constexpr NamedLinear kLlamaAttention[] = {{q, "model.layers.{}.self_attn.q_proj"},
                                           {k, "model.layers.{}.self_attn.k_proj"},
                                           {v, "model.layers.{}.self_attn.v_proj"},
                                           {o, "model.layers.{}.self_attn.o_proj"}};

constexpr NamedLinear kLlamaMlp[] = {{gate, "model.layers.{}.mlp.gate_proj"},
                                     {up, "model.layers.{}.mlp.up_proj"},
                                     {down, "model.layers.{}.mlp.down_proj"}};

constexpr NamedLinear kExperts[] = {{router, "model.layers.{}.mlp.gate"},
                                    {expert_gate, "model.layers.{}.mlp.experts.{}.gate_proj"},
                                    {expert_up, "model.layers.{}.mlp.experts.{}.up_proj"},
                                    {expert_down, "model.layers.{}.mlp.experts.{}.down_proj"}};

constexpr NamedLinear kSharedExperts[] = {{shared_gate, "model.layers.{}.mlp.shared_experts.gate_proj"},
                                          {shared_up, "model.layers.{}.mlp.shared_experts.up_proj"},
                                          {shared_down, "model.layers.{}.mlp.shared_experts.down_proj"}};

constexpr NamedNorm kLlamaNorms[] = {{NormRole::attention, "model.layers.{}.input_layernorm"},
                                     {NormRole::mlp, "model.layers.{}.post_attention_layernorm"},
                                     {NormRole::query, "model.layers.{}.self_attn.q_norm"},
                                     {NormRole::key, "model.layers.{}.self_attn.k_norm"}};

constexpr NamedLinear kQwenSharedExpert[] = {{shared_router, "model.layers.{}.mlp.shared_expert_gate"},
                                             {shared_gate, "model.layers.{}.mlp.shared_expert.gate_proj"},
                                             {shared_up, "model.layers.{}.mlp.shared_expert.up_proj"},
                                             {shared_down, "model.layers.{}.mlp.shared_expert.down_proj"}};

/// Queries and gate are rows of one matrix.
constexpr NamedLinear kQwenGate[] = {{attention_gate, "model.layers.{}.self_attn.q_proj"}};

/// In the order of StateTensor.
constexpr std::array<std::string_view, kStateTensors> kQwenState = {
    "model.layers.{}.linear_attn.conv1d.weight", "model.layers.{}.linear_attn.A_log",
    "model.layers.{}.linear_attn.dt_bias", "model.layers.{}.linear_attn.norm.weight"};

}  // namespace

constinit const TensorNames kLlamaNames{.linears = linears(kLlamaAttention, kLlamaMlp),
                                        .norms = norms(kLlamaNorms)};

constinit const TensorNames kGemma2Names{
    .linears = linears(kLlamaAttention, kLlamaMlp),
    .norms = norms({{NormRole::attention, "model.layers.{}.input_layernorm"},
                    {NormRole::after_attention, "model.layers.{}.post_attention_layernorm"},
                    {NormRole::mlp, "model.layers.{}.pre_feedforward_layernorm"},
                    {NormRole::after_mlp, "model.layers.{}.post_feedforward_layernorm"},
                    {NormRole::query, "model.layers.{}.self_attn.q_norm"},
                    {NormRole::key, "model.layers.{}.self_attn.k_norm"}})};

constinit const TensorNames kPhi3Names{.linears = linears({{q, "model.layers.{}.self_attn.qkv_proj"},
                                                           {k, "model.layers.{}.self_attn.qkv_proj"},
                                                           {v, "model.layers.{}.self_attn.qkv_proj"},
                                                           {o, "model.layers.{}.self_attn.o_proj"},
                                                           {gate, "model.layers.{}.mlp.gate_up_proj"},
                                                           {up, "model.layers.{}.mlp.gate_up_proj"},
                                                           {down, "model.layers.{}.mlp.down_proj"}}),
                                       .norms = norms(kLlamaNorms)};

constinit const TensorNames kCohereNames{
    .linears = linears(kLlamaAttention, kLlamaMlp),
    .norms = norms({{NormRole::attention, "model.layers.{}.input_layernorm"},
                    {NormRole::query, "model.layers.{}.self_attn.q_norm"},
                    {NormRole::key, "model.layers.{}.self_attn.k_norm"}})};

/// OLMo's norms have no weights.
constinit const TensorNames kOlmoNames{
    .final_norm = {}, .linears = linears(kLlamaAttention, kLlamaMlp), .norms = {}};

/// The attention and the feed-forward block read the residual stream itself; what they add is normalised.
constinit const TensorNames kPostNormNames{
    .linears = linears(kLlamaAttention, kLlamaMlp),
    .norms = norms({{NormRole::after_attention, "model.layers.{}.post_attention_layernorm"},
                    {NormRole::after_mlp, "model.layers.{}.post_feedforward_layernorm"},
                    {NormRole::query, "model.layers.{}.self_attn.q_norm"},
                    {NormRole::key, "model.layers.{}.self_attn.k_norm"}})};

constinit const TensorNames kOptNames{
    .embedding = "model.decoder.embed_tokens.weight",
    .positions = "model.decoder.embed_positions.weight",
    .final_norm = "model.decoder.final_layer_norm",
    .linears = linears({{q, "model.decoder.layers.{}.self_attn.q_proj"},
                        {k, "model.decoder.layers.{}.self_attn.k_proj"},
                        {v, "model.decoder.layers.{}.self_attn.v_proj"},
                        {o, "model.decoder.layers.{}.self_attn.out_proj"},
                        {up, "model.decoder.layers.{}.fc1"},
                        {down, "model.decoder.layers.{}.fc2"}}),
    .norms = norms({{NormRole::attention, "model.decoder.layers.{}.self_attn_layer_norm"},
                    {NormRole::mlp, "model.decoder.layers.{}.final_layer_norm"}})};

constinit const TensorNames kGpt2Names{.embedding = "transformer.wte.weight",
                                       .positions = "transformer.wpe.weight",
                                       .final_norm = "transformer.ln_f",
                                       .linears = linears({{q, "transformer.h.{}.attn.c_attn"},
                                                           {k, "transformer.h.{}.attn.c_attn"},
                                                           {v, "transformer.h.{}.attn.c_attn"},
                                                           {o, "transformer.h.{}.attn.c_proj"},
                                                           {up, "transformer.h.{}.mlp.c_fc"},
                                                           {down, "transformer.h.{}.mlp.c_proj"}}),
                                       .norms = norms({{NormRole::attention, "transformer.h.{}.ln_1"},
                                                       {NormRole::mlp, "transformer.h.{}.ln_2"}})};

constinit const TensorNames kBloomNames{
    .embedding = "transformer.word_embeddings.weight",
    .embedding_norm = "transformer.word_embeddings_layernorm",
    .final_norm = "transformer.ln_f",
    .linears = linears({{q, "transformer.h.{}.self_attention.query_key_value"},
                        {k, "transformer.h.{}.self_attention.query_key_value"},
                        {v, "transformer.h.{}.self_attention.query_key_value"},
                        {o, "transformer.h.{}.self_attention.dense"},
                        {up, "transformer.h.{}.mlp.dense_h_to_4h"},
                        {down, "transformer.h.{}.mlp.dense_4h_to_h"}}),
    .norms = norms({{NormRole::attention, "transformer.h.{}.input_layernorm"},
                    {NormRole::mlp, "transformer.h.{}.post_attention_layernorm"}})};

constinit const TensorNames kMixtralNames{
    .linears = linears(kLlamaAttention, {{router, "model.layers.{}.block_sparse_moe.gate"},
                                         {expert_gate, "model.layers.{}.block_sparse_moe.experts.{}.w1"},
                                         {expert_up, "model.layers.{}.block_sparse_moe.experts.{}.w3"},
                                         {expert_down, "model.layers.{}.block_sparse_moe.experts.{}.w2"}}),
    .norms = norms(kLlamaNorms)};

constinit const TensorNames kQwenMoeNames{
    .linears = linears(kLlamaAttention, kLlamaMlp, kExperts, kQwenSharedExpert), .norms = norms(kLlamaNorms)};

constinit const TensorNames kQwenNextNames{
    .linears = linears(kLlamaAttention, kQwenGate, kLlamaMlp, kExperts, kQwenSharedExpert,
                       {{state_q, "model.layers.{}.linear_attn.in_proj_qkvz"},
                        {state_k, "model.layers.{}.linear_attn.in_proj_qkvz"},
                        {state_v, "model.layers.{}.linear_attn.in_proj_qkvz"},
                        {state_gate, "model.layers.{}.linear_attn.in_proj_qkvz"},
                        {state_beta, "model.layers.{}.linear_attn.in_proj_ba"},
                        {state_decay, "model.layers.{}.linear_attn.in_proj_ba"},
                        {state_out, "model.layers.{}.linear_attn.out_proj"}}),
    .norms = norms(kLlamaNorms),
    .state_tensors = kQwenState};

constinit const TensorNames kQwen35Names{
    .linears = linears(kLlamaAttention, kQwenGate, kLlamaMlp, kExperts, kQwenSharedExpert,
                       {{state_q, "model.layers.{}.linear_attn.in_proj_qkv"},
                        {state_k, "model.layers.{}.linear_attn.in_proj_qkv"},
                        {state_v, "model.layers.{}.linear_attn.in_proj_qkv"},
                        {state_gate, "model.layers.{}.linear_attn.in_proj_z"},
                        {state_beta, "model.layers.{}.linear_attn.in_proj_b"},
                        {state_decay, "model.layers.{}.linear_attn.in_proj_a"},
                        {state_out, "model.layers.{}.linear_attn.out_proj"}}),
    .norms = norms(kLlamaNorms),
    .state_tensors = kQwenState};

constinit const TensorNames kGlmMoeNames{
    .linears = linears(kLlamaAttention, kLlamaMlp, kExperts, kSharedExperts), .norms = norms(kLlamaNorms)};

constinit const TensorNames kAfmoeNames{
    .linears = linears(kLlamaAttention, kLlamaMlp, kExperts, kSharedExperts,
                       {{attention_gate, "model.layers.{}.self_attn.gate_proj"},
                        {router, "model.layers.{}.mlp.router.gate"}}),
    .norms = norms({{NormRole::attention, "model.layers.{}.input_layernorm"},
                    {NormRole::after_attention, "model.layers.{}.post_attention_layernorm"},
                    {NormRole::mlp, "model.layers.{}.pre_mlp_layernorm"},
                    {NormRole::after_mlp, "model.layers.{}.post_mlp_layernorm"},
                    {NormRole::query, "model.layers.{}.self_attn.q_norm"},
                    {NormRole::key, "model.layers.{}.self_attn.k_norm"}})};

constinit const TensorNames kDeepseekNames{
    .linears = linears(kLlamaMlp, kExperts, kSharedExperts,
                       {{q, "model.layers.{}.self_attn.q_proj"},
                        {q_a, "model.layers.{}.self_attn.q_a_proj"},
                        {q_b, "model.layers.{}.self_attn.q_b_proj"},
                        {kv_a, "model.layers.{}.self_attn.kv_a_proj_with_mqa"},
                        {kv_b, "model.layers.{}.self_attn.kv_b_proj"},
                        {o, "model.layers.{}.self_attn.o_proj"}}),
    .norms = norms({{NormRole::attention, "model.layers.{}.input_layernorm"},
                    {NormRole::mlp, "model.layers.{}.post_attention_layernorm"},
                    {NormRole::query_latent, "model.layers.{}.self_attn.q_a_layernorm"},
                    {NormRole::key_latent, "model.layers.{}.self_attn.kv_a_layernorm"}})};

}  // namespace salient
