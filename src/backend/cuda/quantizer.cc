#include "backend/cuda/quantizer.h"

#include <algorithm>

#include "backend/cuda/column_rounding.h"
#include "backend/cuda/factor.h"
#include "backend/cuda/products.h"
#include "backend/cuda/rounding_errors.h"
#include "quant/scheme.h"

namespace salient::cuda {
namespace {

/// Rounding errors in memory at a time.
constexpr int64_t kErrorBytes = int64_t{256} << 20;

/// Forms of rows, whose results come to the host.
void forms_of_rows(Device& device, QuadraticForm problem, std::span<double> result) {
  const DeviceBuffer workspace(device, form_workspace_bytes(problem.rows, problem.columns));
  const DeviceBuffer sums(device, result.size_bytes());
  problem.workspace = workspace.as<float>();
  problem.result = sums.as<double>();
  quadratic_form(device, problem);
  device.copy_out(result.data(), sums.address(), result.size_bytes());
}

}  // namespace

void accumulate_gram(const TensorAccess& access, const Tensor& x, MatmulPrecision precision, Tensor& gram) {
  if (x.dim(0) == 0) return;
  const GramSum problem{.x = access.read(x),
                        .rows = x.dim(0),
                        .k = x.dim(1),
                        .precision = precision,
                        .gram = access.update(gram)};
  access.run([&](Device& device) { accumulate_gram(device, problem); });
}

void accumulate_product(const TensorAccess& access, const ProductSides& sides, MatmulPrecision precision,
                        Tensor& result) {
  if (sides.a.dim(0) == 0) return;
  const ProductSum problem{.a = access.read(sides.a),
                           .b = access.read(sides.b),
                           .rows = sides.a.dim(0),
                           .a_columns = sides.a.dim(1),
                           .b_columns = sides.b.dim(1),
                           .precision = precision,
                           .result = access.update(result)};
  access.run([&](Device& device) { accumulate_product(device, problem); });
}

void quadratic_form(const TensorAccess& access, const Tensor& x, const Tensor& symmetric,
                    std::span<double> result) {
  if (x.dim(0) == 0) return;
  const QuadraticForm problem{.x = access.read(x),
                              .symmetric = access.read(symmetric),
                              .rows = x.dim(0),
                              .columns = x.dim(1),
                              .group_width = x.dim(1),
                              .precision = MatmulPrecision::f32,
                              .workspace = nullptr,
                              .result = nullptr};
  access.run([&](Device& device) { forms_of_rows(device, problem, result); });
}

void rounding_loss(const TensorAccess& access, const RoundingLossProblem& problem, int64_t group_width,
                   std::span<double> result) {
  const int64_t rows = rows_that_count(problem);
  const int64_t columns = problem.weight.dim(1);
  const int64_t groups = group_count(problem.rule.scheme, columns);
  const auto per_row = static_cast<int64_t>(result.size()) / std::max<int64_t>(rows, 1);
  const float* weight = access.read(problem.weight);
  const float* clip = problem.clip.defined() ? access.read(problem.clip) : nullptr;
  const float* gram = access.read(problem.gram);
  const int64_t most = std::max<int64_t>(1, kErrorBytes / (columns * static_cast<int64_t>(sizeof(float))));
  access.run([&](Device& device) {
    const DeviceBuffer scales = sent(device, problem.column_scales);
    const DeviceBuffer errors(device, static_cast<size_t>(std::min(rows, most) * columns) * sizeof(float));
    for (int64_t first = 0; first < rows; first += most) {
      const int64_t count = std::min(most, rows - first);
      const int64_t row = first * problem.row_step;
      rounding_errors(device, {.rule = problem.rule,
                               .weight = weight + row * columns,
                               .column_scales = scales.as<float>(),
                               .clip = clip == nullptr ? nullptr : clip + row * groups,
                               .errors = errors.as<float>(),
                               .rows = count,
                               .row_step = problem.row_step,
                               .columns = columns});
      forms_of_rows(
          device,
          {.x = errors.as<float>(),
           .symmetric = gram,
           .rows = count,
           .columns = columns,
           .group_width = group_width,
           .precision = problem.precision,
           .workspace = nullptr,
           .result = nullptr},
          result.subspan(static_cast<size_t>(first * per_row), static_cast<size_t>(count * per_row)));
    }
  });
}

bool factorize(const TensorAccess& access, Tensor& symmetric) {
  const int64_t k = symmetric.dim(0);
  float* matrix = access.update(symmetric);
  return access.run([&](Device& device) {
    const DeviceBuffer workspace(device, factorization_bytes(k));
    return factorize(device, {.symmetric = matrix, .k = k, .workspace = workspace.address()});
  });
}

bool solve(const TensorAccess& access, Tensor& symmetric, Tensor& rows) {
  const int64_t k = rows.dim(1);
  float* matrix = access.update(symmetric);
  float* values = access.update(rows);
  return access.run([&](Device& device) {
    const DeviceBuffer workspace(device, solution_bytes(rows.dim(0), k));
    return solve(device, {.symmetric = matrix,
                          .values = values,
                          .rows = rows.dim(0),
                          .k = k,
                          .workspace = workspace.address()});
  });
}

void round_compensated(const TensorAccess& access, const CompensationProblem& problem,
                       QuantizedWeight& result) {
  const float* weight = access.read(problem.weight);
  const float* upper = access.read(problem.upper);
  const void* scales = access.read_bytes(result.scales);
  const bool zeros = result.zeros.defined();
  const void* stored_zeros = zeros ? access.read_bytes(result.zeros) : nullptr;
  void* codes = access.write_bytes(result.codes);
  const std::vector<int32_t> order(problem.order.begin(), problem.order.end());
  access.run([&](Device& device) {
    const DeviceBuffer places = sent(device, std::span<const int32_t>(order));
    const DeviceBuffer workspace(device, compensated_rounding_bytes(result.out_features, result.in_features));
    round_compensated(device, {.scheme = result.scheme,
                               .weight = weight,
                               .upper = upper,
                               .order = places.as<int32_t>(),
                               .rows = result.out_features,
                               .columns = result.in_features,
                               .scales = scales,
                               .scale_dtype = result.scales.dtype(),
                               .zeros = static_cast<const uint8_t*>(stored_zeros),
                               .codes = static_cast<uint8_t*>(codes),
                               .workspace = workspace.address()});
  });
}

}  // namespace salient::cuda
