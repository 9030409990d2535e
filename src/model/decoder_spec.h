#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "tensor/activation.h"
#include "tensor/dtype.h"

namespace salient {

/// The linears of a decoder layer by what they do. Order is the order of the forward pass.
enum class LinearRole { q, k, v, o, gate, up, down };
inline constexpr size_t kLinearRoles = 7;
std::string_view to_string(LinearRole role);

/// The norms of a decoder layer.
enum class NormRole { attention, mlp, query, key };
inline constexpr size_t kNormRoles = 4;

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

/// One linear of a layer as the checkpoint must hold it.
struct LinearSlot {
  LinearRole role;
  std::string name;  ///< "model.layers.0.self_attn.q_proj"
  int64_t out_features;
  int64_t in_features;
  bool bias;
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
  int64_t vocab_size = 0;
  int64_t max_position_embeddings = 0;
  double norm_epsilon = 1e-6;
  Activation activation = Activation::silu;
  RopeSpec rope;
  bool query_key_norm = false;
  bool qkv_bias = false;
  bool output_bias = false;
  bool mlp_bias = false;
  bool tie_word_embeddings = false;
  /// Per layer: how many positions a token sees, 0 for all.
  std::vector<int64_t> window;
  std::optional<int32_t> bos_token;
  std::vector<int32_t> eos_tokens;
  /// Tensor names; "{}" stands for the layer.
  std::string embedding_name;
  std::string final_norm_name;
  std::string head_name;  ///< of the linear, without ".weight"
  std::array<std::string, kLinearRoles> linear_names;
  std::array<std::string, kNormRoles> norm_names;  ///< empty where the family has none

  /// The linears of layer `layer`, in order of LinearRole.
  std::vector<LinearSlot> linears(int64_t layer) const;
  /// "model.layers.3.input_layernorm.weight"; empty when the family has no such norm.
  std::string norm_name(int64_t layer, NormRole role) const;
};

/// Reads config.json through the family table. Errors: unsupported for an unknown architecture (the known
/// ones listed) or a feature that the forward pass lacks, bad_format with path and value for everything else.
DecoderSpec make_decoder_spec(const JsonView& config);

/// "eos_token_id" and its like: one id or a list of them. Negative ids, which some files write for "none",
/// are left out.
std::vector<int32_t> read_token_ids(const std::optional<JsonView>& value);

/// The architectures of the table.
std::vector<std::string> known_architectures();

}  // namespace salient
