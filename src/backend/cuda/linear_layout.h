#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/cuda/simt.h"

namespace salient::cuda {

/// How weights W [out, in] lie in the memory of a device. A weight is the left operand of mma.m16n8k16, so
/// that y^T = W x^T and the same bytes serve one row of x (one column of a tile of 8) and many. It is cut
/// into tiles of 16 rows by 64 columns, which lie in the order [block of 16 rows][tile of 64 columns]: a warp
/// that goes along a row block reads memory from beginning to end, 16 bytes a lane. Rows and columns that are
/// missing are filled with zeros.
inline constexpr int kTileRows = 16;
inline constexpr int kTileColumns = 64;
/// Tiles of codes that are read at once: a row has a multiple of them.
inline constexpr int kChunkTilesOfCodes = 2;
inline constexpr int kStepColumns = 16;  ///< of one mma
inline constexpr int kTileSteps = kTileColumns / kStepColumns;
/// Columns of a piece of x of 16 bytes.
inline constexpr int kChunkColumns = 8;

SALIENT_HOST_DEVICE constexpr int divided_up(int value, int by) { return (value + by - 1) / by; }

/// Where an element of a 16x16 operand is: lane, one of its four registers, and which half of the register
/// (PTX ISA, "Matrix Fragments for mma.m16n8k16").
struct FragmentPlace {
  int lane;
  int reg;
  int half;
};

SALIENT_HOST_DEVICE constexpr FragmentPlace fragment_place(int row, int column) {
  return {.lane = row % 8 * 4 + column % 8 / 2, .reg = row / 8 + column / 8 * 2, .half = column % 2};
}

/// Where a 4-bit code of a tile is: word `word` of the lane's 16 bytes holds one step, and in it register r's
/// halves are nibbles r and r + 4, so that `word >> 4 r & 0x000f000f` are the two.
struct CodePlace {
  int lane;
  int word;
  int nibble;
};

SALIENT_HOST_DEVICE constexpr CodePlace code_place(int row, int column) {
  const FragmentPlace place = fragment_place(row, column % kStepColumns);
  return {.lane = place.lane, .word = column / kStepColumns, .nibble = place.reg + 4 * place.half};
}

/// What turns a code into a weight: the upper 24 bits of an f32 scale (all of an f16 or bf16 one) and, below
/// them, the zero. For a row block and group those of rows g and g + 8 lie side by side, g = 0 to 7.
SALIENT_HOST_DEVICE constexpr int factor_place(int row) { return row % 8 * 2 + row / 8; }
inline constexpr uint32_t kScaleBits = 0xffffff00u;
inline constexpr uint32_t kZeroBits = 0xffu;

/// Where the halves of x for a lane stand: [tile][row of x][t = lane % 4] 16 halves, those of step s at
/// 4 s: columns 2t, 2t + 1, 2t + 8, 2t + 9 of the step.
SALIENT_HOST_DEVICE constexpr int input_place(int column) {
  const int k = column % kStepColumns;
  return k % 8 / 2 * 16 + column / kStepColumns * 4 + k / 8 * 2 + k % 2;
}

}  // namespace salient::cuda
