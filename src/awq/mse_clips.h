#pragma once

#include "quant/group_quantize.h"
#include "salient/recipe.h"

namespace salient {

/// For each output row and group the largest |w| that its grid covers, f32 [out, groups]: of max|w| (1 - i /
/// grid), i = 0, 1, ... below maxshrink * grid, the one with the least sum of |Q(w) - w|^norm; `patience`
/// candidates in a row that are no better end the search. Looks at the weights alone, in the manner of
/// llm-compressor's observer memoryless_mse, which differs in detail: it shrinks both ends of an asymmetric
/// range, leaves the weights beyond it to the rounding instead of clamping them first, and counts its
/// patience for the tensor as a whole.
Tensor search_mse_clips(const RoundingRule& rule, const Tensor& weight, const ObserverSettings& settings);

}  // namespace salient
