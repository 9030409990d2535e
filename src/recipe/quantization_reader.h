#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "salient/recipe.h"

namespace salient {

/// Keys of QuantizationModifier, which the older form of AWQModifier has too.
std::span<const std::string_view> quantization_keys();

/// The quantization keys of `modifier`; nothing when it has none of those that say how to quantize. Errors:
/// invalid_argument or unsupported with path and value for what contradicts itself, is unknown or cannot be
/// run.
std::optional<QuantizationModifier> read_quantization(const JsonView& modifier);

/// compressed-tensors' QuantizationArgs.
QuantizationArgs read_quantization_args(const JsonView& view);

}  // namespace salient
