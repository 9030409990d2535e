#pragma once

#include <span>
#include <vector>

#include "awq/bit_allocation.h"
#include "awq/layer_job.h"
#include "calibrate/layer_stream.h"

namespace salient {

/// An error for each number of bits from kLeastBits on.
using WidthErrors = std::array<double, kBitWidths>;

/// Of every set of linears of a layer, what rounding it to nearest with each number of bits does to the
/// stream behind the layer: |h' - h|^2 / |h|^2, the mean over the tokens of a sequence. With kReferenceBits
/// that is run; from there the others follow by the linears' own errors on all calibration tokens, tr(D G
/// D^T) / tr(W G W^T). Behind a smoothed norm or linear D = Q(W s) / s - W, s being 1 or the root of mean|x|,
/// whichever is better: a stand-in for the scales that the search will find. 0 where rounding changes
/// nothing.
///
/// `sets`: of linears in job.linears. `stream` is moved behind the layer as it is. Errors: cancelled;
/// invalid_argument for weights or inputs that are not finite (linear named).
std::vector<WidthErrors> measure_widths(const LayerJob& job, const LayerWeights& original,
                                        std::span<const std::vector<LinearId>> sets, LayerStream& stream);

inline constexpr int kReferenceBits = 4;

}  // namespace salient
