#include "awq/clip_search.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/parallel.h"

namespace salient {
namespace {

constexpr int kCandidates = 10;
constexpr float kStep = 0.05f;

/// max|w| of each group, f32 [out, groups].
Tensor largest_of_groups(const Tensor& weight, const QuantizationScheme& scheme) {
  const auto columns = static_cast<size_t>(weight.dim(1));
  const auto width = static_cast<size_t>(group_width(scheme, weight.dim(1)));
  const auto groups = static_cast<size_t>(group_count(scheme, weight.dim(1)));
  Tensor result = Tensor::empty(DType::f32, {weight.dim(0), static_cast<int64_t>(groups)});
  const auto values = weight.values<float>();
  const auto largest = result.mutable_values<float>();
  parallel_for(largest.size(), 256, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      const size_t column = i % groups * width;
      float most = 0;
      for (const float value :
           values.subspan(i / groups * columns + column, std::min(width, columns - column)))
        most = std::max(most, std::fabs(value));
      largest[i] = most;
    }
  });
  return result;
}

double sum_of(std::span<const double> values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum;
}

}  // namespace

ClipSearchResult search_clips(const ClipSearchProblem& problem) {
  const Tensor largest_tensor = largest_of_groups(problem.weight, problem.rounding.scheme);
  const auto largest = largest_tensor.values<float>();
  Tensor tried = Tensor::empty(DType::f32, largest_tensor.shape());
  ClipSearchResult result{.clip = largest_tensor.to(DType::f32)};
  const auto clip = result.clip.mutable_values<float>();
  std::vector<double> loss(largest.size());
  std::vector<double> best;
  for (int i = 0; i < kCandidates; ++i) {
    throw_if_cancelled(problem.cancelled);
    const auto bound = tried.mutable_values<float>();
    for (size_t group = 0; group < bound.size(); ++group) {
      bound[group] = largest[group] * (1.0f - kStep * static_cast<float>(i));
    }
    problem.gram.rounding_loss_by_group(
        problem.backend, {.rule = problem.rounding, .weight = problem.weight, .clip = tried}, loss);
    if (i == 0) {
      best = loss;
      result.loss_before = sum_of(loss);
    }
    for (size_t group = 0; group < loss.size(); ++group) {
      if (!(loss[group] < best[group])) continue;
      best[group] = loss[group];
      clip[group] = bound[group];
    }
  }
  result.loss_after = sum_of(best);
  const double outputs =
      static_cast<double>(std::max<int64_t>(1, problem.tokens)) * static_cast<double>(problem.weight.dim(0));
  result.loss_before /= outputs;
  result.loss_after /= outputs;
  return result;
}

}  // namespace salient
