#pragma once

#include <string>
#include <variant>
#include <vector>

#include "model/decoder_spec.h"

namespace salient {

/// One smoothing of a decoder layer: the output of `smooth` is divided by a scale per channel, the input
/// columns of every linear in `balance` are multiplied by it. Exact because nothing but a product per channel
/// lies between them.
struct ResolvedMapping {
  std::variant<NormRole, LinearRole> smooth;
  std::vector<LinearRole> balance;

  /// "input_layernorm -> q_proj, k_proj, v_proj"
  std::string describe(const DecoderSpec& spec) const;
};

/// The mappings that the data flow of a layer allows: attention norm -> q, k, v; v -> o (with grouped-query
/// attention the query heads of one kv head share the scale); mlp norm -> gate, up; up -> down.
std::vector<ResolvedMapping> default_mappings(const DecoderSpec& spec);

/// Linears whose inputs are the same tensor report it once: this is the one that stands for them.
LinearRole input_representative(LinearRole role);

/// Index of the smooth layer's output channel that feeds input column `column` of the balance layers. The
/// identity but for v -> o under grouped-query attention, where the columns of all query heads of a kv head
/// lead to that head's channels.
int64_t smooth_channel(const DecoderSpec& spec, const ResolvedMapping& mapping, int64_t column);
/// Output channels of the smooth layer.
int64_t smooth_channel_count(const DecoderSpec& spec, const ResolvedMapping& mapping);

}  // namespace salient
