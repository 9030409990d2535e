#pragma once

#include <cstdint>
#include <span>

#include "quant/quantized_weight.h"

namespace salient {

/// Scale and zero of one group.
struct GroupGrid {
  float scale = 0;
  int zero = 0;
};

/// The grid for weights in [minimum, maximum]; 0 is forced into the range. Asymmetric: scale = (max - min) /
/// max_code, zero = round(-min / scale). Symmetric: scale = 2 max|w| / max_code with zero 2^(bits-1)
/// (compressed-tensors' definition). The scale is rounded to `scale_dtype` first and the zero follows from
/// the rounded scale, because that is what a reader will multiply by. A group of zeros gets scale 1. f16
/// scales that would under- or overflow are clamped into the normal range.
GroupGrid make_group_grid(const QuantizationScheme& scheme, DType scale_dtype, float minimum, float maximum);

/// The scale nearest to `scale` that may be stored as `dtype`: see make_group_grid.
float storable_scale(const QuantizationScheme& scheme, DType scale_dtype, double scale);

/// What scales are clamped to before they are rounded to their type; `steps` is the largest code.
struct ScaleRange {
  float smallest;
  float largest;
};
ScaleRange scale_range(DType dtype, int steps);

/// round(value / scale) + zero, clamped to [0, max_code]; ties to even.
int quantize_value(const QuantizationScheme& scheme, const GroupGrid& grid, float value);

/// Rounds `weight` f32 [out, in] to nearest. `clip` (f32 [out, groups], or undefined) bounds |w| per group
/// before the grid is made; kWholeMatrix takes none. Runs in parallel over rows; the same bytes for any
/// thread count. Errors: invalid_argument for a non-finite weight (row and column named).
QuantizedWeight quantize_to_nearest(const Tensor& weight, const Tensor& clip,
                                    const QuantizationScheme& scheme, DType scale_dtype);

/// How weights are rounded: the scheme and the type in which its scales are stored.
struct RoundingRule {
  QuantizationScheme scheme;
  DType scale_dtype = DType::bf16;
  /// The grid of every group, for kWholeMatrix: rows cannot tell it on their own. See rule_for_matrix.
  std::optional<GroupGrid> grid{};
};

/// The rule for the rows of `weight` f32 [out, in] with its columns multiplied by `column_scales` ([in], or
/// empty): for kWholeMatrix with the grid that follows from the extremes of that product, for every other
/// scheme `rule` as it is. Runs in parallel; the same for any thread count.
RoundingRule rule_for_matrix(const RoundingRule& rule, const Tensor& weight,
                             std::span<const float> column_scales = {});

/// What `quantize_to_nearest` and then `dequantize_row` give, bit for bit, without the detour over packed
/// codes. row, out: [in]; `clip` [groups] as above, or empty. row and out may be the same memory. For
/// kWholeMatrix the rule must hold the grid.
void fake_quantize_row(const RoundingRule& rule, std::span<const float> row, std::span<const float> clip,
                       std::span<float> out);

}  // namespace salient
