#include "backend/cuda/code_sweeps.cuh"
#include "backend/cuda/column_rounding.cuh"
#include "backend/cuda/elementwise.cuh"
#include "backend/cuda/factor.cuh"
#include "backend/cuda/halves.cuh"
#include "backend/cuda/kv_rows.cuh"
#include "backend/cuda/largest.cuh"
#include "backend/cuda/linear.cuh"
#include "backend/cuda/norms.cuh"
#include "backend/cuda/products.cuh"
#include "backend/cuda/rounding_errors.cuh"
#include "backend/cuda/row_attention.cuh"
#include "backend/cuda/rows.cuh"
#include "backend/cuda/simulator.h"
#include "backend/cuda/split_attention.cuh"
#include "backend/cuda/tile_attention.cuh"

namespace salient::test {

using namespace cuda;

std::span<const SimulatedKernel> simulated_kernels() {
  static const SimulatedKernel kernels[] = {
      SALIENT_CODE_SWEEP_KERNELS(SALIENT_SIMULATED)           //
      SALIENT_COLUMN_ROUNDING_KERNELS(SALIENT_SIMULATED)      //
      SALIENT_ELEMENTWISE_KERNELS(SALIENT_SIMULATED)          //
      SALIENT_FACTOR_KERNELS(SALIENT_SIMULATED)               //
      SALIENT_HALVES_KERNELS(SALIENT_SIMULATED)               //
      SALIENT_KV_ROWS_KERNELS(SALIENT_SIMULATED)              //
      SALIENT_LARGEST_KERNELS(SALIENT_SIMULATED)              //
      SALIENT_LINEAR_BF16_KERNELS(SALIENT_SIMULATED)          //
      SALIENT_LINEAR_F16_KERNELS(SALIENT_SIMULATED)           //
      SALIENT_NORM_KERNELS(SALIENT_SIMULATED)                 //
      SALIENT_PRODUCT_KERNELS(SALIENT_SIMULATED)              //
      SALIENT_ROUNDING_ERROR_KERNELS(SALIENT_SIMULATED)       //
      SALIENT_ROW_ATTENTION_BF16_KERNELS(SALIENT_SIMULATED)   //
      SALIENT_ROW_ATTENTION_KERNELS(SALIENT_SIMULATED)        //
      SALIENT_ROW_KERNELS(SALIENT_SIMULATED)                  //
      SALIENT_SPLIT_ATTENTION_KERNELS(SALIENT_SIMULATED)      //
      SALIENT_TILE_ATTENTION_BF16_KERNELS(SALIENT_SIMULATED)  //
      SALIENT_TILE_ATTENTION_KERNELS(SALIENT_SIMULATED)       //
  };
  return kernels;
}

}  // namespace salient::test
