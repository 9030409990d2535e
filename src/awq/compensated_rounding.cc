#include "awq/compensated_rounding.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/parallel.h"

namespace salient {
namespace {

constexpr int64_t kColumnsPerBlock = 128;

/// Rows know nothing of each other, so that targets and errors are there for so many at a time only. A
/// multiple of the rows that Backend::feed_back hands to one thread: the products are the same for any
/// number of rows then, and sixteen threads have work.
constexpr int64_t kRowsPerBlock = 2048;

/// Neighbours in a text say little new: about one token in so many counts as a sample of its own. Measured:
/// with the products of 8192 tokens taken at face value, the error on other text did not fall at all for 1536
/// columns (docs/measurements.md compares 1 to 25).
constexpr double kTokensPerSample = 6;
constexpr double kLeastShrinkage = 0.01;

/// How much the diagonal counts in excess: the sampling error of the products off the diagonal grows with the
/// columns and falls with the samples.
double shrinkage(const RoundingInput& input) {
  const auto samples = static_cast<double>(std::max<int64_t>(1, input.tokens)) / kTokensPerSample;
  return std::max(kLeastShrinkage, static_cast<double>(input.gram.dim(0)) / samples);
}

/// A channel that was never active must not stop the factorization.
constexpr double kLeastShareOfMean = 1e-6;

/// The columns in the order in which they are rounded.
std::vector<int64_t> rounding_order(const Tensor& matrix, ActivationOrder wanted) {
  const auto size = static_cast<size_t>(matrix.dim(0));
  std::vector<int64_t> order(size);
  std::iota(order.begin(), order.end(), int64_t{0});
  if (wanted == ActivationOrder::none) return order;
  const auto gram = matrix.values<float>();
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return gram[static_cast<size_t>(a) * (size + 1)] > gram[static_cast<size_t>(b) * (size + 1)];
  });
  return order;
}

bool is_sorted(std::span<const int64_t> order) { return std::ranges::is_sorted(order); }

/// Column i of the result is column order[i] of `matrix`; a new tensor.
Tensor take_columns(const Tensor& matrix, std::span<const int64_t> order) {
  Tensor result = Tensor::empty(DType::f32, matrix.shape());
  const auto from = matrix.values<float>();
  const auto to = result.mutable_values<float>();
  parallel_for(from.size() / order.size(), 16, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row) {
      const size_t at = row * order.size();
      for (size_t i = 0; i < order.size(); ++i) to[at + i] = from[at + static_cast<size_t>(order[i])];
    }
  });
  return result;
}

/// The columns of a matrix on their way from the first to the last of `order`, for some of its rows.
class ColumnRounding {
 public:
  ColumnRounding(const CompensatedRoundingProblem& problem, QuantizedWeight& result)
      : problem_(problem),
        order_(problem.factor.order),
        upper_(problem.factor.upper),
        result_(result),
        columns_(problem.weight.dim(1)),
        width_(group_width(result.scheme, columns_)),
        factors_(upper_.values<float>().data()) {}

  void run(int64_t first_row, int64_t end_row) {
    first_row_ = first_row;
    const Tensor rows = problem_.weight.slice(first_row, end_row);
    weight_ = is_sorted(order_) ? rows : take_columns(rows, order_);
    targets_ = weight_.to(DType::f32);
    errors_ = Tensor::empty(DType::f32, weight_.shape());
    for (int64_t begin = 0; begin < columns_; begin += kColumnsPerBlock) {
      throw_if_cancelled(problem_.cancelled);
      const int64_t end = std::min(columns_, begin + kColumnsPerBlock);
      problem_.backend.feed_back(
          {.errors = errors_, .upper = upper_, .begin = begin, .end = end, .targets = targets_});
      const auto targets = targets_.mutable_values<float>();
      const auto errors = errors_.mutable_values<float>();
      parallel_for(static_cast<size_t>(end_row - first_row), 16, [&](size_t from, size_t to) {
        for (size_t row = from; row < to; ++row) {
          const size_t at = row * static_cast<size_t>(columns_);
          round_row({.row = first_row_ + static_cast<int64_t>(row),
                     .begin = begin,
                     .end = end,
                     .weight = weight_.values<float>().data() + at,
                     .targets = targets.data() + at,
                     .errors = errors.data() + at});
        }
      });
    }
  }

