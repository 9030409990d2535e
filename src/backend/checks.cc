#include "backend/checks.h"

#include <algorithm>

#include "base/error.h"

namespace salient {
namespace {

bool is_weight_type(DType dtype) {
  return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
}

/// Positions whose keys and values an attention may read.
int64_t keys_of(const AttentionProblem& problem) {
  if (problem.cache != nullptr) {
    const auto& [keys, values] = *problem.cache;
    const bool fits = keys.format.heads == problem.kv_heads && values.format.heads == problem.kv_heads &&
                      keys.format.dim == problem.head_dim && values.format.dim == problem.value_dim;
    require(fits, "the cache of an attention holds other heads");
    return std::min(keys.rows(), values.rows());
  }
  require_matrix("keys of an attention", problem.keys);
  const int64_t capacity = problem.keys.dim(0);
  require_shape("keys of an attention", problem.keys, {capacity, problem.kv_heads * problem.head_dim});
  require_shape("values of an attention", problem.values, {capacity, problem.kv_heads * problem.value_dim});
  return capacity;
}

}  // namespace

void require(bool condition, const char* what) {
  if (!condition) fail(ErrorKind::internal, "back end: {}", what);
}

void require_shape(const char* what, const Tensor& tensor, const Shape& shape) {
  if (tensor.dtype() == DType::f32 && tensor.shape() == shape) return;
  fail(ErrorKind::internal, "back end: {} is {} {}, expected F32 {}", what, to_string(tensor.dtype()),
       to_string(tensor.shape()), to_string(shape));
}

void require_matrix(const char* what, const Tensor& tensor) {
  if (tensor.dtype() == DType::f32 && tensor.shape().size() == 2) return;
  fail(ErrorKind::internal, "back end: {} is {} {}, expected an F32 matrix", what, to_string(tensor.dtype()),
       to_string(tensor.shape()));
}

void check_weight(const LinearWeight& weight) {
  require(weight.defined(), "a linear without weight");
  if (weight.quantized) return;
  require(is_weight_type(weight.dense.dtype()) && weight.dense.shape().size() == 2,
          "a dense weight must be an F32, F16 or BF16 matrix");
}

void check_linear(const PreparedLinear& weight, const Tensor& x, const Tensor& y) {
  require_matrix("x of a linear", x);
  require_shape("x of a linear", x, {x.dim(0), weight.in_features()});
  require_shape("y of a linear", y, {x.dim(0), weight.out_features()});
}

void check_embed(const Tensor& table, std::span<const int32_t> tokens, const Tensor& y) {
  require(is_weight_type(table.dtype()) && table.shape().size() == 2,
          "an embedding table must be an F32, F16 or BF16 matrix");
  require_shape("y of an embedding", y, {static_cast<int64_t>(tokens.size()), table.dim(1)});
  for (const int32_t token : tokens) {
    if (token >= 0 && token < table.dim(0)) continue;
    fail(ErrorKind::internal, "back end: token {} of a table with {} rows", token, table.dim(0));
  }
}

void check_rms_norm(const Tensor& x, const Tensor& weight, const Tensor& y) {
  require(weight.shape().size() == 1 && weight.dim(0) > 0, "a norm weight must be one row");
  require_shape("weight of a norm", weight, {weight.dim(0)});
  require_shape("y of a norm", y, x.shape());
  require(x.dtype() == DType::f32 && !x.shape().empty() && x.shape().back() % weight.dim(0) == 0,
          "rows of a norm must be F32 and hold whole heads");
}

void check_add_rms_norm(const AddNormProblem& problem) {
  const int64_t features = problem.weight.dim(0);
  require_shape("weight of a sum and norm", problem.weight, {features});
  for (const Tensor* rows : std::initializer_list<const Tensor*>{&problem.x, &problem.sum, &problem.y})
    require_shape("x, sum or y of a sum and norm", *rows, {problem.x.dim(0), features});
}

void check_layer_norm(const Tensor& x, const NormWeights& weights, const Tensor& y) {
  const Tensor& weight = weights.weight;
  require_shape("weight of a norm", weight, weight.shape());
  require(!weight.shape().empty() && weight.element_count() > 0, "a norm weight must not be empty");
  if (weights.bias.defined()) require_shape("bias of a norm", weights.bias, weight.shape());
  require_shape("y of a norm", y, x.shape());
  require(x.dtype() == DType::f32 && !x.shape().empty() && x.shape().back() % weight.element_count() == 0,
          "rows of a norm must be F32 and hold whole heads");
}

void check_rope(const RopeProblem& problem) {
  require_matrix("x of a rotation", problem.x);
  require_matrix("cosines of a rotation", problem.cosine);
  const int64_t pairs = problem.cosine.dim(1);
  require_shape("cosines of a rotation", problem.cosine, {problem.x.dim(0), pairs});
  require_shape("sines of a rotation", problem.sine, {problem.x.dim(0), pairs});
  require(problem.head_dim > 0 && problem.x.dim(1) % problem.head_dim == 0 && problem.first >= 0 &&
              problem.first + 2 * pairs <= problem.head_dim,
          "heads of a rotation do not fit");
}

void check_rope_and_store(const RopeStoreProblem& problem) {
  if (problem.cosine.defined()) {
    for (Tensor x : {problem.query, problem.keys})
      check_rope({.cosine = problem.cosine, .sine = problem.sine, .head_dim = problem.head_dim, .x = x});
  }
  const int64_t rows = problem.keys.dim(0);
  for (const RowsForCache& cache : problem.caches) {
    const auto& [keys, values] = cache.pages;
    require_shape("keys for a cache", problem.keys, {rows, keys.format.heads * keys.format.dim});
    require_shape("values for a cache", problem.values, {rows, values.format.heads * values.format.dim});
    require(!problem.cosine.defined() || problem.head_dim == keys.format.dim,
            "a cache keeps other heads than those that are rotated");
    require(cache.begin >= 0 && cache.count >= 0 && cache.begin + cache.count <= rows,
            "a cache is to keep rows that are not there");
    require(cache.first >= 0 && cache.first + cache.count <= std::min(keys.rows(), values.rows()),
            "rows for a cache stand past its pages");
  }
}

void check_attention(const AttentionProblem& problem) {
  require(problem.head_dim > 0 && problem.kv_heads > 0 && problem.heads % problem.kv_heads == 0,
          "query heads of an attention must be a multiple of its kv heads");
  require(problem.window >= 0 && problem.first_position >= 0,
          "window or position of an attention is negative");
  require_matrix("query of an attention", problem.query);
  const int64_t count = problem.query.dim(0);
  require_shape("query of an attention", problem.query, {count, problem.heads * problem.head_dim});
  require_shape("output of an attention", problem.output, {count, problem.heads * problem.value_dim});
  require(problem.slopes.empty() || static_cast<int64_t>(problem.slopes.size()) == problem.heads,
          "an attention has one slope per head");
  require(keys_of(problem) >= problem.first_position + count, "queries of an attention stand past its keys");
}

void check_gated_activation(const Tensor& gate, const Tensor& up, const Tensor& y) {
  require_shape("up of an activation", up, gate.shape());
  require_shape("y of an activation", y, gate.shape());
}

void check_gather(const Tensor& x, std::span<const int32_t> rows, const Tensor& y) {
  require_matrix("x of a gathering", x);
  require_shape("y of a gathering", y, {static_cast<int64_t>(rows.size()), x.dim(1)});
}

void check_scatter(const Tensor& x, std::span<const int32_t> rows, std::span<const float> factors,
                   const Tensor& y) {
  require_matrix("y of a scattering", y);
  require_shape("x of a scattering", x, {static_cast<int64_t>(rows.size()), y.dim(1)});
  require(factors.size() == rows.size(), "a scattering has one factor per row");
}

void check_largest(const LargestProblem& problem) {
  require_matrix("x of largest values", problem.x);
  require(problem.wanted >= 1 && problem.wanted <= kMostLargest, "so many largest values are not to be had");
  require(problem.scales.empty() || std::ssize(problem.scales) == problem.x.dim(0),
          "largest values have one scale per row");
}

void check_square(const char* what, const Tensor& matrix) {
  require_matrix(what, matrix);
  require_shape(what, matrix, {matrix.dim(0), matrix.dim(0)});
}

void check_gram(const Tensor& x, const Tensor& gram) {
  require_matrix("x of a Gram matrix", x);
  require_shape("Gram matrix", gram, {x.dim(1), x.dim(1)});
}

void check_quadratic_form(const Tensor& x, const Tensor& symmetric, size_t results) {
  require_matrix("x of a quadratic form", x);
  require_shape("matrix of a quadratic form", symmetric, {x.dim(1), x.dim(1)});
  require(static_cast<int64_t>(results) == x.dim(0), "a quadratic form has one result per row");
}

void check_rounding_loss(const RoundingLossProblem& problem, size_t results, int64_t results_per_row) {
  require_matrix("weight of a rounding loss", problem.weight);
  const int64_t k = problem.weight.dim(1);
  require_shape("Gram matrix of a rounding loss", problem.gram, {k, k});
  require(problem.column_scales.empty() || static_cast<int64_t>(problem.column_scales.size()) == k,
          "a rounding loss has one scale per column");
  require(problem.rule.scheme.group_size != QuantizationScheme::kWholeMatrix || problem.rule.grid.has_value(),
          "a rounding loss of a whole matrix needs its grid");
  require(problem.row_step >= 1, "the row step of a rounding loss is not positive");
  if (problem.clip.defined()) {
    require_shape("clip of a rounding loss", problem.clip,
                  {problem.weight.dim(0), group_count(problem.rule.scheme, k)});
  }
  require(static_cast<int64_t>(results) == rows_that_count(problem) * results_per_row,
          "a rounding loss has one result per row, or per group");
}

void check_rounding_losses(std::span<const RoundingLossProblem> problems, size_t results,
                           int64_t results_per_row) {
  const RoundingLossProblem& first = problems.front();
  require(results % problems.size() == 0, "rounding losses have as many results for each problem");
  for (const RoundingLossProblem& problem : problems) {
    check_rounding_loss(problem, results / problems.size(), results_per_row);
    require(&problem.weight == &first.weight && &problem.gram == &first.gram,
            "problems of rounding losses share their weight and Gram matrix");
    require(problem.precision == first.precision && problem.row_step == first.row_step,
            "problems of rounding losses share their precision and row step");
    require(problem.rule.scheme == first.rule.scheme && problem.rule.scale_dtype == first.rule.scale_dtype,
            "problems of rounding losses share their scheme");
  }
}

void check_solve(const Tensor& symmetric, const Tensor& rows) {
  require_matrix("matrix of a solution", symmetric);
  require_matrix("rows of a solution", rows);
  require_shape("matrix of a solution", symmetric, {rows.dim(1), rows.dim(1)});
}

void check_product(const Tensor& a, const Tensor& b, const Tensor& result) {
  require_matrix("left side of a product", a);
  require_matrix("right side of a product", b);
  require(a.dim(0) == b.dim(0), "both sides of a product have as many rows");
  require_shape("product", result, {a.dim(1), b.dim(1)});
}

void check_compensation(const CompensationProblem& problem, const QuantizedWeight& result) {
  require_matrix("weight of a compensated rounding", problem.weight);
  const int64_t k = problem.weight.dim(1);
  require_shape("factor of a compensated rounding", problem.upper, {k, k});
  require(static_cast<int64_t>(problem.order.size()) == k,
          "a compensated rounding has one place in the order for each column");
  require(result.out_features == problem.weight.dim(0) && result.in_features == k,
          "a compensated rounding has as many codes as weights");
}

void check_sweep(const CodeSweepProblem& problem, const QuantizedWeight& result) {
  require_matrix("weight of a code sweep", problem.weight);
  const int64_t k = problem.weight.dim(1);
  require_shape("Gram matrix of a code sweep", problem.gram, {k, k});
  require(static_cast<int64_t>(problem.ridge.size()) == k, "a code sweep has a ridge for each column");
  require(result.out_features == problem.weight.dim(0) && result.in_features == k,
          "a code sweep has as many codes as weights");
}

}  // namespace salient
