#include "awq/clip_search.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/parallel.h"

namespace salient {
namespace {

constexpr int kCandidates = 10;
constexpr float kStep = 0.05f;
constexpr size_t kRowsPerChunk = 32;

/// The columns [begin, begin + width) of a matrix, contiguous.
Tensor copy_columns(const Tensor& matrix, int64_t begin, int64_t width) {
  Tensor block = Tensor::empty(DType::f32, {matrix.dim(0), width});
  const auto from = matrix.values<float>();
  const auto to = block.mutable_values<float>();
  const auto stride = static_cast<size_t>(matrix.dim(1));
  for (size_t row = 0; row < static_cast<size_t>(matrix.dim(0)); ++row) {
    std::copy_n(from.begin() + row * stride + static_cast<size_t>(begin), width,
                to.begin() + row * static_cast<size_t>(width));
  }
  return block;
}

/// One group of columns of the weight, for all rows at once.
class GroupSearch {
 public:
  GroupSearch(const ClipSearchProblem& problem, int64_t group)
      : problem_(problem),
        group_(static_cast<size_t>(group)),
        width_(group_width(problem.rounding.scheme, problem.weight.dim(1))),
        weight_(copy_columns(problem.weight, group * width_, width_)),
        gram_(copy_columns(problem.gram.slice(group * width_, (group + 1) * width_), group * width_, width_)),
        difference_(Tensor::empty(DType::f32, weight_.shape())),
        largest_(static_cast<size_t>(weight_.dim(0))),
        loss_(largest_.size()),
        best_loss_(largest_.size()),
        first_loss_(largest_.size()),
        best_shrink_(largest_.size(), 1.0f) {}

  void run() {
    const auto values = weight_.values<float>();
    for (size_t row = 0; row < largest_.size(); ++row) {
      for (const float value : values.subspan(row * width(), width()))
        largest_[row] = std::max(largest_[row], std::fabs(value));
    }
    for (int i = 0; i < kCandidates; ++i) try_shrink(1.0f - kStep * static_cast<float>(i), i == 0);
  }

  void store(ClipSearchResult& result) const {
    const auto clip = result.clip.mutable_values<float>();
    const auto groups = static_cast<size_t>(result.clip.dim(1));
    for (size_t row = 0; row < largest_.size(); ++row) {
      clip[row * groups + group_] = largest_[row] * best_shrink_[row];
      result.loss_before += first_loss_[row];
      result.loss_after += best_loss_[row];
    }
  }

 private:
  size_t width() const { return static_cast<size_t>(width_); }

  void try_shrink(float shrink, bool first) {
    const auto values = weight_.values<float>();
    const auto difference = difference_.mutable_values<float>();
    // The group stands alone here, so it is a whole row to the rounding.
    RoundingRule rule = problem_.rounding;
    rule.scheme.group_size = QuantizationScheme::kWholeRow;
    parallel_for(largest_.size(), kRowsPerChunk, [&](size_t begin, size_t end) {
      for (size_t row = begin; row < end; ++row) {
        const float clip = largest_[row] * shrink;
        const auto source = values.subspan(row * width(), width());
        const auto target = difference.subspan(row * width(), width());
        fake_quantize_row(rule, source, {&clip, 1}, target);
        for (size_t c = 0; c < width(); ++c) target[c] -= source[c];
      }
    });
    problem_.backend.quadratic_form(difference_, gram_, loss_);
    if (first) first_loss_ = loss_;
    for (size_t row = 0; row < loss_.size(); ++row) {
      if (!first && !(loss_[row] < best_loss_[row])) continue;
      best_loss_[row] = loss_[row];
      best_shrink_[row] = shrink;
    }
  }

  const ClipSearchProblem& problem_;
  size_t group_;
  int64_t width_;
  Tensor weight_;      // [out, width]
  Tensor gram_;        // [width, width]
  Tensor difference_;  // [out, width]
  std::vector<float> largest_;
  std::vector<double> loss_;
  std::vector<double> best_loss_;
  std::vector<double> first_loss_;
  std::vector<float> best_shrink_;
};

}  // namespace

ClipSearchResult search_clips(const ClipSearchProblem& problem) {
  const int64_t groups = group_count(problem.rounding.scheme, problem.weight.dim(1));
  ClipSearchResult result;
  result.clip = Tensor::empty(DType::f32, {problem.weight.dim(0), groups});
  for (int64_t group = 0; group < groups; ++group) {
    throw_if_cancelled(problem.cancelled);
    GroupSearch search(problem, group);
    search.run();
    search.store(result);
  }
  const double outputs =
      static_cast<double>(std::max<int64_t>(1, problem.tokens)) * static_cast<double>(problem.weight.dim(0));
  result.loss_before /= outputs;
  result.loss_after /= outputs;
  return result;
}

}  // namespace salient
