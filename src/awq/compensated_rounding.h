#pragma once

#include <span>
#include <vector>

#include "backend/backend.h"
#include "base/cancellation.h"
#include "calibrate/gram_matrix.h"
#include "quant/group_quantize.h"
#include "salient/recipe.h"

namespace salient {

/// What the inputs of linears that read one tensor x say about their rounding.
struct RoundingInput {
  GramMatrix gram;  ///< x^T x
  int64_t tokens;   ///< that it sums over
};

/// The Gram matrix, which is whole, shrunk towards its diagonal, by more the fewer tokens it has seen for its
/// size, `times` as much as usual, with rows and columns in `order` (empty: as they are); a new tensor.
Tensor shrunk_gram(const RoundingInput& input, double times, std::span<const int64_t> order = {});

/// How the errors of the columns of a block of the Gram matrix reach those rounded after them.
struct FeedbackBlock {
  ColumnRange columns;
  std::vector<int64_t> order;  ///< of the columns, counted from the first of the block
  /// U of H = U D U^T, H the shrunk Gram matrix with its columns in that order, f32 [in, in]; undefined when
  /// nothing makes H positive definite in f32.
  Tensor upper;
};
using FeedbackFactor = std::vector<FeedbackBlock>;

FeedbackFactor make_feedback_factor(Backend& backend, const RoundingInput& input, ActivationOrder order,
                                    const CancellationFlag* cancelled);

struct CompensatedRoundingProblem {
  Backend& backend;
  RoundingRule rounding;
  const Tensor& weight;  ///< f32 [out, in]
  const Tensor& clip;    ///< f32 [out, groups], see ClipSearchResult, or undefined
  const FeedbackFactor& factor;
  const CancellationFlag* cancelled = nullptr;
};

/// Rounds column after column, each to the nearest code of what makes up for the errors of the columns before
/// it: with H = U D U^T the target of column k is w_k + sum over i < k of (w_i - q_i) U[i, k] (Chee et al.
/// 2023, QuIP, section 3, which shows it to be GPTQ of Frantar et al. 2022). Scales and zeros are those of
/// rounding to nearest, whatever the order of the columns; without a factor that rounding stays as it is. Of
/// a Gram matrix in blocks each is rounded on its own.
QuantizedWeight round_compensated(const CompensatedRoundingProblem& problem);

struct ImprovementProblem {
  Backend& backend;
  const Tensor& weight;  ///< f32 [out, in]
  const RoundingInput& input;
  int64_t sweeps;
  const CancellationFlag* cancelled = nullptr;
};

/// Lowers what rounding left of the error of the output by sweeps of coordinate descent over scales and
/// codes, see Backend::sweep_codes, for the shrunk Gram matrix; of one in blocks each on its own.
void improve_rounding(const ImprovementProblem& problem, QuantizedWeight& rounded);

}  // namespace salient
