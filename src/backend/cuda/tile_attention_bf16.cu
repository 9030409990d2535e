#include "backend/cuda/tile_attention.cuh"

namespace salient::cuda {
SALIENT_TILE_ATTENTION_BF16_KERNELS(SALIENT_GLOBAL)
}  // namespace salient::cuda
