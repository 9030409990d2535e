#pragma once

#include "quant/group_quantize.h"
#include "salient/recipe.h"

namespace salient {

/// For each output row and group the largest |w| that its grid covers, f32 [out, groups]: max|w| (1 - i /
/// grid), i = 0, 1,
/// ... below maxshrink * grid, with the least sum of |Q(w) - w|^norm; `patience` candidates in a row that are
/// no better end the search (llm-compressor's observer memoryless_mse; of an asymmetric range it shrinks both
/// ends, this only what sticks out farther). Looks at the weights alone.
Tensor search_mse_clips(const RoundingRule& rule, const Tensor& weight, const ObserverSettings& settings);

}  // namespace salient
