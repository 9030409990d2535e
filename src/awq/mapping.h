#pragma once

#include <span>
#include <string>
#include <variant>
#include <vector>

#include "model/decoder_spec.h"

namespace salient {

/// One smoothing of a decoder layer: the output of `smooth` is divided by a scale per channel, the input
/// columns of every linear in `balance` are multiplied by it. Exact because nothing but a product per channel
/// lies between them.
struct ResolvedMapping {
  std::variant<NormRole, LinearId> smooth;
  std::vector<LinearId> balance;

  /// "input_layernorm -> q_proj, k_proj, v_proj"; all experts are one entry, "experts.*.gate_proj".
  std::string describe(const DecoderSpec& spec) const;
  /// Names of the modules in full: "model.layers.3.input_layernorm".
  std::string smooth_name(const DecoderSpec& spec, int64_t layer) const;
  std::vector<std::string> balance_names(const DecoderSpec& spec, int64_t layer) const;
};

/// The mappings that the data flow of a layer allows: every norm that linears alone read, and all of them; v
/// -> o (with grouped-query attention the query heads of one kv head share the scale), but nothing of the
/// kind in linear attention, where a norm stands before the output; up -> down, of every expert, where
/// nothing but a product or a ReLU stands between.
std::vector<ResolvedMapping> default_mappings(const DecoderSpec& spec, int64_t layer);

/// Of the linears that read the same tensor, the one that stands for all of them, for every linear of the
/// layer. An expert's share of the tokens counts as all of them.
PerLinear<LinearId> input_representatives(const DecoderSpec& spec, int64_t layer);

/// Index of the smooth layer's output channel that feeds input column `column` of the balance layers. The
/// identity but for v -> o under grouped-query attention, where the columns of all query heads of a kv head
/// lead to that head's channels.
int64_t smooth_channel(const DecoderSpec& spec, const ResolvedMapping& mapping, int64_t column);
/// Output channels of the smooth layer; `columns` are the balance layers'.
int64_t smooth_channel_count(const DecoderSpec& spec, const ResolvedMapping& mapping, int64_t columns);

}  // namespace salient
