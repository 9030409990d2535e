#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "backend/backend.h"

namespace salient::test {

/// What Backend::sweep_codes lowers, (W - Q) H (W - Q)^T of a row, by its definition.
inline double row_loss(const CodeSweepProblem& problem, const QuantizedWeight& result, int64_t row) {
  const auto columns = static_cast<size_t>(problem.weight.dim(1));
  const auto weight = problem.weight.values<float>().subspan(static_cast<size_t>(row) * columns, columns);
  const auto gram = problem.gram.values<float>();
  std::vector<float> values(columns);
  dequantize_row(result, row, values);
  std::vector<double> errors(columns);
  for (size_t k = 0; k < columns; ++k) errors[k] = double{weight[k]} - double{values[k]};
  double sum = 0;
  for (size_t i = 0; i < columns; ++i) {
    double product = double{problem.ridge[i]} * errors[i];
    for (size_t j = 0; j < columns; ++j) product += double{gram[i * columns + j]} * errors[j];
    sum += product * errors[i];
  }
  return sum;
}

/// That behind sweeps no other code of every `step`th column of a row is better than its own.
inline void expect_no_better_code(const CodeSweepProblem& problem, QuantizedWeight& result, int64_t row,
                                  int64_t step = 1) {
  const double least = row_loss(problem, result, row);
  for (int64_t k = 0; k < problem.weight.dim(1); k += step) {
    const int code = result.code(row, k);
    for (const int other : {code - 1, code + 1}) {
      if (other < 0 || other > max_code(result.scheme)) continue;
      result.set_code(row, k, other);
      ASSERT_GT(row_loss(problem, result, row), least * (1 - 1e-4)) << row << ", " << k;
    }
    result.set_code(row, k, code);
  }
}

}  // namespace salient::test
