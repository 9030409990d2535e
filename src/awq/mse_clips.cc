#include "awq/mse_clips.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/parallel.h"

namespace salient {
namespace {

double error_of(const RoundingRule& rule, std::span<const float> weights, float clip, double norm,
                std::span<float> rounded) {
  fake_quantize_row(rule, weights, {&clip, 1}, rounded);
  double sum = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    sum += std::pow(std::fabs(static_cast<double>(rounded[i]) - static_cast<double>(weights[i])), norm);
  }
  return sum;
}

/// `rule` takes the group for a whole row.
float best_clip(const RoundingRule& rule, std::span<const float> weights, const ObserverSettings& settings,
                std::span<float> rounded) {
  float largest = 0;
  for (const float value : weights) largest = std::max(largest, std::fabs(value));
  float best = largest;
  double least = std::numeric_limits<double>::infinity();
  int in_vain = 0;
  const auto candidates = static_cast<int>(settings.maxshrink * settings.grid);
  for (int i = 0; i < std::max(1, candidates) && in_vain < settings.patience; ++i) {
    const auto clip = static_cast<float>(static_cast<double>(largest) * (1 - i / settings.grid));
    const double error = error_of(rule, weights, clip, settings.norm, rounded);
    ++in_vain;
    if (!(error < least)) continue;
    least = error;
    best = clip;
    in_vain = 0;
  }
  return best;
}

}  // namespace

Tensor search_mse_clips(const RoundingRule& rule, const Tensor& weight, const ObserverSettings& settings) {
  const int64_t groups = group_count(rule.scheme, weight.dim(1));
  const auto width = static_cast<size_t>(group_width(rule.scheme, weight.dim(1)));
  const auto columns = static_cast<size_t>(weight.dim(1));
  Tensor clips = Tensor::empty(DType::f32, {weight.dim(0), groups});
  const auto clip = clips.mutable_values<float>();
  const auto values = weight.values<float>();
  RoundingRule of_group = rule;
  of_group.scheme.group_size = QuantizationScheme::kWholeRow;
  parallel_for(clip.size(), 16, [&](size_t begin, size_t end) {
    std::vector<float> rounded(width);
    for (size_t i = begin; i < end; ++i) {
      const size_t row = i / static_cast<size_t>(groups);
      const size_t column = i % static_cast<size_t>(groups) * width;
      const size_t count = std::min(width, columns - column);
      clip[i] = best_clip(of_group, values.subspan(row * columns + column, count), settings,
                          std::span(rounded).first(count));
    }
  });
  return clips;
}

}  // namespace salient
