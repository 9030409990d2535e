#include "backend/cuda/product.cuh"

namespace salient::cuda {
SALIENT_PRODUCT_BF16_KERNELS(SALIENT_GLOBAL)
}  // namespace salient::cuda
