#pragma once

#include <span>

#include "model/decoder_spec.h"

namespace salient {

/// Whether a group of linears has biases.
enum class BiasRule {
  never,
  always,
  attention_bias,  ///< as config.json's key of this name says, default no
  mlp_bias,
  qkv_bias,     ///< default yes
  enable_bias,  ///< default yes
};

/// Which layers see a sliding window only. "layer_types" in config.json, where a family has it, wins.
enum class WindowRule {
  never,
  every_layer,                ///< `sliding_window` applies to all layers
  by_layer_types,             ///< `layer_types`, else the layers from `max_window_layers` on; only with
                              ///< `use_sliding_window`
  alternating,                ///< every layer but each n-th, n being `sliding_window_pattern`
  every_layer_if_used,        ///< every_layer, only with `use_sliding_window`
  every_other_layer_if_used,  ///< the even ones below `max_window_layers`, only with `use_sliding_window`
};

enum class QueryKeyNorm { never, always, use_qk_norm };

/// How tokens know where they stand.
enum class PositionRule {
  rope,
  rope_by_window,  ///< one rotation for layers with a window, another for the others (Gemma 3)
  learned,
  alibi,
};

/// Which layers have experts.
enum class MoeLayerRule {
  all,
  sparse_step,   ///< every `decoder_sparse_step`-th, but for `mlp_only_layers`
  dense_before,  ///< from `first_k_dense_replace` on
};

/// How a family with experts is configured. Keys are those of config.json.
struct MoeFamily {
  std::string_view experts_key;
  std::string_view intermediate_key;
  MoeLayerRule layers = MoeLayerRule::all;
  RouterScore score = RouterScore::softmax;
  /// Key that says whether the chosen weights are normalised; empty: they always are.
  std::string_view normalize_key = {};
  bool normalize_default = false;
  bool grouped = false;                    ///< n_group, topk_group, routed_scaling_factor
  std::string_view correction = {};        ///< tensor name pattern
  std::string_view shared_size_key = {};   ///< width of the shared expert
  std::string_view shared_count_key = {};  ///< or how many experts wide it is
  bool shared_router = false;
};

/// Where a family keeps its tensors; "{}" stands for the layer, a second one for the expert. Linears that
/// share a name are rows of one matrix.
struct TensorNames {
  std::string_view embedding = "model.embed_tokens.weight";
  std::string_view embedding_norm = {};
  std::string_view positions = {};
  std::string_view final_norm = "model.norm";
  std::string_view head = "lm_head";
  std::array<std::string_view, kLinearRoles> linears;
  std::array<std::string_view, kNormRoles> norms;
};

/// One row of the table of families: everything that tells them apart. Defaults are those of transformers'
/// config classes, which stand for keys that a config.json leaves out.
struct Family {
  std::string_view architecture;
  std::string_view model_type;
  const TensorNames& names;
  /// Some files leave this out in front of every tensor name.
  std::string_view optional_prefix = {};
  NormSpec norm = {};
  QueryKeyNorm query_key_norm = QueryKeyNorm::never;
  bool norm_per_head = false;
  BiasRule qkv_bias = BiasRule::never;
  BiasRule output_bias = BiasRule::never;
  BiasRule mlp_bias = BiasRule::never;
  WindowRule window = WindowRule::never;
  PositionRule position = PositionRule::rope;
  RopePairs rope_pairs = RopePairs::halves;
  int64_t position_offset = 0;
  bool grouped_query = true;  ///< reads num_key_value_heads; the others have as many as query heads
  bool gated_mlp = true;
  bool parallel_block = false;
  bool latent_attention = false;
  bool fused_by_head = false;
  LinearStorage storage = LinearStorage::matrix;
  const MoeFamily* moe = nullptr;
  bool scaled_embedding = false;  ///< by sqrt(hidden_size)
  /// Reads attn_logit_softcapping and final_logit_softcapping; these are the defaults.
  bool softcaps = false;
  double default_attention_softcap = 0;
  double default_logit_softcap = 0;
  bool query_pre_attn_scalar = false;  ///< attention is scaled by its -1/2 power
  double default_logit_scale = 1;      ///< of `logit_scale`, where not 1
  Activation activation = Activation::silu;
  double default_rope_theta = 10000;
  double default_epsilon = 1e-6;
  bool default_tied = false;
  int64_t default_sliding_window = 4096;
  int64_t default_window_pattern = 2;  ///< of WindowRule::alternating
  bool longrope_only = false;          ///< every kind of rope scaling means longrope
  /// 0: hidden_size / num_attention_heads.
  int64_t default_head_dim = 0;
  int64_t default_max_position_embeddings = 2048;
  /// 0: as many as query heads. A null in config.json means that for every family.
  int64_t default_kv_heads = 0;
  /// Keys whose only supported value is this one, e.g. OPT's layout with norms behind the blocks is another
  /// model.
  struct Fixed {
    std::string_view key;
    bool value;
  };
  std::span<const Fixed> fixed = {};
};

std::span<const Family> families();

}  // namespace salient
