#include "awq/scale_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "awq/trials_at_once.h"
#include "base/error.h"
#include "base/parallel.h"

namespace salient {
namespace {

/// A point of the grid.
struct Candidate {
  double ratio;
  bool duo;
};

/// llm-compressor's grids: with duo the identity and n-1 points over [0, 1]; plain: n points, of which r = 0
/// is the identity; both: half each.
std::vector<Candidate> make_grid(DuoScaling duo_scaling, int n_grid) {
  std::vector<Candidate> grid;
  const auto append = [&](int count, bool duo) {
    for (int i = 0; i < count; ++i)
      grid.push_back({count > 1 ? static_cast<double>(i) / (count - 1) : 0.5, duo});
  };
  switch (duo_scaling) {
    case DuoScaling::off:
      append(n_grid, false);
      break;
    case DuoScaling::on:
      append(n_grid - 1, true);
      break;
    case DuoScaling::both:
      append(n_grid / 2, false);
      append(n_grid - n_grid / 2, true);
      break;
  }
  return grid;
}

/// max|w| of a matrix that is one group, else 0.
float largest_of_matrix(const BalanceLayer& layer, std::span<const float> weight) {
  if (!layer.rounding || layer.rounding->scheme.group_size != QuantizationScheme::kWholeMatrix) return 0;
  float largest = 0;
  for (const float value : weight) largest = std::max(largest, std::fabs(value));
  return largest;
}

/// Mean over all rows of all balance layers of |w| / max|w| in its group, [in].
std::vector<float> mean_normalized_weight(const ScaleSearchProblem& problem) {
  const auto columns = static_cast<size_t>(problem.input.features());
  std::vector<double> sums(columns, 0.0);
  int64_t rows = 0;
  for (const auto& layer : problem.layers) {
    const Tensor matrix = layer.weight();
    const auto weight = matrix.values<float>();
    const auto out = static_cast<size_t>(matrix.dim(0));
    rows += matrix.dim(0);
    const auto width =
        layer.rounding ? static_cast<size_t>(group_width(layer.rounding->scheme, problem.input.features()))
                       : columns;
    const float at_least = largest_of_matrix(layer, weight);
    // One group of columns per chunk: each sum has one writer and a fixed order.
    parallel_for(columns, width, [&](size_t begin, size_t end) {
      for (size_t row = 0; row < out; ++row) {
        const float* values = weight.data() + row * columns;
        float largest = at_least;
        for (size_t c = begin; c < end; ++c) largest = std::max(largest, std::fabs(values[c]));
        for (size_t c = begin; c < end; ++c)
          sums[c] += static_cast<double>(std::fabs(values[c]) / (largest + 1e-6f));
      }
    });
  }
  std::vector<float> mean(columns);
  for (size_t c = 0; c < columns; ++c) mean[c] = static_cast<float>(sums[c] / static_cast<double>(rows));
  return mean;
}

/// Mean over the columns that share a channel, [channels].
std::vector<float> pool(const ScaleSearchProblem& problem, std::span<const float> per_column) {
  std::vector<float> sum(static_cast<size_t>(problem.channels), 0.0f);
  std::vector<int> count(sum.size(), 0);
  for (size_t c = 0; c < per_column.size(); ++c) {
    sum[static_cast<size_t>(problem.channel_of[c])] += per_column[c];
    ++count[static_cast<size_t>(problem.channel_of[c])];
  }
  for (size_t i = 0; i < sum.size(); ++i) sum[i] /= static_cast<float>(std::max(1, count[i]));
  return sum;
}

/// clamp(x^r [/ (w^(1-r) + 1e-4)], 1e-4), divided by the geometric middle of its extremes; what is not finite
/// becomes 1, and so do channels that were never active, of which the data say nothing.
std::vector<float> scales_for(const Candidate& candidate, std::span<const float> x_mean,
                              std::span<const float> w_mean) {
  std::vector<float> scales(x_mean.size());
  float low = std::numeric_limits<float>::infinity();
  float high = 0.0f;
  for (size_t i = 0; i < scales.size(); ++i) {
    if (x_mean[i] == 0) continue;
    double value = std::pow(static_cast<double>(x_mean[i]), candidate.ratio);
    if (candidate.duo) value /= std::pow(static_cast<double>(w_mean[i]), 1.0 - candidate.ratio) + 1e-4;
    scales[i] = static_cast<float>(std::max(value, 1e-4));
    low = std::min(low, scales[i]);
    high = std::max(high, scales[i]);
  }
  const float middle = std::sqrt(high * low);
  for (float& scale : scales) {
    scale /= middle;
    if (!std::isfinite(scale) || scale <= 0.0f) scale = 1.0f;
  }
  return scales;
}

// Rows of one linear that take part in a search at least: where there are more, every so many-th does, which
// changes the mean of their errors by a few percent and the order of the candidates hardly ever. Fewer show
// which candidates are worth that.
constexpr int64_t kRowsToSearch = 1024;
constexpr int64_t kRowsToScreen = 128;
constexpr size_t kFinalists = 4;

int64_t row_step(int64_t rows, int64_t at_least) { return std::max<int64_t>(1, rows / at_least); }

std::vector<float> scales_of_columns(const ScaleSearchProblem& problem, std::span<const float> scales) {
  std::vector<float> result(problem.channel_of.size());
  for (size_t c = 0; c < result.size(); ++c) result[c] = scales[static_cast<size_t>(problem.channel_of[c])];
  return result;
}

/// Of one linear: tr(D G D^T) / (tokens * out) is added to the loss of each candidate, given its scales of
/// columns. The grid of a whole matrix differs from one to the next.
void add_losses(const ScaleSearchProblem& problem, const BalanceLayer& layer,
                std::span<const std::vector<float>> candidates, int64_t rows, std::span<double> losses) {
  const auto tokens = static_cast<double>(std::max<int64_t>(1, problem.input.tokens()));
  const Tensor weight = layer.weight();
  const int64_t step = row_step(weight.dim(0), rows);
  const auto counted = static_cast<size_t>((weight.dim(0) + step - 1) / step);
  const int64_t products = static_cast<int64_t>(counted) * weight.dim(1) * weight.dim(1);
  const auto at_once = static_cast<size_t>(trials_at_once(products, std::ssize(candidates)));
  for (size_t begin = 0; begin < candidates.size(); begin += at_once) {
    throw_if_cancelled(problem.cancelled);
    const auto some = candidates.subspan(begin, std::min(at_once, candidates.size() - begin));
    std::vector<RoundingRule> rules;
    for (const auto& scales : some) rules.push_back(rule_for_matrix(*layer.rounding, weight, scales));
    std::vector<RoundingTrial> trials;
    for (size_t i = 0; i < some.size(); ++i) {
      trials.push_back({.rule = rules[i],
                        .weight = weight,
                        .column_scales = some[i],
                        .precision = problem.precision,
                        .row_step = step});
    }
    std::vector<double> errors(some.size() * counted);
    problem.input.gram().rounding_losses(problem.backend, trials, errors);
    for (size_t i = 0; i < some.size(); ++i) {
      const auto own = std::span(errors).subspan(i * counted, counted);
      losses[begin + i] +=
          std::accumulate(own.begin(), own.end(), 0.0) / (tokens * static_cast<double>(counted));
    }
  }
}

/// The mean squared output error with the scales of each candidate, summed over the linears.
std::vector<double> candidate_losses(const ScaleSearchProblem& problem,
                                     std::span<const std::vector<float>> candidates, int64_t rows) {
  std::vector<std::vector<float>> column_scales;
  for (const auto& scales : candidates) column_scales.push_back(scales_of_columns(problem, scales));
  std::vector<double> losses(candidates.size(), 0.0);
  if (problem.loss) {
    for (size_t i = 0; i < losses.size(); ++i) {
      throw_if_cancelled(problem.cancelled);
      losses[i] = problem.loss(column_scales[i]);
    }
    return losses;
  }
  for (const BalanceLayer& layer : problem.layers)
    if (layer.rounding) add_losses(problem, layer, column_scales, rows, losses);
  return losses;
}

/// Whether fewer rows than those of a search stand for some linear.
bool can_be_screened(const ScaleSearchProblem& problem) {
  return !problem.loss && std::ranges::any_of(problem.layers, [](const BalanceLayer& layer) {
    return row_step(layer.weight().dim(0), kRowsToScreen) > 1;
  });
}

class Search {
 public:
  explicit Search(const ScaleSearchProblem& problem)
      : problem_(problem),
        x_mean_(pool(problem, problem.input.mean_absolute())),
        w_mean_(pool(problem, mean_normalized_weight(problem))) {}

