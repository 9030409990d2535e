#pragma once

#include "backend/cpu/product.h"

namespace salient {

/// See Backend::factorize; `matrix` is [k, k].
bool factorize(const CpuContext& context, int64_t k, float* matrix);

void feed_back(const CpuContext& context, const FeedBackProblem& problem);

}  // namespace salient
