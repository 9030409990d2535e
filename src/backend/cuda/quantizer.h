#pragma once

#include "backend/backend.h"
#include "backend/cuda/tensor_access.h"

namespace salient::cuda {

// What the quantizer asks of a back end, by the same names as there. Problems have been checked.

void accumulate_gram(const TensorAccess& access, const Tensor& x, MatmulPrecision precision, Tensor& gram);
/// The two sides of Backend::accumulate_product.
struct ProductSides {
  const Tensor& a;
  const Tensor& b;
};
void accumulate_product(const TensorAccess& access, const ProductSides& sides, MatmulPrecision precision,
                        Tensor& result);
void quadratic_form(const TensorAccess& access, const Tensor& x, const Tensor& symmetric,
                    std::span<double> result);
/// By groups where `result` has one for each.
void rounding_losses(const TensorAccess& access, std::span<const RoundingLossProblem> problems,
                     int64_t group_width, std::span<double> result);
bool factorize(const TensorAccess& access, Tensor& symmetric);
bool solve(const TensorAccess& access, Tensor& symmetric, Tensor& rows);
void round_compensated(const TensorAccess& access, const CompensationProblem& problem,
                       QuantizedWeight& result);
void sweep_codes(const TensorAccess& access, const CodeSweepProblem& problem, QuantizedWeight& result);

}  // namespace salient::cuda