  ScaleSearchResult run() {
    const std::vector<Candidate> candidates = finalists();
    std::vector<std::vector<float>> scales = carried(candidates);
    scales.emplace_back(static_cast<size_t>(problem_.channels), 1.0f);
    const std::vector<double> losses = candidate_losses(problem_, scales, kRowsToSearch);
    ScaleSearchResult best{.scales = scales.back(), .loss_identity = losses.back(), .loss = losses.back()};
    if (!std::isfinite(best.loss_identity)) {
      fail(ErrorKind::bad_format,
           "the output error of plain rounding is not finite: the weights or the activations are not");
    }
    for (size_t i = 0; i < candidates.size(); ++i) {
      if (!(losses[i] < best.loss)) continue;  // also turns NaN down
      best.scales = scales[i];
      best.loss = losses[i];
      best.ratio = candidates[i].ratio;
      best.duo = candidates[i].duo;
      best.identity = false;
    }
    return best;
  }

 private:
  /// What the smooth layer makes of the candidates' scales.
  std::vector<std::vector<float>> carried(std::span<const Candidate> candidates) const {
    std::vector<std::vector<float>> result;
    for (const Candidate& candidate : candidates) {
      result.push_back(scales_for(candidate, x_mean_, w_mean_));
      problem_.make_representable(result.back());
    }
    return result;
  }

  /// The candidates that did best on few rows, in the order of the grid; all of them where there are no more
  /// rows.
  std::vector<Candidate> finalists() const {
    std::vector<Candidate> grid = make_grid(problem_.duo_scaling, problem_.n_grid);
    if (grid.size() <= kFinalists || !can_be_screened(problem_)) return grid;
    std::vector<double> losses = candidate_losses(problem_, carried(grid), kRowsToScreen);
    for (double& loss : losses)
      if (std::isnan(loss)) loss = std::numeric_limits<double>::infinity();
    std::vector<size_t> order(grid.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::ranges::stable_sort(order, {}, [&](size_t i) { return losses[i]; });
    order.resize(kFinalists);
    std::ranges::sort(order);
    std::vector<Candidate> best;
    for (const size_t i : order) best.push_back(grid[i]);
    return best;
  }

  const ScaleSearchProblem& problem_;
  const std::vector<float> x_mean_;  // [channels]
  const std::vector<float> w_mean_;
};

}  // namespace

ScaleSearchResult search_scales(const ScaleSearchProblem& problem) { return Search(problem).run(); }

}  // namespace salient
