#pragma once

#include "backend/backend.h"
#include "base/cancellation.h"
#include "calibrate/gram_matrix.h"
#include "quant/group_quantize.h"

namespace salient {

struct ClipSearchProblem {
  Backend& backend;
  RoundingRule rounding;
  const Tensor& weight;    ///< f32 [out, in], already smoothed
  const GramMatrix& gram;  ///< x^T x of the smoothed input
  int64_t tokens;
  const CancellationFlag* cancelled = nullptr;
};

struct ClipSearchResult {
  Tensor clip;  ///< f32 [out, groups]: the largest |w| that each group's grid covers
  double loss_before = 0;
  double loss_after = 0;
};

/// For each output row and group the best of ten largest weights max|w| (1 - i/20), i = 0..9: the one whose
/// rounding error D has the least D G D^T, G being the diagonal block of the Gram matrix of that group
/// (AutoAWQ's clipping search with its subsampled tokens replaced by all of them). Not for kWholeMatrix,
/// whose grid is no matter of a row.
ClipSearchResult search_clips(const ClipSearchProblem& problem);

/// Candidates whose bounds and losses, of so many groups each, are in memory at a time.
int64_t clips_at_once(int64_t groups);

}  // namespace salient
