#pragma once

// Included by the kernel file ahead of its target region: nothing here may bring in inline functions.
#include <cstdint>

#include "backend/cpu/kernels.h"

namespace salient {

// Products of bf16 matrices in tiles of 16 rows by 64 bytes, the registers of AMX (Intel SDM volume 1,
// chapter 18). Both operands are packed before they are multiplied:
//
//   left   out[panel][tile][row of 16][k of 32]          a panel has 16 rows of the left matrix
//   right  out[panel][tile][pair of 16][column of 16][2]  a panel has 16 columns of the right matrix
//
// Tile after tile of a panel covers 32 steps of the depth, so that a product walks through both operands with
// unit stride. What the matrix lacks of whole tiles is zero. A tile of the one kind is the transposed tile of
// the other when its 16 x 16 pairs are taken as elements: a weight [out, in] becomes a right operand, and
// the columns of activations [rows, features] a left one, by way of transpose.

inline constexpr int64_t kTileRows = 16;
inline constexpr int64_t kTileDepth = 32;
inline constexpr int64_t kTileElements = kTileRows * kTileDepth;

/// Rows or columns of a packed operand: panels, and tiles of each.
inline constexpr int64_t tile_panels(int64_t rows) { return (rows + kTileRows - 1) / kTileRows; }
inline constexpr int64_t depth_tiles(int64_t depth) { return (depth + kTileDepth - 1) / kTileDepth; }
inline constexpr int64_t packed_elements(int64_t rows, int64_t depth) {
  return tile_panels(rows) * depth_tiles(depth) * kTileElements;
}

/// A row-major matrix to be packed.
struct PackProblem {
  const float* x;  ///< [rows, columns], rows `stride` apart
  int64_t stride;
  int64_t rows;
  int64_t columns;
  uint16_t* out;
  int64_t panel_stride;  ///< elements from one panel of `out` to the next, at least those of its tiles
};

/// out [rows, columns] = left right, or += it.
struct TileProduct {
  const uint16_t* left;
  int64_t left_stride;  ///< elements from panel to panel
  const uint16_t* right;
  int64_t right_stride;
  int64_t tiles;  ///< of the depth
  int64_t rows;
  int64_t columns;
  float* out;
  int64_t out_stride;
  int64_t accumulate;  ///< not 0: add
};

/// One row of unnormalised attention weights.
struct AttentionRow {
  const float* scores;  ///< [count]
  int64_t count;
  uint16_t* out;      ///< row of a left panel: weights in bf16, zeros from `count` on
  int64_t out_tiles;  ///< tiles to fill
};

struct TileKernels {
  /// Rows become a left operand, rounded to nearest even; numbers below the normal ones may become 0, which
  /// is what the products take them for.
  void (*pack_left)(const PackProblem& problem);
  /// The rows are the depth of a right operand.
  void (*pack_right)(const PackProblem& problem);
  /// `count` tiles, each transposed as 16 x 16 pairs; out may be in.
  void (*transpose)(const uint16_t* in, int64_t count, uint16_t* out);
  /// Products of bf16 are exact in f32; sums are f32.
  void (*multiply)(const TileProduct& problem);
  /// e^(score - largest score) for each; the sum is taken before they are rounded.
  SoftmaxTotal (*attention_weights)(const AttentionRow& row);
};

/// Plain C++, the reference of the other.
extern const TileKernels kPortableTileKernels;
/// AMX-BF16, AVX512-BF16 and what kAvx512Kernels needs.
extern const TileKernels kAmxTileKernels;

/// Asks the operating system for the use of the registers; whether it allows it.
bool system_allows_tiles();

/// Those of this processor, or null: portable ones are slower than other products. The first call asks
/// system_allows_tiles.
const TileKernels* fast_tile_kernels();

}  // namespace salient
