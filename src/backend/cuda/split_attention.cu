#include "backend/cuda/split_attention.cuh"

namespace salient::cuda {
SALIENT_SPLIT_ATTENTION_KERNELS(SALIENT_GLOBAL)
}  // namespace salient::cuda
