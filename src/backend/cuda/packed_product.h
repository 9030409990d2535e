#pragma once

#include <cstdint>
#include <vector>

#include "backend/cuda/device.h"
#include "backend/cuda/simt.h"
#include "quant/quantized_weight.h"

namespace salient::cuda {

/// A weight in the layout of linear_layout.h, on the host.
struct PackedProduct {
  int out;
  int in;
  int row_blocks;
  int tiles;                  ///< tiles_of_row
  int groups = 0;             ///< 0: halves
  int columns_per_group = 0;  ///< those of padding included
  std::vector<simt::Words4> weight{};
  std::vector<uint32_t> factors{};
};

/// Tiles of a row of so many columns; those of padding count. Codes are read kChunkTilesOfCodes at a time.
int tiles_of_row(int columns, bool codes);

/// Whether codes of such a weight are multiplied as they are: up to 4 bits in groups of 32, of a multiple of
/// 64 columns, or whole rows. Others become halves.
bool packs_codes(const QuantizationScheme& scheme);
PackedProduct pack_codes(const QuantizedWeight& weight);
/// W f32, f16 or bf16 [out, in], rounded to halves; what they cannot hold becomes their largest number.
PackedProduct pack_halves(const Tensor& weight, HalfType type);

}  // namespace salient::cuda
