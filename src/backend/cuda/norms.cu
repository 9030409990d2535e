#include "backend/cuda/norms.cuh"

namespace salient::cuda {
SALIENT_NORM_KERNELS(SALIENT_GLOBAL)
}  // namespace salient::cuda
