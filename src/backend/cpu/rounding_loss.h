#pragma once

#include "backend/cpu/product.h"

namespace salient {

/// See Backend. Each thread makes the errors of a few rows and multiplies them while they are in its cache.
void rounding_loss(const CpuContext& context, const RoundingLossProblem& problem, std::span<double> result);
void rounding_loss_by_group(const CpuContext& context, const RoundingLossProblem& problem,
                            std::span<double> result);

}  // namespace salient
