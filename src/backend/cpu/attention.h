#pragma once

#include "backend/backend.h"
#include "backend/cpu/product.h"

namespace salient {

/// Backend::attention on checked shapes; `precision` of its products where they have many rows.
void attend(const CpuContext& context, const AttentionProblem& problem, MatmulPrecision precision);

}  // namespace salient
