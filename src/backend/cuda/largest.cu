#include "backend/cuda/largest.cuh"

namespace salient::cuda {
SALIENT_LARGEST_KERNELS(SALIENT_GLOBAL)
}  // namespace salient::cuda
