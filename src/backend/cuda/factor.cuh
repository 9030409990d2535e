#pragma once

#include <cmath>

#include "backend/cuda/factor.h"
#include "backend/cuda/simt.h"

namespace salient::cuda {

/// A matrix of up to kFactorBlock rows in shared memory.
struct DoubleBlock {
  double* data;
  SALIENT_DEVICE double& at(int row, int column) const { return data[row * (kFactorBlock + 1) + column]; }
};

/// From the last column to the first; what is left of the block loses the product of each column with itself.
/// False where a pivot is not positive, which then counts as 1.
SALIENT_DEVICE bool factor_in_shared(const DoubleBlock& r, int size) {
  bool positive = true;
  for (int column = size - 1; column >= 0; --column) {
    const double pivot = r.at(column, column);
    const bool good = pivot > 0 && pivot < static_cast<double>(INFINITY);
    positive = positive && good;
    const double root = good ? sqrt(pivot) : 1.0;
    simt::sync_block();
    for (int row = simt::thread(); row <= column; row += kFactorThreads)
      r.at(row, column) = row < column ? r.at(row, column) / root : root;
    simt::sync_block();
    for (int i = simt::thread(); i < column * column; i += kFactorThreads) {
      const int row = i / column;
      const int other = i % column;
      if (other >= row) r.at(row, other) -= r.at(row, column) * r.at(other, column);
    }
    simt::sync_block();
  }
  return positive;
}

/// A column for each thread, from its last row up.
SALIENT_DEVICE void invert_in_shared(const DoubleBlock& r, const DoubleBlock& inverse, int size) {
  const int column = simt::thread();
  if (column >= size) return;
  for (int row = size - 1; row >= 0; --row) {
    double sum = row == column ? 1.0 : 0.0;
    for (int j = row + 1; j <= column; ++j) sum -= r.at(row, j) * inverse.at(j, column);
    inverse.at(row, column) = row <= column ? sum / r.at(row, row) : 0.0;
  }
}

SALIENT_DEVICE void factor_block_on_diagonal(const FactorBlockArguments& a) {
  const DoubleBlock r{simt::shared_memory<double>()};
  const DoubleBlock inverse{r.data + kFactorBlock * (kFactorBlock + 1)};
  const auto for_elements = [&](const auto& body) {
    for (int i = simt::thread(); i < a.size * a.size; i += kFactorThreads) {
      const int row = i / a.size;
      const int column = i % a.size;
      if (column >= row) body(row, column, a.matrix + (a.begin + row) * a.k + a.begin + column);
    }
  };
  for_elements(
      [&](int row, int column, const float* from) { r.at(row, column) = static_cast<double>(*from); });
  simt::sync_block();
  const bool positive = factor_in_shared(r, a.size);
  invert_in_shared(r, inverse, a.size);
  simt::sync_block();
  for_elements([&](int row, int column, float* to) { *to = static_cast<float>(r.at(row, column)); });
  for (int i = simt::thread(); i < kFactorBlock * kFactorBlock; i += kFactorThreads) {
    const int row = i / kFactorBlock;
    const int column = i % kFactorBlock;
    a.inverse[i] = row < a.size && column < a.size ? static_cast<float>(inverse.at(row, column)) : 0.0f;
  }
  for (int i = simt::thread(); i < a.size; i += kFactorThreads)
    a.reciprocals[a.begin + i] = static_cast<float>(1.0 / r.at(i, i));
  if (simt::thread() == 0 && !positive) simt::increment(a.failures);
}

SALIENT_DEVICE void divide_by_diagonal(const UnitArguments& a) {
  const int64_t index = int64_t{simt::block_x()} * kFactorThreads + simt::thread();
  if (index >= a.k * a.k) return;
  const int64_t row = index / a.k;
  const int64_t column = index % a.k;
  if (column == row) a.matrix[index] = 1.0f;
  if (column > row) a.matrix[index] *= a.reciprocals[column];
}

SALIENT_DEVICE void copy_and_pad(const PadArguments& a) {
  const int64_t index = int64_t{simt::block_x()} * kFactorThreads + simt::thread();
  if (index >= a.rows * a.columns) return;
  const int64_t row = index / a.columns;
  const int64_t column = index % a.columns;
  const bool inside = row < a.from_rows && column < a.from_columns;
  const float unit = row == column ? 1.0f : 0.0f;
  a.to[index] = inside ? a.from[row * a.from_stride + column] : unit;
}

#define SALIENT_FACTOR_KERNELS(X)                                         \
  X(factor_block, FactorBlockArguments, 256, 1, factor_block_on_diagonal) \
  X(unit_triangle, UnitArguments, 256, 1, divide_by_diagonal)             \
  X(pad_matrix, PadArguments, 256, 1, copy_and_pad)

}  // namespace salient::cuda
