#include "backend/cuda/factor.cuh"

namespace salient::cuda {
SALIENT_FACTOR_KERNELS(SALIENT_GLOBAL)
}  // namespace salient::cuda
