#include "model/families.h"

namespace salient {
namespace {

// Names are listed by role, so that a row of the table reads like the model.
struct NamedLinear {
  LinearRole role;
  std::string_view name;
};
struct NamedNorm {
  NormRole role;
  std::string_view name;
};

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

constexpr NamedNorm kLlamaNorms[] = {{NormRole::attention, "model.layers.{}.input_layernorm"},
                                     {NormRole::mlp, "model.layers.{}.post_attention_layernorm"},
                                     {NormRole::query, "model.layers.{}.self_attn.q_norm"},
                                     {NormRole::key, "model.layers.{}.self_attn.k_norm"}};

constexpr TensorNames kLlamaNames{.linears = linears(kLlamaAttention, kLlamaMlp),
                                  .norms = norms(kLlamaNorms)};

constexpr TensorNames kGemma2Names{
    .linears = linears(kLlamaAttention, kLlamaMlp),
    .norms = norms({{NormRole::attention, "model.layers.{}.input_layernorm"},
                    {NormRole::after_attention, "model.layers.{}.post_attention_layernorm"},
                    {NormRole::mlp, "model.layers.{}.pre_feedforward_layernorm"},
                    {NormRole::after_mlp, "model.layers.{}.post_feedforward_layernorm"},
                    {NormRole::query, "model.layers.{}.self_attn.q_norm"},
                    {NormRole::key, "model.layers.{}.self_attn.k_norm"}})};

constexpr TensorNames kPhi3Names{.linears = linears({{q, "model.layers.{}.self_attn.qkv_proj"},
                                                     {k, "model.layers.{}.self_attn.qkv_proj"},
                                                     {v, "model.layers.{}.self_attn.qkv_proj"},
                                                     {o, "model.layers.{}.self_attn.o_proj"},
                                                     {gate, "model.layers.{}.mlp.gate_up_proj"},
                                                     {up, "model.layers.{}.mlp.gate_up_proj"},
                                                     {down, "model.layers.{}.mlp.down_proj"}}),
                                 .norms = norms(kLlamaNorms)};

constexpr TensorNames kCohereNames{.linears = linears(kLlamaAttention, kLlamaMlp),
                                   .norms = norms({{NormRole::attention, "model.layers.{}.input_layernorm"},
                                                   {NormRole::query, "model.layers.{}.self_attn.q_norm"},
                                                   {NormRole::key, "model.layers.{}.self_attn.k_norm"}})};

constexpr TensorNames kOptNames{
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

constexpr TensorNames kGpt2Names{.embedding = "transformer.wte.weight",
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

constexpr TensorNames kBloomNames{
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

constexpr TensorNames kMixtralNames{
    .linears = linears(kLlamaAttention, {{router, "model.layers.{}.block_sparse_moe.gate"},
                                         {expert_gate, "model.layers.{}.block_sparse_moe.experts.{}.w1"},
                                         {expert_up, "model.layers.{}.block_sparse_moe.experts.{}.w3"},
                                         {expert_down, "model.layers.{}.block_sparse_moe.experts.{}.w2"}}),
    .norms = norms(kLlamaNorms)};

constexpr TensorNames kQwenMoeNames{
    .linears = linears(kLlamaAttention, kLlamaMlp, kExperts,
                       {{shared_router, "model.layers.{}.mlp.shared_expert_gate"},
                        {shared_gate, "model.layers.{}.mlp.shared_expert.gate_proj"},
                        {shared_up, "model.layers.{}.mlp.shared_expert.up_proj"},
                        {shared_down, "model.layers.{}.mlp.shared_expert.down_proj"}}),
    .norms = norms(kLlamaNorms)};

constexpr TensorNames kDeepseekNames{
    .linears = linears(kLlamaMlp, kExperts,
                       {{q, "model.layers.{}.self_attn.q_proj"},
                        {q_a, "model.layers.{}.self_attn.q_a_proj"},
                        {q_b, "model.layers.{}.self_attn.q_b_proj"},
                        {kv_a, "model.layers.{}.self_attn.kv_a_proj_with_mqa"},
                        {kv_b, "model.layers.{}.self_attn.kv_b_proj"},
                        {o, "model.layers.{}.self_attn.o_proj"},
                        {shared_gate, "model.layers.{}.mlp.shared_experts.gate_proj"},
                        {shared_up, "model.layers.{}.mlp.shared_experts.up_proj"},
                        {shared_down, "model.layers.{}.mlp.shared_experts.down_proj"}}),
    .norms = norms({{NormRole::attention, "model.layers.{}.input_layernorm"},
                    {NormRole::mlp, "model.layers.{}.post_attention_layernorm"},
                    {NormRole::query_latent, "model.layers.{}.self_attn.q_a_layernorm"},
                    {NormRole::key_latent, "model.layers.{}.self_attn.kv_a_layernorm"}})};

constexpr MoeFamily kMixtralMoe{.experts_key = "num_local_experts", .intermediate_key = "intermediate_size"};

constexpr MoeFamily kQwen3Moe{.experts_key = "num_experts",
                              .intermediate_key = "moe_intermediate_size",
                              .layers = MoeLayerRule::sparse_step,
                              .normalize_key = "norm_topk_prob"};

constexpr MoeFamily kQwen2Moe{.experts_key = "num_experts",
                              .intermediate_key = "moe_intermediate_size",
                              .layers = MoeLayerRule::sparse_step,
                              .normalize_key = "norm_topk_prob",
                              .shared_size_key = "shared_expert_intermediate_size",
                              .shared_router = true};

constexpr MoeFamily kDeepseekMoe{.experts_key = "n_routed_experts",
                                 .intermediate_key = "moe_intermediate_size",
                                 .layers = MoeLayerRule::dense_before,
                                 .score = RouterScore::sigmoid,
                                 .normalize_key = "norm_topk_prob",
                                 .normalize_default = true,
                                 .grouped = true,
                                 .correction = "model.layers.{}.mlp.gate.e_score_correction_bias",
                                 .shared_count_key = "n_shared_experts"};

constexpr NormSpec kGemmaNorm{.offset = 1};
constexpr NormSpec kLayerNorm{.kind = NormKind::layer, .bias = true};
constexpr NormSpec kPlainLayerNorm{.kind = NormKind::layer};

constexpr Family::Fixed kOptFixed[] = {{"do_layer_norm_before", true},
                                       {"_remove_final_layer_norm", false},
                                       {"layer_norm_elementwise_affine", true}};
constexpr Family::Fixed kGpt2Fixed[] = {
    {"scale_attn_weights", true}, {"scale_attn_by_inverse_layer_idx", false}, {"add_cross_attention", false}};
constexpr Family::Fixed kBloomFixed[] = {{"apply_residual_connection_post_layernorm", false}};
constexpr Family::Fixed kGemmaFixed[] = {{"use_bidirectional_attention", false}};

constexpr Family kFamilies[] = {
    {.architecture = "LlamaForCausalLM",
     .model_type = "llama",
     .names = kLlamaNames,
     .qkv_bias = BiasRule::attention_bias,
     .output_bias = BiasRule::attention_bias,
     .mlp_bias = BiasRule::mlp_bias},
    {.architecture = "MistralForCausalLM",
     .model_type = "mistral",
     .names = kLlamaNames,
     .window = WindowRule::every_layer,
     .default_max_position_embeddings = 131072,
     .default_kv_heads = 8},
    {.architecture = "Qwen2ForCausalLM",
     .model_type = "qwen2",
     .names = kLlamaNames,
     .qkv_bias = BiasRule::always,
     .window = WindowRule::by_layer_types,
     .default_max_position_embeddings = 32768,
     .default_kv_heads = 32},
    {.architecture = "Qwen3ForCausalLM",
     .model_type = "qwen3",
     .names = kLlamaNames,
     .query_key_norm = QueryKeyNorm::always,
     .qkv_bias = BiasRule::attention_bias,
     .output_bias = BiasRule::attention_bias,
     .window = WindowRule::by_layer_types,
     .default_head_dim = 128,
     .default_max_position_embeddings = 32768,
     .default_kv_heads = 32},
    {.architecture = "GemmaForCausalLM",
     .model_type = "gemma",
     .names = kLlamaNames,
     .norm = kGemmaNorm,
     .qkv_bias = BiasRule::attention_bias,
     .output_bias = BiasRule::attention_bias,
     .scaled_embedding = true,
     .activation = Activation::gelu_tanh,
     .default_tied = true,
     .default_head_dim = 256,
     .default_max_position_embeddings = 8192,
     .default_kv_heads = 16,
     .fixed = kGemmaFixed},
    {.architecture = "Gemma2ForCausalLM",
     .model_type = "gemma2",
     .names = kGemma2Names,
     .norm = kGemmaNorm,
     .qkv_bias = BiasRule::attention_bias,
     .output_bias = BiasRule::attention_bias,
     .window = WindowRule::alternating,
     .scaled_embedding = true,
     .softcaps = true,
     .default_attention_softcap = 50,
     .default_logit_softcap = 30,
     .query_pre_attn_scalar = true,
     .activation = Activation::gelu_tanh,
     .default_tied = true,
     .default_head_dim = 256,
     .default_max_position_embeddings = 8192,
     .default_kv_heads = 4,
     .fixed = kGemmaFixed},
    {.architecture = "Gemma3ForCausalLM",
     .model_type = "gemma3_text",
     .names = kGemma2Names,
     .norm = kGemmaNorm,
     .query_key_norm = QueryKeyNorm::always,
     .qkv_bias = BiasRule::attention_bias,
     .output_bias = BiasRule::attention_bias,
     .window = WindowRule::alternating,
     .position = PositionRule::rope_by_window,
     .scaled_embedding = true,
     .softcaps = true,
     .query_pre_attn_scalar = true,
     .activation = Activation::gelu_tanh,
     .default_rope_theta = 1e6,
     .default_tied = true,
     .default_window_pattern = 6,
     .default_head_dim = 256,
     .default_max_position_embeddings = 131072,
     .default_kv_heads = 4,
     .fixed = kGemmaFixed},
    {.architecture = "Phi3ForCausalLM",
     .model_type = "phi3",
     .names = kPhi3Names,
     .window = WindowRule::every_layer,
     .default_epsilon = 1e-5,
     .default_sliding_window = 0,
     .longrope_only = true,
     .default_max_position_embeddings = 4096},
    {.architecture = "CohereForCausalLM",
     .model_type = "cohere",
     .names = kCohereNames,
     .norm = kPlainLayerNorm,
     .query_key_norm = QueryKeyNorm::use_qk_norm,
     .norm_per_head = true,
     .qkv_bias = BiasRule::attention_bias,
     .output_bias = BiasRule::attention_bias,
     .rope_pairs = RopePairs::neighbours,
     .parallel_block = true,
     .default_logit_scale = 0.0625,
     .default_rope_theta = 500000,
     .default_epsilon = 1e-5,
     .default_tied = true,
     .default_max_position_embeddings = 8192},
    {.architecture = "OPTForCausalLM",
     .model_type = "opt",
     .names = kOptNames,
     .norm = kLayerNorm,
     .qkv_bias = BiasRule::enable_bias,
     .output_bias = BiasRule::enable_bias,
     .mlp_bias = BiasRule::enable_bias,
     .position = PositionRule::learned,
     .position_offset = 2,
     .grouped_query = false,
     .gated_mlp = false,
     .activation = Activation::relu,
     .default_epsilon = 1e-5,
     .default_tied = true,
     .fixed = kOptFixed},
    {.architecture = "GPT2LMHeadModel",
     .model_type = "gpt2",
     .names = kGpt2Names,
     .optional_prefix = "transformer.",
     .norm = kLayerNorm,
     .qkv_bias = BiasRule::always,
     .output_bias = BiasRule::always,
     .mlp_bias = BiasRule::always,
     .position = PositionRule::learned,
     .grouped_query = false,
     .gated_mlp = false,
     .storage = LinearStorage::transposed,
     .activation = Activation::gelu_tanh,
     .default_epsilon = 1e-5,
     .default_tied = true,
     .default_max_position_embeddings = 1024,
     .fixed = kGpt2Fixed},
    {.architecture = "BloomForCausalLM",
     .model_type = "bloom",
     .names = kBloomNames,
     .optional_prefix = "transformer.",
     .norm = kLayerNorm,
     .qkv_bias = BiasRule::always,
     .output_bias = BiasRule::always,
     .mlp_bias = BiasRule::always,
     .position = PositionRule::alibi,
     .grouped_query = false,
     .gated_mlp = false,
     .fused_by_head = true,
     .activation = Activation::gelu_tanh,
     .default_epsilon = 1e-5,
     .default_tied = true,
     .fixed = kBloomFixed},
    {.architecture = "MixtralForCausalLM",
     .model_type = "mixtral",
     .names = kMixtralNames,
     .window = WindowRule::every_layer,
     .moe = &kMixtralMoe,
     .default_rope_theta = 1e6,
     .default_epsilon = 1e-5,
     .default_sliding_window = 0,
     .default_max_position_embeddings = 131072,
     .default_kv_heads = 8},
    {.architecture = "Qwen2MoeForCausalLM",
     .model_type = "qwen2_moe",
     .names = kQwenMoeNames,
     .qkv_bias = BiasRule::qkv_bias,
     .window = WindowRule::every_other_layer_if_used,
     .moe = &kQwen2Moe,
     .default_max_position_embeddings = 32768,
     .default_kv_heads = 16},
    {.architecture = "Qwen3MoeForCausalLM",
     .model_type = "qwen3_moe",
     .names = kQwenMoeNames,
     .query_key_norm = QueryKeyNorm::always,
     .qkv_bias = BiasRule::attention_bias,
     .output_bias = BiasRule::attention_bias,
     .window = WindowRule::every_layer_if_used,
     .moe = &kQwen3Moe,
     .default_max_position_embeddings = 32768,
     .default_kv_heads = 4},
    {.architecture = "DeepseekV3ForCausalLM",
     .model_type = "deepseek_v3",
     .names = kDeepseekNames,
     .qkv_bias = BiasRule::attention_bias,
     .output_bias = BiasRule::attention_bias,
     .rope_pairs = RopePairs::neighbours,
     .latent_attention = true,
     .moe = &kDeepseekMoe,
     .default_max_position_embeddings = 4096},
};

}  // namespace

std::span<const Family> families() { return kFamilies; }

}  // namespace salient
