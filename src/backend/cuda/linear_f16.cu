#include "backend/cuda/linear.cuh"

namespace salient::cuda {
SALIENT_LINEAR_F16_KERNELS(SALIENT_GLOBAL)
}  // namespace salient::cuda
