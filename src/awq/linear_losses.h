#pragma once

#include <span>

#include "awq/compensated_rounding.h"
#include "calibrate/activation_statistics.h"
#include "salient/oneshot.h"

namespace salient {

/// One linear behind its rounding.
struct LinearLossProblem {
  Backend& backend;
  MatmulPrecision precision;
  const RoundingRule& rule;
  const Tensor& original;                  ///< as it is stored, [out, in]
  const ActivationStatistics& statistics;  ///< of what the original reads, for its channels
  const Tensor& weight;                    ///< f32 [out, in], scaled
  std::span<const float> row_scales;       ///< what its outputs have been divided by, [out] or empty
  std::span<const float> column_scales;    ///< what its columns have been multiplied by, [in] or empty
  const RoundingInput& input;              ///< of the scaled weight
  const Tensor& clip;                      ///< f32 [out, groups] or undefined
  const QuantizedWeight& rounded;
};

/// Everything of the report but the name. Losses are in units of the original's outputs; of linears with 512
/// rows or more every so many-th row counts, at least 256 of them.
LinearReport measure_losses(const LinearLossProblem& problem);

}  // namespace salient
