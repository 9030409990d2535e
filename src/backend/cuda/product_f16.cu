#include "backend/cuda/product.cuh"

namespace salient::cuda {
SALIENT_PRODUCT_F16_KERNELS(SALIENT_GLOBAL)
}  // namespace salient::cuda
