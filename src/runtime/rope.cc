#include "runtime/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/parallel.h"

namespace salient {
namespace {

/// theta^(-2i/d), Su et al. 2021.
std::vector<double> base_frequencies(double theta, int64_t rotary_dim) {
  std::vector<double> result;
  for (int64_t i = 0; i < rotary_dim; i += 2) {
    result.push_back(std::pow(theta, -static_cast<double>(i) / static_cast<double>(rotary_dim)));
  }
  return result;
}

/// NTK-aware scaling: the base grows with the sequence so that the slowest pair just reaches the new length.
double dynamic_theta(const RopeSpec& spec, int64_t sequence_length) {
  const auto limit = static_cast<double>(spec.max_position_embeddings);
  const double length = std::max(static_cast<double>(sequence_length), limit);
  const auto dim = static_cast<double>(spec.rotary_dim);
  return spec.theta * std::pow(spec.factor * length / limit - (spec.factor - 1), dim / (dim - 2));
}

/// Llama 3.1: long waves are stretched by the factor, short ones kept, a linear blend between.
void scale_llama3(const RopeSpec& spec, std::vector<double>& frequencies) {
  const auto original = static_cast<double>(spec.original_max_position_embeddings);
  for (double& frequency : frequencies) {
    const double turns = original * frequency / (2 * std::numbers::pi);  // within the original context
    const double blend =
        (turns - spec.low_frequency_factor) / (spec.high_frequency_factor - spec.low_frequency_factor);
    const double kept = std::clamp(blend, 0.0, 1.0);
    frequency = (1 - kept) * frequency / spec.factor + kept * frequency;
  }
}

/// The pair (as a real number) that turns `turns` times within the original context.
double yarn_pair(const RopeSpec& spec, double turns) {
  const auto original = static_cast<double>(spec.original_max_position_embeddings);
  return static_cast<double>(spec.rotary_dim) * std::log(original / (turns * 2 * std::numbers::pi)) /
         (2 * std::log(spec.theta));
}

/// Peng et al. 2023, NTK-by-parts: pairs below `low` keep their frequency, those above `high` are
/// interpolated.
void scale_yarn(const RopeSpec& spec, std::vector<double>& frequencies) {
  double low = yarn_pair(spec, spec.beta_fast);
  double high = yarn_pair(spec, spec.beta_slow);
  if (spec.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(spec.rotary_dim - 1));
  if (low == high) high += 0.001;  // transformers' guard against a division by zero
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double interpolated = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequencies[i] = frequencies[i] / spec.factor * interpolated + frequencies[i] * (1 - interpolated);
  }
}

void scale_longrope(const RopeSpec& spec, int64_t sequence_length, std::vector<double>& frequencies) {
  const bool is_long = sequence_length > spec.original_max_position_embeddings;
  const auto& factors = is_long ? spec.long_factor : spec.short_factor;
  for (size_t i = 0; i < frequencies.size(); ++i) frequencies[i] /= factors[i];
}

double yarn_mscale(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

}  // namespace

std::vector<float> rope_frequencies(const RopeSpec& spec, int64_t sequence_length) {
  const bool dynamic = spec.scaling == RopeScaling::dynamic;
  auto frequencies =
      base_frequencies(dynamic ? dynamic_theta(spec, sequence_length) : spec.theta, spec.rotary_dim);
  switch (spec.scaling) {
    case RopeScaling::none:
    case RopeScaling::dynamic:
      break;
    case RopeScaling::linear:
      for (double& frequency : frequencies) frequency /= spec.factor;
      break;
    case RopeScaling::llama3:
      scale_llama3(spec, frequencies);
      break;
    case RopeScaling::yarn:
      scale_yarn(spec, frequencies);
      break;
    case RopeScaling::longrope:
      scale_longrope(spec, sequence_length, frequencies);
      break;
  }
  return {frequencies.begin(), frequencies.end()};
}

double rope_attention_factor(const RopeSpec& spec) {
  if (spec.scaling != RopeScaling::yarn && spec.scaling != RopeScaling::longrope) return 1.0;
  if (spec.attention_factor) return *spec.attention_factor;
  if (spec.scaling == RopeScaling::longrope) {
    const auto original = static_cast<double>(spec.original_max_position_embeddings);
    return spec.factor <= 1 ? 1.0 : std::sqrt(1 + std::log(spec.factor) / std::log(original));
  }
  if (spec.mscale && spec.mscale_all_dim) {
    return yarn_mscale(spec.factor, *spec.mscale) / yarn_mscale(spec.factor, *spec.mscale_all_dim);
  }
  return yarn_mscale(spec.factor, 1.0);
}

RopeTable::RopeTable(const RopeSpec& spec, std::span<const RopeSpan> spans) {
  int64_t rows = 0;
  for (const RopeSpan& span : spans) rows += span.count;
  const int64_t pairs = spec.rotary_dim / 2;
  cosine_ = Tensor::empty(DType::f32, {rows, pairs});
  sine_ = Tensor::empty(DType::f32, {rows, pairs});
  const auto factor = rope_attention_factor(spec);
  float* cosine = cosine_.mutable_values<float>().data();
  float* sine = sine_.mutable_values<float>().data();
  for (const RopeSpan& span : spans) {
    const auto frequencies = rope_frequencies(spec, span.sequence_length);
    constexpr size_t kGrain = 64;
    parallel_for(static_cast<size_t>(span.count), kGrain, [&](size_t begin, size_t end) {
      for (size_t row = begin; row < end; ++row) {
        for (size_t pair = 0; pair < frequencies.size(); ++pair) {
          // The angle is rounded to f32 because models were trained with angles in f32.
          const auto position = static_cast<float>(span.first_position + static_cast<int64_t>(row));
          const double angle = position * frequencies[pair];
          cosine[row * frequencies.size() + pair] = static_cast<float>(std::cos(angle) * factor);
          sine[row * frequencies.size() + pair] = static_cast<float>(std::sin(angle) * factor);
        }
      }
    });
    cosine += span.count * pairs;
    sine += span.count * pairs;
  }
}

}  // namespace salient
