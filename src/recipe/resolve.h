#pragma once

#include <optional>
#include <string>
#include <vector>

#include "awq/awq.h"
#include "model/decoder_spec.h"
#include "salient/oneshot.h"

namespace salient {

/// A recipe applied to a model: what happens to each linear.
struct ResolvedRecipe {
  std::vector<SchemeGroup> groups;                     ///< as they are written into the config
  std::vector<PerLinear<LinearRounding>> linears;      ///< [layers], those that become integers
  std::vector<std::vector<ResolvedMapping>> mappings;  ///< [layers]; empty without AWQ
  std::vector<std::vector<PlannedLinear>> planned;     ///< [layers], modules; a fused one stands once
  std::optional<LinearRounding> head;                  ///< where the output head becomes integers too
  std::optional<PlannedLinear> planned_head;
  std::vector<DenseModule> dense;  ///< linears that stay dense
  std::vector<std::string> warnings;
  int64_t quantized_linears = 0;  ///< modules
};

/// Uses of `options`: recipe, format, mapping_registry. `foreign`: linears of the checkpoint that are no part
/// of the decoder; they stay dense, and ignore may name them. Errors: invalid_argument or unsupported for
/// schemes that cannot be written, targets or ignore entries that match no module, groups without a linear,
/// an ignore list that leaves nothing, a group size that does not divide the columns of a linear (all such
/// linears and the sizes that would fit are named), several schemes in a format that has one, activation
/// order without compensated rounding, strategy tensor with duo_scaling, a grid of fewer than two points,
/// mappings that do not fit the model.
ResolvedRecipe resolve_recipe(const OneshotOptions& options, const DecoderSpec& spec,
                              std::span<const std::string> foreign = {});

/// Roles of linears that vLLM runs as one matrix, so that they need one scheme.
const std::vector<std::vector<LinearRole>>& fused_sets();

/// The mappings that the recipe names, or else the registry; null where they follow from the model.
const std::vector<AwqMapping>* named_mappings(const OneshotOptions& options, const std::string& architecture);

/// The recipe as it was applied, in llm-compressor's YAML spelling, and in a section of its own what that has
/// no word for: with the same data it gives the same weights. Of target_bits stand there the groups that were
/// chosen for it. `calibration_tokens` are those that were used:
/// a short text gives fewer than were asked for. The head, which always stays dense here, is named even where
/// the user did not.
std::string recipe_to_yaml(const OneshotOptions& options, const DecoderSpec& spec,
                           int64_t calibration_tokens);

}  // namespace salient
