#pragma once

#include "backend/cuda/device.h"
#include "backend/cuda/linear_layout.h"

namespace salient::cuda {

/// Rows of x that the kernel for few rows takes.
inline constexpr int kFewRows = 8;

/// x in the order of fragments, see input_place: to [tiles, rows, 64] halves of x f32 [rows, columns].
struct FragmentsArguments {
  const float* x;
  uint32_t* to;  ///< pairs of halves
  int rows;
  int columns;
  int tiles;
};

/// y [rows, out] = x W^T + bias.
struct LinearArguments {
  const simt::Words4* weight;  ///< see linear_layout.h
  const uint32_t* factors;     ///< [row blocks, groups, 16], see factor_place; null: the weight is in halves
  const simt::Words4* x;       ///< few rows: fragments; else halves [padded rows, padded columns]
  float* y;
  const float* bias;   ///< f32 [out] or null
  float* parts;        ///< [splits, rows, out], with splits > 1
  uint32_t* counters;  ///< [blocks along x and z], 0 before and after, with splits > 1
  int rows;
  int out;
  int row_blocks;
  int tiles;        ///< along a row
  int groups;       ///< of a row
  int group_shift;  ///< of groups of 64 columns or more: their tiles are 2^group_shift
};

/// W in halves, row-major [out, columns] for a library's product.
struct DequantizeArguments {
  const simt::Words4* weight;
  const uint32_t* factors;
  uint32_t* to;  ///< pairs of halves
  int out;
  int columns;  ///< even
  int tiles;
  int groups;
  int column_shift;  ///< groups are of 2^column_shift columns
};

/// y [rows, out] += bias [out].
struct AddBiasArguments {
  float* y;
  const float* bias;
  int rows;
  int out;
};

inline constexpr Kernel kFragmentsF16{"fragments_f16", 256};
inline constexpr Kernel kFragmentsBf16{"fragments_bf16", 256};
inline constexpr Kernel kAddBias{"product_bias", 256};

}  // namespace salient::cuda
