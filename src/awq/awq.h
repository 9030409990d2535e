#pragma once

#include "awq/layer_job.h"
#include "calibrate/layer_stream.h"
#include "model/weights.h"

namespace salient {

/// So many tokens of one sequence show whether smoothing has left the function of a layer as it was.
inline constexpr int64_t kProbeTokens = 128;

struct QuantizedLayer {
  LayerWeights weights;  ///< as they are to be written
  LayerReport report;
};

/// Rounds to nearest, without data.
QuantizedLayer round_layer(const LayerJob& job, const LayerWeights& original);

/// Rounds a linear to nearest, a block of rows at a time, so that a head of a hundred thousand rows is never
/// there as f32. Errors: unsupported for kWholeMatrix, whose grid depends on all rows.
QuantizedWeight round_by_rows(const Tensor& dense, const LinearRounding& rounding, DType scale_dtype,
                              const CancellationFlag* cancelled);

/// AWQ: statistics of the layer's inputs from `stream`, which is moved behind the layer; scale search and
/// smoothing per mapping; check that the layer still computes the same (internal error above 1e-3); clip
/// search; rounding, or with OneshotResult::scaled none.
QuantizedLayer quantize_layer(const LayerJob& job, const AwqModifier& settings, const LayerWeights& original,
                              LayerStream& stream);

/// Moves `stream` behind a layer that was finished before, as quantize_layer did then.
void pass_layer(const LayerJob& job, const LayerWeights& original, const LayerWeights& finished,
                LayerStream& stream);

/// Relative change of a layer's function: |changed - reference| / |reference - input| (Euclidean norms over
/// all entries), the denominator being what the layer adds to the residual stream.
double equivalence_error(const Tensor& input, const Tensor& reference, const Tensor& changed);

}  // namespace salient
