#include "backend/cuda/rounding_errors.cuh"

namespace salient::cuda {
SALIENT_ROUNDING_ERROR_KERNELS(SALIENT_GLOBAL)
}  // namespace salient::cuda
