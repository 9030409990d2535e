#include "backend/cuda/halves.cuh"

namespace salient::cuda {
SALIENT_HALVES_KERNELS(SALIENT_GLOBAL)
}  // namespace salient::cuda
