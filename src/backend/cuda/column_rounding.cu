#include "backend/cuda/column_rounding.cuh"

namespace salient::cuda {
SALIENT_COLUMN_ROUNDING_KERNELS(SALIENT_GLOBAL)
}  // namespace salient::cuda
