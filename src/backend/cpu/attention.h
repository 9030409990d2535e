#pragma once

#include "backend/backend.h"
#include "backend/cpu/product.h"

namespace salient {

/// Backend::attention on checked shapes; `precision` of its products where they have many rows. What a query
/// gets depends on the queries of the same page of positions alone, so that a prompt may be cut between
/// pages.
void attend(const CpuContext& context, const AttentionProblem& problem, MatmulPrecision precision);

}  // namespace salient
