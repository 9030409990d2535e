#pragma once

#include <array>
#include <string>
#include <vector>

#include "model/decoder_spec.h"
#include "salient/oneshot.h"

namespace salient {

/// A recipe applied to a model: what happens to each linear.
struct ResolvedRecipe {
  QuantizationScheme scheme;
  std::vector<PerLinear<QuantizationScheme>> schemes;  ///< [layers], of the linears that become integers
  std::vector<DenseModule> dense;                      ///< linears that stay dense
  int64_t quantized_linears = 0;                       ///< modules; a fused one counts once
};

/// Errors: invalid_argument or unsupported for a scheme that cannot be written, an ignore entry that matches
/// no module, a group size that does not divide the columns of a linear (all such linears and the sizes that
/// would fit are named), a linear that the output format cannot hold, a grid of fewer than two points.
ResolvedRecipe resolve_recipe(const Recipe& recipe, Format format, const DecoderSpec& spec);

/// The recipe in llm-compressor's YAML spelling, with what Salient adds in comments.
/// `calibration_tokens` are those that were used: a short text gives fewer than were asked for.
/// `head`, which always stays dense here, is named even where the user did not.
std::string recipe_to_yaml(const OneshotOptions& options, const QuantizationScheme& scheme,
                           int64_t calibration_tokens, const std::string& head);

}  // namespace salient
