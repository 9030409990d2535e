#include "backend/cuda/kv_rows.cuh"

namespace salient::cuda {
SALIENT_KV_ROWS_KERNELS(SALIENT_GLOBAL)
}  // namespace salient::cuda
