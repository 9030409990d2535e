#include "awq/clip_search.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "awq/trials_at_once.h"
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

/// The best clips so far.
class ClipSearch {
 public:
  explicit ClipSearch(const ClipSearchProblem& problem)
      : problem_(problem),
        largest_tensor_(largest_of_groups(problem.weight, problem.rounding.scheme)),
        largest_(largest_tensor_.values<float>()),
        best_(largest_.size()),
        result_{.clip = largest_tensor_.to(DType::f32)} {}

  ClipSearchResult run() {
    const int64_t width = group_width(problem_.rounding.scheme, problem_.weight.dim(1));
    const int64_t products = problem_.weight.element_count() * width;
    const int64_t at_once = trials_at_once(products, clips_at_once(std::ssize(largest_)));
    for (int64_t begin = 0; begin < kCandidates; begin += at_once) {
      throw_if_cancelled(problem_.cancelled);
      judge(begin, std::min<int64_t>(at_once, kCandidates - begin));
    }
    result_.loss_after = sum_of(best_);
    const double outputs = static_cast<double>(std::max<int64_t>(1, problem_.tokens)) *
                           static_cast<double>(problem_.weight.dim(0));
    result_.loss_before /= outputs;
    result_.loss_after /= outputs;
    return std::move(result_);
  }

 private:
  Tensor bounds(int64_t candidate) const {
    Tensor tried = Tensor::empty(DType::f32, largest_tensor_.shape());
    const auto bound = tried.mutable_values<float>();
    for (size_t group = 0; group < bound.size(); ++group)
      bound[group] = largest_[group] * (1.0f - kStep * static_cast<float>(candidate));
    return tried;
  }

  void judge(int64_t begin, int64_t count) {
    std::vector<RoundingTrial> trials;
    for (int64_t i = begin; i < begin + count; ++i)
      trials.push_back({.rule = problem_.rounding, .weight = problem_.weight, .clip = bounds(i)});
    std::vector<double> losses(largest_.size() * trials.size());
    problem_.gram.rounding_losses_by_group(problem_.backend, trials, losses);
    for (size_t i = 0; i < trials.size(); ++i) {
      const auto own = std::span(losses).subspan(i * largest_.size(), largest_.size());
      if (begin + static_cast<int64_t>(i) == 0) {
        std::ranges::copy(own, best_.begin());
        result_.loss_before = sum_of(own);
      }
      keep_better(trials[i].clip, own);
    }
  }

  void keep_better(const Tensor& tried, std::span<const double> loss) {
    const auto bound = tried.values<float>();
    const auto clip = result_.clip.mutable_values<float>();
    for (size_t group = 0; group < loss.size(); ++group) {
      if (!(loss[group] < best_[group])) continue;
      best_[group] = loss[group];
      clip[group] = bound[group];
    }
  }

  const ClipSearchProblem& problem_;
  const Tensor largest_tensor_;
  const std::span<const float> largest_;
  std::vector<double> best_;
  ClipSearchResult result_;
};

}  // namespace

int64_t clips_at_once(int64_t groups) {
  constexpr int64_t kMostBytes = int64_t{16} << 20;
  constexpr int64_t kBytesOfGroup = sizeof(float) + sizeof(double);
  return std::clamp<int64_t>(kMostBytes / (std::max<int64_t>(1, groups) * kBytesOfGroup), 1, kCandidates);
}

ClipSearchResult search_clips(const ClipSearchProblem& problem) { return ClipSearch(problem).run(); }

}  // namespace salient
