#pragma once

#include "backend/backend.h"

namespace salient {

/// What every back end expects of the tensors it is given, said before a kernel sees them. Errors: internal.
void require(bool condition, const char* what);
void require_shape(const char* what, const Tensor& tensor, const Shape& shape);
void require_matrix(const char* what, const Tensor& tensor);

void check_weight(const LinearWeight& weight);
void check_linear(const PreparedLinear& weight, const Tensor& x, const Tensor& y);
void check_embed(const Tensor& table, std::span<const int32_t> tokens, const Tensor& y);
void check_rms_norm(const Tensor& x, const Tensor& weight, const Tensor& y);
void check_add_rms_norm(const AddNormProblem& problem);
void check_layer_norm(const Tensor& x, const NormWeights& weights, const Tensor& y);
void check_rope(const RopeProblem& problem);
void check_rope_and_store(const RopeStoreProblem& problem);
void check_attention(const AttentionProblem& problem);
void check_gated_activation(const Tensor& gate, const Tensor& up, const Tensor& y);
void check_gather(const Tensor& x, std::span<const int32_t> rows, const Tensor& y);
void check_scatter(const Tensor& x, std::span<const int32_t> rows, std::span<const float> factors,
                   const Tensor& y);
void check_largest(const LargestProblem& problem);
void check_gram(const Tensor& x, const Tensor& gram);
void check_quadratic_form(const Tensor& x, const Tensor& symmetric, size_t results);
/// `results_per_row`: 1, or the groups of a row.
void check_rounding_loss(const RoundingLossProblem& problem, size_t results, int64_t results_per_row);
/// See Backend::rounding_losses.
void check_rounding_losses(std::span<const RoundingLossProblem> problems, size_t results,
                           int64_t results_per_row);
void check_square(const char* what, const Tensor& matrix);
void check_solve(const Tensor& symmetric, const Tensor& rows);
void check_product(const Tensor& a, const Tensor& b, const Tensor& result);
void check_compensation(const CompensationProblem& problem, const QuantizedWeight& result);
void check_sweep(const CodeSweepProblem& problem, const QuantizedWeight& result);

}  // namespace salient
