#pragma once

#include <span>
#include <vector>

#include "awq/mapping.h"
#include "salient/recipe.h"

namespace salient {

/// Finds what `mappings` name in every decoder layer, [layers]. A mapping never reaches across layers, and
/// applies to the layers that have both its smooth layer and balance layers. Where its smooth layer pattern
/// matches several modules of a layer, as up_proj of every expert, each is paired with the balance layers
/// beside it. Errors: invalid_argument for a pattern that matches no module, for balance layers that could
/// belong to two smooth layers, for a smooth layer whose output does not go into linears alone, for a
/// balance layer that does not read it, and for a reader of it that is no balance layer: the layer named
/// that would compute something else.
std::vector<std::vector<ResolvedMapping>> resolve_mappings(const DecoderSpec& spec,
                                                           std::span<const AwqMapping> mappings);

}  // namespace salient
