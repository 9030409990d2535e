#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "model/decoder_spec.h"

namespace salient {

/// Whether a group of linears has biases.
enum class BiasRule {
  never,
  always,
  attention_bias,  ///< as config.json's key says, default no
  mlp_bias,        ///< as config.json's key says, default no
};

/// Which layers see a sliding window only.
enum class WindowRule {
  never,
  every_layer,     ///< `sliding_window` applies to all layers
  by_layer_types,  ///< `layer_types`, else the layers from `max_window_layers` on; only with
                   ///< `use_sliding_window`
};

/// Where a family keeps its tensors; "{}" stands for the layer.
struct TensorNames {
  std::string_view embedding;
  std::string_view final_norm;
  std::string_view head;
  std::array<std::string_view, kLinearRoles> linears;
  std::array<std::string_view, kNormRoles> norms;
};

/// One row of the table of families: everything that tells them apart. Defaults are those of transformers'
/// config classes, which stand for keys that a config.json leaves out.
struct Family {
  std::string_view architecture;
  std::string_view model_type;
  const TensorNames& names;
  bool query_key_norm = false;
  BiasRule qkv_bias = BiasRule::never;
  BiasRule output_bias = BiasRule::never;
  BiasRule mlp_bias = BiasRule::never;
  WindowRule window = WindowRule::never;
  /// 0: hidden_size / num_attention_heads.
  int64_t default_head_dim = 0;
  int64_t default_max_position_embeddings = 2048;
  /// 0: as many as query heads. A null in config.json means that for every family.
  int64_t default_kv_heads = 0;
};

std::span<const Family> families();

}  // namespace salient
