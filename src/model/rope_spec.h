#pragma once

#include "model/decoder_spec.h"

namespace salient {

/// What is known before the rotation is read.
struct RopeContext {
  int64_t head_dim;  ///< of the rotated part of a head
  int64_t max_position_embeddings;
  double default_theta = 10000;
  double default_local_theta = 10000;  ///< of sliding_attention
  double default_partial_factor = 1;
  /// "full_attention" or "sliding_attention" for families that rotate them differently: the former is what
  /// rope_scaling and rope_theta speak of, the latter has `rope_local_base_freq` and no scaling.
  std::string_view layer_type = {};
  bool multimodal = false;     ///< "mrope" is the ordinary rotation of text (Qwen2.5-VL)
  bool longrope_only = false;  ///< older names of a kind mean longrope (Phi-3)
};

/// Reads `rope_parameters` (transformers 5), or `rope_scaling` and `rope_theta` (transformers 4), from
/// config.json. Errors: unsupported for an unknown kind, bad_format.
RopeSpec read_rope_spec(const JsonView& config, const RopeContext& context);

}  // namespace salient
