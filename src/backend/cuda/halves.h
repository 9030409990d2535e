#pragma once

#include "backend/cuda/device.h"

namespace salient::cuda {

/// Rows of f32 as halves: to [padded_rows, padded_columns] = x [rows, columns], zeros beside it. What halves
/// cannot hold becomes their largest number.
struct HalvesArguments {
  const float* x;
  uint32_t* to;  ///< pairs of halves
  int rows;
  int columns;
  int padded_rows;
  int padded_columns;  ///< even
};

inline constexpr Kernel kHalvesF16{"halves_f16", 256};
inline constexpr Kernel kHalvesBf16{"halves_bf16", 256};

}  // namespace salient::cuda
