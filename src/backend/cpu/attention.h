#pragma once

#include "backend/backend.h"
#include "backend/cpu/product.h"

namespace salient {

/// Backend::attention on checked shapes.
void attend(const CpuContext& context, const AttentionProblem& problem);

}  // namespace salient
