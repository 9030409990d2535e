#include "backend/cuda/elementwise.cuh"
#include "backend/cuda/halves.cuh"
#include "backend/cuda/kv_rows.cuh"
#include "backend/cuda/largest.cuh"
#include "backend/cuda/norms.cuh"
#include "backend/cuda/product.cuh"
#include "backend/cuda/rows.cuh"
#include "backend/cuda/simulator.h"
#include "backend/cuda/split_attention.cuh"
#include "backend/cuda/tile_attention.cuh"

namespace salient::test {

using namespace cuda;

std::span<const SimulatedKernel> simulated_kernels() {
  static const SimulatedKernel kernels[] = {
      SALIENT_ELEMENTWISE_KERNELS(SALIENT_SIMULATED)      //
      SALIENT_HALVES_KERNELS(SALIENT_SIMULATED)           //
      SALIENT_KV_ROWS_KERNELS(SALIENT_SIMULATED)          //
      SALIENT_LARGEST_KERNELS(SALIENT_SIMULATED)          //
      SALIENT_NORM_KERNELS(SALIENT_SIMULATED)             //
      SALIENT_PRODUCT_BF16_KERNELS(SALIENT_SIMULATED)     //
      SALIENT_PRODUCT_F16_KERNELS(SALIENT_SIMULATED)      //
      SALIENT_ROW_KERNELS(SALIENT_SIMULATED)              //
      SALIENT_SPLIT_ATTENTION_KERNELS(SALIENT_SIMULATED)  //
      SALIENT_TILE_ATTENTION_KERNELS(SALIENT_SIMULATED)   //
  };
  return kernels;
}

}  // namespace salient::test
