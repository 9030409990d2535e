#pragma once

#include "salient/recipe.h"
#include "salient/scheme.h"

namespace salient {

/// The scheme that arguments stand for. Errors: invalid_argument for what contradicts itself (a group size
/// beside the strategy channel), unsupported, by name, for what Salient cannot store or run yet.
QuantizationScheme scheme_of(const QuantizationArgs& args);

/// The arguments that say the same.
QuantizationArgs args_of(const QuantizationScheme& scheme);

/// Whether AWQ's clip search finds the ranges of any group: of those whose arguments name no observer.
bool has_clip_search(const QuantizationModifier& modifier);

/// The groups of a modifier; a preset is one group of its own. Errors: invalid_argument for a preset or
/// group_size beside config_groups, two groups with one name or target, groups without target, or observer
/// settings outside their range.
std::vector<ConfigGroup> config_groups_of(const QuantizationModifier& modifier);

}  // namespace salient
