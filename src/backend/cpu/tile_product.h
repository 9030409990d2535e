#pragma once

#include "backend/cpu/product.h"
#include "backend/cpu/tiles.h"

namespace salient {

// What product.h says of bf16, by tile kernels. Operands are packed in the scratch memory of the calling
// thread, by all threads, and the blocks of the result are then multiplied out of the second-level caches.

/// The whole weight as a right operand: packed_elements(outputs, depth) elements.
void pack_weight(const CpuContext& context, const WeightSource& weight, uint16_t* out);
void multiply_in_tiles(const CpuContext& context, const Product& product);
void accumulate_gram_in_tiles(const TileKernels& kernels, const GramProblem& problem);
void accumulate_product_in_tiles(const TileKernels& kernels, const CrossProblem& problem);

/// An operand in tiles.
struct PackedMatrix {
  const uint16_t* data;
  int64_t panel_stride;

  /// From panel row / 16 and tile depth / 32 on; both divide without rest.
  const uint16_t* at(int64_t row, int64_t depth) const {
    return data + row / kTileRows * panel_stride + depth / kTileDepth * kTileElements;
  }
};

/// Rows [rows, columns] as the depth of a right operand, packed into `out` by all threads.
PackedMatrix pack_right_in_parallel(const TileKernels& kernels, const float* x, int64_t rows, int64_t columns,
                                    uint16_t* out);

}  // namespace salient
