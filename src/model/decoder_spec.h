#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "model/layer_parts.h"
#include "tensor/activation.h"
#include "tensor/dtype.h"
#include "tensor/rope_pairs.h"

namespace salient {

enum class RopeScaling { none, linear, dynamic, llama3, yarn, longrope };

/// config.json's rope_theta and rope_scaling (or rope_parameters of transformers 5), defaults resolved.
struct RopeSpec {
  RopeScaling scaling = RopeScaling::none;
  double theta = 10000.0;
  int64_t rotary_dim = 0;  ///< of head_dim
  int64_t max_position_embeddings = 0;
  double factor = 1.0;
  // llama3
  double low_frequency_factor = 1.0;
  double high_frequency_factor = 4.0;
  // llama3, yarn, longrope
  int64_t original_max_position_embeddings = 0;
  // yarn
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  std::optional<double> mscale;
  std::optional<double> mscale_all_dim;
  bool truncate = true;
  // yarn, longrope: multiplies cosine and sine; absent means the formula of the scaling kind
  std::optional<double> attention_factor;
  // longrope
  std::vector<double> short_factor;
  std::vector<double> long_factor;
};

enum class NormKind {
  rms,    ///< Zhang & Sennrich 2019
  layer,  ///< Ba et al. 2016
};

struct NormSpec {
  NormKind kind = NormKind::rms;
  double epsilon = 1e-6;
  bool weight = true;  ///< false: every gain is 1 and no norm is stored (OLMo)
  bool bias = false;
  float offset = 0;  ///< the gain is the stored weight plus this (Gemma: 1)
};

/// Rows of a stored matrix that make one linear: row i is at first + i / block * stride + i % block. A linear
/// stored on its own is one block.
struct StoredRows {
  int64_t count = 0;  ///< rows of the whole stored matrix
  int64_t first = 0;
  int64_t block = 0;
  int64_t stride = 0;
};

/// How a linear lies in its tensor.
enum class LinearStorage {
  matrix,        ///< "<name>.weight" [out, in]
  transposed,    ///< "<name>.weight" [in, out], the Conv1D of GPT-2
  expert_stack,  ///< "<name>" [experts, out, in], no suffix
};

/// One linear of a layer as the checkpoint must hold it. Several linears may share a stored matrix (fused
/// qkv): they have the same name and different rows.
struct LinearSlot {
  LinearId id;
  std::string name;  ///< of the stored module: "model.layers.0.self_attn.q_proj"
  int64_t out_features;
  int64_t in_features;
  bool bias;
  LinearStorage storage = LinearStorage::matrix;
  StoredRows rows;

  bool fused() const { return rows.count != out_features; }
};

/// Some files begin names with `to` where others begin them with `from`. Both are literals of the tables.
struct NamePrefix {
  std::string_view from;
  std::string_view to;

  std::string change(const std::string& name) const;
};

/// Positions as learned vectors that are added to the embeddings.
struct LearnedPositions {
  std::string name;  ///< of the table's tensor
  int64_t count;     ///< rows of the table
  int64_t offset;    ///< position p has row p + offset (OPT: 2)
};

/// Attention through latent vectors (DeepSeek-AI 2024, DeepSeek-V2, section 2.1). A head's query and key are
/// [plain, rotated].
struct LatentAttention {
  int64_t query_rank = 0;  ///< 0: queries come from the hidden state by one linear, q
  int64_t key_value_rank = 0;
  int64_t plain_dim = 0;
  int64_t rotated_dim = 0;
  double norm_epsilon = 1e-6;
};

/// Linear attention by the gated delta rule (Yang et al. 2024, Gated Delta Networks, section 3). A key head
/// serves value_heads / key_heads value heads.
struct LinearAttention {
  int64_t key_heads = 0;
  int64_t value_heads = 0;
  int64_t key_dim = 0;  ///< of a head
  int64_t value_dim = 0;
  int64_t kernel = 0;          ///< positions that the convolution over queries, keys and values sees
  bool fused_by_head = false;  ///< linears that share a matrix are kept together by key head
  std::vector<bool> layers;    ///< which layers have it; the others attend
  /// Patterns of the names, in full.
  std::array<std::string, kStateTensors> tensor_names;

