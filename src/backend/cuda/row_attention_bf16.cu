#include "backend/cuda/row_attention.cuh"

namespace salient::cuda {
SALIENT_ROW_ATTENTION_BF16_KERNELS(SALIENT_GLOBAL)
}  // namespace salient::cuda
