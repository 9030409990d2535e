#include "backend/cuda/elementwise.cuh"

namespace salient::cuda {
SALIENT_ELEMENTWISE_KERNELS(SALIENT_GLOBAL)
}  // namespace salient::cuda
