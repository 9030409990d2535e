#pragma once

#include "model/decoder_spec.h"

namespace salient {

/// Reads `rope_parameters` (transformers 5), or `rope_scaling` and `rope_theta` (transformers 4), from
/// config.json. `head_dim` and `max_position_embeddings` are resolved already. Errors: unsupported for an
/// unknown kind, bad_format.
RopeSpec read_rope_spec(const JsonView& config, int64_t head_dim, int64_t max_position_embeddings);

}  // namespace salient
