#pragma once

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

}  // namespace salient::test
