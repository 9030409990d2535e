#include "backend/cuda/products.cuh"

namespace salient::cuda {
SALIENT_PRODUCT_KERNELS(SALIENT_GLOBAL)
}  // namespace salient::cuda
