#include "backend/cuda/code_sweeps.cuh"

namespace salient::cuda {
SALIENT_CODE_SWEEP_KERNELS(SALIENT_GLOBAL)
}  // namespace salient::cuda
