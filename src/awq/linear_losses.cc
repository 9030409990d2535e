#include "awq/linear_losses.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace salient {
namespace {

constexpr int64_t kRowsToMeasure = 256;
constexpr size_t kLargestChannels = 5;

/// The mean squared error of an output, given those of some rows, summed over the tokens.
class RowMean {
 public:
  RowMean(const LinearLossProblem& problem, int64_t step) : problem_(problem), step_(step) {}

  double operator()(std::span<const double> errors, bool scaled) const {
    double sum = 0;
    for (size_t i = 0; i < errors.size(); ++i) {
      const double scale = scaled && !problem_.row_scales.empty()
                               ? double{problem_.row_scales[i * static_cast<size_t>(step_)]}
                               : 1.0;
      sum += errors[i] * scale * scale;
    }
    const auto tokens = static_cast<double>(std::max<int64_t>(1, problem_.input.tokens));
    return sum / (tokens * static_cast<double>(errors.size()));
  }

 private:
  const LinearLossProblem& problem_;
  int64_t step_;
};

/// Every step-th row in f32; `matrix` itself where that is all of it.
Tensor take_rows(const Tensor& matrix, int64_t step) {
  if (step == 1) return matrix.dtype() == DType::f32 ? matrix : matrix.to(DType::f32);
  const int64_t rows = (matrix.dim(0) + step - 1) / step;
  Tensor result = Tensor::empty(DType::f32, {rows, matrix.dim(1)});
  for (int64_t i = 0; i < rows; ++i) {
    const Tensor row = matrix.slice(i * step, i * step + 1).to(DType::f32);
    std::ranges::copy(row.values<float>(), result.slice(i, i + 1).mutable_values<float>().begin());
  }
  return result;
}

std::vector<float> inverse(std::span<const float> values) {
  std::vector<float> result(values.begin(), values.end());
  for (float& value : result) value = 1.0f / value;
  return result;
}

/// `matrix` in the coordinates of the Gram matrix at hand; `matrix` itself without scales.
Tensor scaled_columns(const Tensor& matrix, std::span<const float> scales) {
  if (scales.empty()) return matrix;
  Tensor result = matrix.to(DType::f32);
  const auto values = result.mutable_values<float>();
  for (size_t i = 0; i < values.size(); ++i) values[i] *= scales[i % scales.size()];
  return result;
}

/// The rows that `rows` holds every step-th of, as they were rounded, less those.
Tensor rounding_errors(const Tensor& rows, const QuantizedWeight& rounded, int64_t step) {
  Tensor result = Tensor::empty(DType::f32, rows.shape());
  const auto columns = static_cast<size_t>(rows.dim(1));
  for (int64_t i = 0; i < rows.dim(0); ++i) {
    const auto out = result.mutable_values<float>().subspan(static_cast<size_t>(i) * columns, columns);
    dequantize_row(rounded, i * step, out);
    const auto from = rows.values<float>().subspan(static_cast<size_t>(i) * columns, columns);
    for (size_t c = 0; c < columns; ++c) out[c] -= from[c];
  }
  return result;
}

void describe_channels(const ActivationStatistics& statistics, LinearReport& report) {
  const std::vector<float> mean = statistics.mean_absolute();
  std::vector<size_t> order(mean.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const size_t most = std::min(kLargestChannels, order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<ptrdiff_t>(most), order.end(),
                    [&](size_t a, size_t b) { return mean[a] != mean[b] ? mean[a] > mean[b] : a < b; });
  std::vector<float> sorted = mean;
  std::ranges::nth_element(sorted, sorted.begin() + static_cast<ptrdiff_t>(sorted.size() / 2));
  const double median = double{sorted[sorted.size() / 2]};
  for (size_t i = 0; i < most; ++i) {
    const double value = double{mean[order[i]]};
    report.largest_channels.push_back({.channel = static_cast<int64_t>(order[i]),
                                       .mean_absolute = value,
                                       .times_median = median > 0 ? value / median : 0});
  }
  report.dead_channels = std::ranges::count(mean, 0.0f);
}

}  // namespace

LinearReport measure_losses(const LinearLossProblem& problem) {
  LinearReport report{.scheme = problem.rule.scheme};
  // All rows of a whole matrix make its grid.
  const bool whole = problem.rule.scheme.group_size == QuantizationScheme::kWholeMatrix;
  const int64_t step = whole ? 1 : std::max<int64_t>(1, problem.weight.dim(0) / kRowsToMeasure);
  const RowMean mean(problem, step);
  const Tensor weight = take_rows(problem.weight, step);
  const Tensor clip = problem.clip.defined() ? take_rows(problem.clip, step) : Tensor();
  std::vector<double> errors(static_cast<size_t>(weight.dim(0)));
  const auto loss = [&](const Tensor& rows, std::span<const float> scales, const Tensor& bounds,
                        bool scaled) {
    const RoundingRule rule = rule_for_matrix(problem.rule, rows, scales);
    problem.input.gram.rounding_loss(problem.backend,
                                     {.rule = rule,
                                      .weight = rows,
                                      .column_scales = scales,
                                      .clip = bounds,
                                      .precision = problem.precision},
                                     errors);
    return mean(errors, scaled);
  };
  const auto form = [&](const Tensor& rows) {
    problem.input.gram.quadratic_form(problem.backend, rows, errors);
    return mean(errors, true);
  };
  report.signal = form(weight);
  const std::vector<float> back = inverse(problem.column_scales);
  report.loss_nearest =
      loss(scaled_columns(take_rows(problem.original, step), problem.column_scales), back, {}, false);
  report.loss_scaled = loss(weight, {}, {}, true);
  report.loss_clipped = clip.defined() ? loss(weight, {}, clip, true) : report.loss_scaled;
  report.loss = form(rounding_errors(weight, problem.rounded, step));
  describe_channels(problem.statistics, report);
  return report;
}

}  // namespace salient