 private:
  struct RowBlock {
    int64_t row;
    int64_t begin;
    int64_t end;
    const float* weight;
    float* targets;
    float* errors;
  };

  void round_row(const RowBlock& block) const {
    int64_t group = -1;
    GroupGrid grid;
    for (int64_t k = block.begin; k < block.end; ++k) {
      const int64_t own = order_[static_cast<size_t>(k)] / width_;
      if (own != group) grid = {result_.scale(block.row, own), result_.zero(block.row, own)};
      group = own;
      round_column(block, grid, k);
    }
  }

  /// The error reaches the rest of the block at once, later blocks through feed_back.
  void round_column(const RowBlock& block, const GroupGrid& grid, int64_t k) const {
    const int code = quantize_value(result_.scheme, grid, block.targets[k]);
    result_.set_code(block.row, order_[static_cast<size_t>(k)], code);
    const float error = block.weight[k] - static_cast<float>(code - grid.zero) * grid.scale;
    block.errors[k] = error;
    const float* factors = factors_ + k * columns_;
    for (int64_t j = k + 1; j < block.end; ++j) block.targets[j] += error * factors[j];
  }

  const CompensatedRoundingProblem& problem_;
  std::span<const int64_t> order_;
  const Tensor& upper_;
  QuantizedWeight& result_;
  int64_t columns_;
  int64_t width_;
  const float* factors_;  // [in, in]
  int64_t first_row_ = 0;
  Tensor weight_;   // f32 [rows, in], its columns in order
  Tensor targets_;  // f32 [rows, in]
  Tensor errors_;   // f32 [rows, in], w - q of the columns that are done
};

/// G with rows and columns in that order (empty: as they are); a new tensor.
Tensor take_both(const Tensor& gram, std::span<const int64_t> order) {
  if (is_sorted(order)) return gram.to(DType::f32);
  Tensor result = Tensor::empty(DType::f32, gram.shape());
  const size_t size = order.size();
  const auto from = gram.values<float>();
  const auto to = result.mutable_values<float>();
  parallel_for(size, 16, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      const float* row = from.data() + static_cast<size_t>(order[i]) * size;
      for (size_t j = 0; j < size; ++j) to[i * size + j] = row[static_cast<size_t>(order[j])];
    }
  });
  return result;
}

}  // namespace

Tensor shrunk_gram(const RoundingInput& input, double times, std::span<const int64_t> order) {
  Tensor result = take_both(input.gram, order);
  const auto values = result.mutable_values<float>();
  const auto size = static_cast<size_t>(result.dim(0));
  double mean = 0;
  for (size_t i = 0; i < size; ++i) mean += double{values[i * size + i]} / static_cast<double>(size);
  for (size_t i = 0; i < size; ++i) {
    const double raised = double{values[i * size + i]} * (1 + times * shrinkage(input));
    values[i * size + i] = static_cast<float>(raised + times * kLeastShareOfMean * mean);
  }
  return result;
}

FeedbackFactor make_feedback_factor(Backend& backend, const RoundingInput& input, ActivationOrder order,
                                    const CancellationFlag* cancelled) {
  FeedbackFactor factor{.order = rounding_order(input.gram, order), .upper = {}};
  for (const double times : {1.0, 10.0, 100.0}) {
    throw_if_cancelled(cancelled);
    Tensor upper = shrunk_gram(input, times, factor.order);
    if (!backend.factorize(upper)) continue;
    factor.upper = upper;
    break;
  }
  return factor;
}

QuantizedWeight round_compensated(const CompensatedRoundingProblem& problem) {
  QuantizedWeight result = quantize_to_nearest(problem.weight, problem.clip, problem.rounding.scheme,
                                               problem.rounding.scale_dtype);
  if (!problem.factor.upper.defined()) return result;
  ColumnRounding rounding(problem, result);
  for (int64_t row = 0; row < problem.weight.dim(0); row += kRowsPerBlock) {
    rounding.run(row, std::min(problem.weight.dim(0), row + kRowsPerBlock));
  }
  return result;
}

}  // namespace salient
