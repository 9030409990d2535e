#pragma once

#include "backend/cpu/product.h"

namespace salient {

/// See Backend::factorize; `matrix` is [k, k].
bool factorize(const CpuContext& context, int64_t k, float* matrix);

/// See Backend::solve; `matrix` is [k, k], `values` [rows, k].
bool solve(const CpuContext& context, int64_t k, float* matrix, int64_t rows, float* values);

}  // namespace salient
