#include "backend/cuda/rows.cuh"

namespace salient::cuda {
SALIENT_ROW_KERNELS(SALIENT_GLOBAL)
}  // namespace salient::cuda
