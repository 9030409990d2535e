#pragma once

#include "backend/cuda/column_rounding.h"
#include "backend/cuda/grid.cuh"

// The rounding of Frantar et al. 2022 (GPTQ), in blocks of 128 columns. Inside a block it goes column by
// column: a warp has all columns of four rows in registers, lane l the columns l, l + 32, l + 64 and l + 96,
// so that a step is a division, a shuffle that hands out the error, and sums. It is bound by the wait for
// these, some 150 cycles a column, which the other rows of the warp and other warps fill. What the errors of
// a block add to all columns behind it is a dense product.

namespace salient::cuda {

SALIENT_DEVICE void order_columns_of_rows(const OrderArguments& a) {
  const int64_t index = int64_t{simt::block_x()} * kColumnThreads + simt::thread();
  if (index >= a.rows * a.columns) return;
  const int64_t row = index / a.columns;
  const float weight = a.weight[row * a.columns + a.order[index % a.columns]];
  a.values[index] = weight;
  a.targets[index] = weight;
}

/// U of a block, zeros on and below its diagonal and beyond its end: so errors add to what follows alone.
SALIENT_DEVICE void load_upper(const ColumnBlockArguments& a, float* shared) {
  for (int i = simt::thread(); i < kColumnBlock * kColumnBlock; i += kColumnThreads) {
    const int row = a.begin + i / kColumnBlock;
    const int column = a.begin + i % kColumnBlock;
    const bool behind = row < column && column < a.end;
    shared[i] = behind ? a.upper[int64_t{row} * a.columns + column] : 0.0f;
  }
}

/// One row of a block, spread over a warp.
struct SpreadRow {
  static constexpr int kOwn = kColumnBlock / simt::kWarp;
  float target[kOwn];  // then the code
  float value[kOwn];   // then the error
  CodeGrid grid[kOwn];

  SALIENT_DEVICE void load(const ColumnBlockArguments& a, int64_t row) {
    SALIENT_UNROLL
    for (int i = 0; i < kOwn; ++i) {
      const int column = a.begin + i * simt::kWarp + simt::lane();
      const bool inside = row < a.rows && column < a.end;
      const int64_t group = inside ? row * a.groups + a.order[column] / a.group_width : 0;
      target[i] = inside ? a.targets[row * a.columns + column] : 0.0f;
      value[i] = inside ? a.values[row * a.columns + column] : 0.0f;
      grid[i].scale = inside ? stored_number(a.type, a.scales, group) : 1.0f;
      grid[i].zero = static_cast<float>(a.zeros == nullptr ? (a.top + 1) / 2 : a.zeros[group]);
    }
  }
  /// Rounds own column i of lane `turn` and gives its error to every lane.
  SALIENT_DEVICE float round(int i, int turn, float top) {
    const float code = nearest_code(target[i], grid[i], top);
    const float own = simt::add_rounded(value[i], -value_of_code(code, grid[i]));
    if (simt::lane() == turn) {
      target[i] = code;
      value[i] = own;
    }
    return simt::shuffle(own, turn);
  }
  SALIENT_DEVICE void store(const ColumnBlockArguments& a, int64_t row) const {
    SALIENT_UNROLL
    for (int i = 0; i < kOwn; ++i) {
      const int column = a.begin + i * simt::kWarp + simt::lane();
      if (row >= a.rows || column >= a.end) continue;
      a.values[row * a.columns + column] = value[i];
      a.codes[row * a.columns + a.order[column]] = static_cast<uint8_t>(target[i]);
    }
  }
};

SALIENT_DEVICE void round_block_of_columns(const ColumnBlockArguments& a) {
  auto* upper = simt::shared_memory<float>();
  load_upper(a, upper);
  const int64_t first = int64_t{simt::block_x()} * kRowsOfColumnBlock + simt::warp() * kRowsOfWarp;
  SpreadRow rows[kRowsOfWarp];
  SALIENT_UNROLL
  for (int r = 0; r < kRowsOfWarp; ++r) rows[r].load(a, first + r);
  simt::sync_block();
  const auto top = static_cast<float>(a.top);
  SALIENT_UNROLL
  for (int i = 0; i < SpreadRow::kOwn; ++i) {
    for (int turn = 0; turn < simt::kWarp; ++turn) {
      const float* factors = upper + (i * simt::kWarp + turn) * kColumnBlock + simt::lane();
      SALIENT_UNROLL
      for (int r = 0; r < kRowsOfWarp; ++r) {
        const float error = rows[r].round(i, turn, top);
        SALIENT_UNROLL
        for (int j = i; j < SpreadRow::kOwn; ++j) rows[r].target[j] += error * factors[j * simt::kWarp];
      }
    }
  }
  SALIENT_UNROLL
  for (int r = 0; r < kRowsOfWarp; ++r) rows[r].store(a, first + r);
}

SALIENT_DEVICE void pack_words_of_codes(const PackCodesArguments& a) {
  const int64_t index = int64_t{simt::block_x()} * kColumnThreads + simt::thread();
  if (index >= a.rows * a.words) return;
  const int codes = 32 / a.bits;
  const int first = static_cast<int>(index % a.words) * codes;
  const uint8_t* from = a.codes + index / a.words * a.columns + first;
  uint32_t word = 0;
  for (int i = 0; i < codes && first + i < a.columns; ++i) word |= uint32_t{from[i]} << (i * a.bits);
  a.packed[index] = word;
}

#define SALIENT_COLUMN_ROUNDING_KERNELS(X)                               \
  X(order_columns, OrderArguments, 256, 1, order_columns_of_rows)        \
  X(round_columns, ColumnBlockArguments, 256, 1, round_block_of_columns) \
  X(pack_codes, PackCodesArguments, 256, 1, pack_words_of_codes)

}  // namespace salient::cuda
