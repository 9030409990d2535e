#pragma once

#include "backend/backend.h"
#include "base/cancellation.h"
#include "quant/group_quantize.h"
#include "salient/recipe.h"

namespace salient {

struct CompensatedRoundingProblem {
  Backend& backend;
  RoundingRule rounding;
  const Tensor& weight;  ///< f32 [out, in]
  const Tensor& clip;    ///< f32 [out, groups], see ClipSearchResult, or undefined
  const Tensor& gram;    ///< x^T x of the linear's input, f32 [in, in]
  int64_t tokens;        ///< that the Gram matrix sums over
  ActivationOrder order = ActivationOrder::none;
  const CancellationFlag* cancelled = nullptr;
};

/// Rounds column after column, each to the nearest code of what makes up for the errors of the columns before
/// it: with H = U D U^T the target of column k is w_k + sum over i < k of (w_i - q_i) U[i, k] (Chee et al.
/// 2023, QuIP, section 3, which shows it to be GPTQ of Frantar et al. 2022). H is the Gram matrix shrunk
/// towards its diagonal, by more the fewer tokens it has seen for its size. Scales and zeros are those of
/// rounding to nearest, also where `order` takes the columns with the largest G[k, k] first; a Gram matrix
/// without any usable factor leaves that rounding as it is.
QuantizedWeight round_compensated(const CompensatedRoundingProblem& problem);

}  // namespace salient
