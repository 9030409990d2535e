#pragma once

#include "backend/cpu/product.h"

namespace salient {

/// See Backend::sweep_codes. Each thread takes a few rows through all sweeps.
void sweep_codes(const CpuContext& context, const CodeSweepProblem& problem, QuantizedWeight& result);

}  // namespace salient
