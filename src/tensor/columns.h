#pragma once

#include "tensor/tensor.h"

namespace salient {

/// Columns [begin, end) of a matrix.
struct ColumnRange {
  int64_t begin;
  int64_t end;
  int64_t count() const { return end - begin; }
};

/// Those columns of rows 0, row_step, 2 row_step, ... of `matrix` [rows, columns]: [rows taken, columns
/// taken], a new tensor. Errors: internal for a range outside of the matrix.
Tensor take_columns(const Tensor& matrix, const ColumnRange& range, int64_t row_step = 1);

/// Writes `part` [rows, any] over the columns of `matrix` [rows, columns] from `begin` on. Errors: internal
/// where it does not fit.
void put_columns(const Tensor& part, int64_t begin, Tensor& matrix);

}  // namespace salient
