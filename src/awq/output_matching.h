#pragma once

#include "awq/compensated_rounding.h"
#include "calibrate/layer_stream.h"

namespace salient {

/// What a linear reads in the model as quantized so far, x, beside what it reads in the original one, y.
struct MatchedInput {
  RoundingInput input;  ///< of x
  Tensor lost;          ///< (y - x)^T x, f32 [in, in]
};

struct MatchingProblem {
  Backend& backend;
  MatmulPrecision precision;
  LayerStream& stream;  ///< with the original hidden states
  int64_t layer;
  const PreparedLayer& weights;  ///< as quantized so far
  const PreparedLayer& original;
  /// What multiplies the columns of the linear in `weights` and divides its input, [in]; empty for ones.
  std::span<const float> column_scales;
};

/// Runs all calibration tokens through both layers up to the linear `id`.
MatchedInput match_inputs(const MatchingProblem& problem, const LinearId& id);

/// P = (y - x)^T x H^-1, H the shrunk Gram matrix of x: of all weights V, V = W + W P comes closest to giving
/// from x what W [out, in] gives from y (Li et al. 2025, GPTAQ, eq. 8, with the ridge of shrunk_gram). f32
/// [in, in]; undefined when nothing makes H positive definite in f32. Uses `matched` up.
Tensor output_correction(Backend& backend, MatchedInput& matched);

/// W + W P; a new tensor.
Tensor correct_outputs(Backend& backend, const Tensor& weight, const Tensor& correction);

}  // namespace salient
