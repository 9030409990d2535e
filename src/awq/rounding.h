#pragma once

#include "quant/quantized_weight.h"

namespace salient {

/// How the weights of a search are rounded: what the final quantization will do with them.
struct RoundingRule {
  QuantizationScheme scheme;
  DType scale_dtype = DType::bf16;
};

/// dequantize(quantize(row)) without the detour over integers, bit for bit what `quantize_to_nearest` followed by
/// `dequantize` gives. row, out: [in]; `clip` bounds |w| per group [groups], or is empty. row and out may be the same.
void fake_quantize_row(const RoundingRule& rule, std::span<const float> row, std::span<const float> clip,
                       std::span<float> out);

}  // namespace salient
