#pragma once

#include <span>

#include "model/decoder_spec.h"
#include "model/tensor_names.h"

namespace salient {

/// Whether a group of linears has biases: as the key of config.json says, `fallback` when it is absent or
/// there is no key.
struct BiasRule {
  std::string_view key = {};
  bool fallback = false;
};

/// Which layers see a sliding window only. "layer_types" in config.json, where a family has it, wins.
enum class WindowRule {
  never,
  every_layer,                ///< `sliding_window` applies to all layers
  by_layer_types,             ///< `layer_types`, else the layers from `max_window_layers` on; only with
                              ///< `use_sliding_window`
  alternating,                ///< every layer but each n-th, n being Family::window_pattern_key
  every_layer_if_used,        ///< every_layer, only with `use_sliding_window`
  every_other_layer_if_used,  ///< the even ones below `max_window_layers`, only with `use_sliding_window`
};

enum class QueryKeyNorm { never, always, use_qk_norm };

/// How tokens know where they stand.
enum class PositionRule {
  rope,
  rope_by_window,          ///< one rotation for layers with a window, another for the others (Gemma 3)
  rope_in_windows,         ///< only layers with a window are rotated (Yang et al. 2025)
  rope_in_windows_if_any,  ///< the same, but every layer where `sliding_window` is null
  learned,
  alibi,
};

/// Which layers have experts.
enum class MoeLayerRule {
  all,
  sparse_step,   ///< every `decoder_sparse_step`-th, but for `mlp_only_layers`
  dense_before,  ///< from the one on that MoeFamily::dense_layers_key names
  interval,      ///< every `moe_layer_interval`-th of `moe_layer_start_index` to `moe_layer_end_index`
  listed,        ///< those that `mlp_layer_types` calls sparse; without it, all but the first
};

/// Whether experts are chosen within the best groups only.
enum class GroupRule {
  never,
  always,          ///< by `n_group` and `topk_group`
  by_topk_method,  ///< where `topk_method` is group_limited_greedy
};

/// Sizes that stand for keys which a config.json leaves out; 0: it must say them.
struct SizeDefaults {
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t vocab_size = 0;
};

/// How a family with experts is configured. Keys are those of config.json.
struct MoeFamily {
  std::string_view experts_key;
  /// Another name of the same in the class's attribute_map: files may use either, and transformers 5 writes
  /// another one than published files have.
  std::string_view other_experts_key = {};
  std::string_view intermediate_key = "moe_intermediate_size";
  std::string_view per_token_key = "num_experts_per_tok";
  std::string_view other_per_token_key = {};
  MoeLayerRule layers = MoeLayerRule::all;
  std::string_view dense_layers_key = {};  ///< of MoeLayerRule::dense_before
  int64_t default_dense_layers = 0;
  RouterScore score = RouterScore::softmax;
  /// Key that says whether the chosen weights are normalised; empty: they always are.
  std::string_view normalize_key = {};
  bool normalize_default = false;
  std::string_view least_sum_key = {};  ///< see MoeSpec::least_sum
  std::string_view scale_key = {};      ///< of the chosen weights
  double default_scale = 1;
  GroupRule groups = GroupRule::never;
  GroupScore group_score = GroupScore::best_two;
  int64_t default_groups = 1;
  int64_t default_groups_per_token = 1;
  std::string_view correction = {};        ///< tensor name pattern
  bool correction_is_row = false;          ///< the tensor is [1, experts]
  std::string_view shared_size_key = {};   ///< width of the shared expert
  std::string_view shared_count_key = {};  ///< or how many experts wide it is
  int64_t default_shared_count = 1;
  bool shared_router = false;
};

/// What config.json leaves out of a latent attention.
struct LatentDefaults {
  int64_t query_rank = 1536;
  int64_t key_value_rank = 512;
  int64_t plain_dim = 128;
  int64_t rotated_dim = 64;
  int64_t value_dim = 128;
};

/// How a family with linear attention is configured: keys as transformers has them, and what stands for them.
struct LinearAttentionFamily {
  bool fused_by_head = false;  ///< see LinearAttention
  int64_t key_heads = 16;
  int64_t value_heads = 32;
  int64_t key_dim = 128;
  int64_t value_dim = 128;
  int64_t kernel = 4;
  int64_t interval = 4;  ///< every so many layers one attends, where "layer_types" does not say
};

/// One row of the table of families: everything that tells them apart. Defaults are those of transformers'
/// config classes, which stand for keys that a config.json leaves out.
struct Family {
  std::string_view architecture;
  std::string_view model_type;
  const TensorNames& names;
  std::span<const NamePrefix> other_prefixes = {};
  NormSpec norm = {};
  QueryKeyNorm query_key_norm = QueryKeyNorm::never;
  QueryKeyGain query_key_gain = QueryKeyGain::shared;
  BiasRule qkv_bias = {};
  BiasRule output_bias = {};
  BiasRule mlp_bias = {};
  WindowRule window = WindowRule::never;
  PositionRule position = PositionRule::rope;
  RopePairs rope_pairs = RopePairs::halves;
  std::string_view interleave_key = {};  ///< halves where this key is false
  int64_t position_offset = 0;
  bool grouped_query = true;  ///< reads num_key_value_heads; the others have as many as query heads
  bool gated_mlp = true;
  bool parallel_block = false;
  const LatentDefaults* latent = nullptr;
  const LinearAttentionFamily* linear_attention = nullptr;
  bool fused_by_head = false;
  LinearStorage storage = LinearStorage::matrix;
  const MoeFamily* moe = nullptr;
  bool attention_gate = false;                 ///< see LinearRole::attention_gate
  bool scaled_embedding = false;               ///< by sqrt(hidden_size)
  std::string_view scaled_embedding_key = {};  ///< or where this key is true
  /// Reads embedding_multiplier, residual_multiplier, attention_multiplier and logits_scaling, 1 by default.
  bool multipliers = false;
  /// Reads attn_logit_softcapping and final_logit_softcapping; these are the defaults.
  bool softcaps = false;
  double default_attention_softcap = 0;
  double default_logit_softcap = 0;
  bool query_pre_attn_scalar = false;  ///< attention is scaled by its -1/2 power
  double default_logit_scale = 1;      ///< of `logit_scale`, where not 1
  Activation activation = Activation::silu;
  double default_rope_theta = 10000;
  double default_local_theta = 10000;        ///< of layers with a window, PositionRule::rope_by_window
  double default_partial_rotary_factor = 1;  ///< share of a head that is rotated
  double default_epsilon = 1e-6;
  bool fixed_epsilon = false;  ///< no key of config.json changes it
  bool default_tied = false;
  int64_t default_sliding_window = 4096;
  std::string_view window_pattern_key = "sliding_window_pattern";  ///< of WindowRule::alternating
  int64_t default_window_pattern = 2;
  int64_t default_max_window_layers = 28;
  bool multimodal_rope = false;  ///< its three positions of a token are one and the same for text
  bool longrope_only = false;    ///< every kind of rope scaling means longrope
  bool text_part_only = false;   ///< no checkpoint is of this class, only parts of one are
  /// Where the family is the text part of a model of more, whose files keep what differs from these only.
  SizeDefaults text_sizes = {};
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
  /// Keys that are supported only where they are absent or null.
  std::span<const std::string_view> unset = {};
};

std::span<const Family> families();

/// make_decoder_spec with families beside those of the table; a row of `more` goes before.
DecoderSpec make_decoder_spec(const JsonView& config, std::span<const Family> more);

/// A model of more than text whose text part is a family of the table: the one whose model_type `text_config`
/// names.
struct MultimodalFamily {
  std::string_view architecture;
  std::string_view model_type;
  std::string_view text_type;  ///< the model_type that a `text_config` without one means
  bool flat = false;           ///< without `text_config`, config.json says everything at once
  bool default_tied = false;
  bool tied_by_text = false;  ///< also where the text part says so
};

std::span<const MultimodalFamily> multimodal_families();

/// Where such a model keeps its text part.
std::span<const NamePrefix> text_part_prefixes();

}  // namespace salient
