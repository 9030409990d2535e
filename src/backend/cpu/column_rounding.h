#pragma once

#include "backend/cpu/product.h"

namespace salient {

/// See Backend::round_compensated. Each thread takes a few rows from the first column to the last.
void round_compensated(const CpuContext& context, const CompensationProblem& problem,
                       QuantizedWeight& result);

}  // namespace salient