  int64_t key_features() const { return key_heads * key_dim; }
  int64_t value_features() const { return value_heads * value_dim; }
  /// Queries, keys and values of all heads.
  int64_t channels() const { return 2 * key_features() + value_features(); }
};

enum class RouterScore {
  softmax,  ///< over all experts
  sigmoid,  ///< of each on its own (DeepSeek-V3)
};

/// What a group of experts is as good as.
enum class GroupScore {
  best_two,  ///< its two best together (DeepSeek-V3)
  best,      ///< its best (DeepSeek-V2)
};

/// A mixture of experts instead of the feed-forward block.
struct MoeSpec {
  int64_t experts = 0;
  int64_t experts_per_token = 0;
  int64_t intermediate_size = 0;
  RouterScore score = RouterScore::softmax;
  bool normalize = false;  ///< the chosen weights sum to 1
  double least_sum = 0;    ///< what they are divided by is not smaller than this
  double scale = 1.0;      ///< of the chosen weights
  int64_t groups = 1;      ///< experts are chosen within the best groups only
  int64_t groups_per_token = 1;
  GroupScore group_score = GroupScore::best_two;
  std::string correction_name;      ///< tensor added to the scores for choosing, not for weighing; or empty
  bool correction_is_row = false;   ///< it is stored as [1, experts]
  int64_t shared_intermediate = 0;  ///< 0: no shared expert
  bool shared_router = false;       ///< the shared expert is weighed by a sigmoid
  std::vector<bool> layers;         ///< which layers have experts; the others have a dense block
};

/// What the gains of the query and key norms are for, and with them what is normalised at once.
enum class QueryKeyGain {
  shared,     ///< [head_dim]: every head by the same
  per_head,   ///< [heads, head_dim]: every head by its own
  whole_row,  ///< [heads * head_dim]: all heads together (OLMo 2)
};

/// What a model is, as plain data. Made from config.json by `make_decoder_spec`; the rest of the program
/// never asks which family it came from.
struct DecoderSpec {
  std::string architecture;  ///< "LlamaForCausalLM"
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t value_dim = 0;  ///< of a head; head_dim but for latent attention
  int64_t vocab_size = 0;
  int64_t max_position_embeddings = 0;
  NormSpec norm;
  Activation activation = Activation::silu;
  bool gated_mlp = true;
  /// x += attention(norm(x)) + mlp(norm(x)) instead of one after the other.
  bool parallel_block = false;
  bool query_key_norm = false;
  QueryKeyGain query_key_gain = QueryKeyGain::shared;
  bool attention_gate = false;  ///< see LinearRole::attention_gate
  bool qkv_bias = false;
  bool output_bias = false;
  bool mlp_bias = false;
  bool tie_word_embeddings = false;
  double attention_scale = 1.0;
  double attention_softcap = 0;  ///< 0: none
  double logit_softcap = 0;
  double logit_scale = 1.0;
  double embedding_scale = 1.0;
  double residual_scale = 1.0;  ///< of what a block adds to the residual stream
  bool alibi = false;
  std::optional<LearnedPositions> positions;
  /// Distinct rotations; empty for a family without.
  std::vector<RopeSpec> ropes;
  RopePairs rope_pairs = RopePairs::halves;
  /// Per layer: its rotation among `ropes`, -1 for none.
  std::vector<int> rope_of_layer;
  /// Per layer: how many positions a token sees, 0 for all.
  std::vector<int64_t> window;
  std::optional<LatentAttention> latent;
  std::optional<LinearAttention> linear_attention;
  std::optional<MoeSpec> moe;
  std::optional<int32_t> bos_token;
  std::vector<int32_t> eos_tokens;
  /// Of a model of more than text, whose modules may be called otherwise than the tensors.
  bool text_part = false;
  /// Ways in which some files begin the names; the first that leads to an embedding counts.
  std::vector<NamePrefix> other_prefixes;
  /// Tensor names; "{}" stands for the layer, a second "{}" for the expert.
  std::string embedding_name;
  std::string embedding_norm_name;  ///< without suffix; empty where the family has none
  std::string final_norm_name;      ///< without suffix; empty where norms have no weights
  std::string head_name;            ///< of the linear, without suffix
  std::array<std::string, kLinearRoles> linear_names;
  std::array<std::string, kNormRoles> norm_names;  ///< without suffix; empty where the family has none
  LinearStorage storage = LinearStorage::matrix;
  LinearStorage expert_storage = LinearStorage::matrix;
  /// Of expert_gate, expert_up and expert_down in a checkpoint that stacks the experts; quantized ones are
  /// always written one by one.
  std::array<std::string, 3> stored_expert_names;
  /// A fused matrix keeps the heads together: each kv head's queries, its key, its value, or each head's
  /// query and gate.
  bool fused_by_head = false;

  bool has_experts(int64_t layer) const { return moe && moe->layers[static_cast<size_t>(layer)]; }
  /// Whether the layer has linear attention in place of attention.
  bool has_state(int64_t layer) const {
    return linear_attention && linear_attention->layers[static_cast<size_t>(layer)];
  }
  /// The linears of layer `layer`, in order of the forward pass.
  std::vector<LinearSlot> linears(int64_t layer) const;
  /// Pattern under which the checkpoint has it: that of the stack for stacked experts.
  const std::string& stored_name(LinearRole role) const;
  /// The module's own name, also of a stacked expert.
  std::string linear_name(int64_t layer, const LinearId& id) const;
  /// "model.layers.3.input_layernorm"; empty when the layer has no such norm.
  std::string norm_name(int64_t layer, NormRole role) const;
  /// Shape of the norm's weight; empty when the family has no such norm.
  std::vector<int64_t> norm_shape(NormRole role) const;
  /// Tensor with the router's correction; empty where there is none.
  std::string correction_name(int64_t layer) const;
  std::vector<int64_t> correction_shape() const;
  /// Empty where the layer has no linear attention.
  std::string state_tensor_name(int64_t layer, StateTensor tensor) const;
  std::vector<int64_t> state_tensor_shape(StateTensor tensor) const;
  /// Changes every name that begins so.
  void change_prefix(const NamePrefix& prefix);
  /// Features of the cached keys and values of a token.
  int64_t key_features() const { return kv_heads * head_dim; }
  int64_t value_features() const { return kv_heads * value_dim; }
};

/// Reads config.json through the family table. Errors: unsupported for an unknown architecture (the known
/// ones listed) or a feature that the forward pass lacks, bad_format with path and value for everything else.
DecoderSpec make_decoder_spec(const JsonView& config);

/// "eos_token_id" and its like: one id or a list of them. Negative ids, which some files write for "none",
/// are left out.
std::vector<int32_t> read_token_ids(const std::optional<JsonView>& value);

/// The architectures of the table of which there are checkpoints.
std::vector<std::string> known_architectures();

}  // namespace salient
