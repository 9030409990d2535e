#include "awq/width_errors.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "awq/layer_statistics.h"
#include "awq/scaled_layer.h"
#include "base/error.h"
#include "base/parallel.h"
#include "base/process.h"

namespace salient {
namespace {

constexpr int64_t kRowsPerBlock = 2048;

/// Q(W s) / s - W for rows [begin, end) of `weight` f32 [out, in], s being `scales` [in].
Tensor rounding_errors(const RoundingRule& rule, const Tensor& weight, std::span<const float> scales,
                       int64_t begin, int64_t end) {
  constexpr size_t kRowsPerChunk = 16;
  Tensor result = Tensor::empty(DType::f32, {end - begin, weight.dim(1)});
  const auto columns = static_cast<size_t>(weight.dim(1));
  const auto source = weight.values<float>().subspan(static_cast<size_t>(begin) * columns);
  const auto target = result.mutable_values<float>();
  parallel_for(static_cast<size_t>(end - begin), kRowsPerChunk, [&](size_t from, size_t to) {
    for (size_t row = from; row < to; ++row) {
      const auto values = source.subspan(row * columns, columns);
      const auto errors = target.subspan(row * columns, columns);
      for (size_t c = 0; c < columns; ++c) errors[c] = values[c] * scales[c];
      fake_quantize_row(rule, errors, {}, errors);
      for (size_t c = 0; c < columns; ++c) errors[c] = errors[c] / scales[c] - values[c];
    }
  });
  return result;
}

/// The sum of x G x^T over the rows of a matrix that is made block by block.
template <typename RowsOf>
double sum_of_forms(Backend& backend, const GramMatrix& gram, int64_t rows, RowsOf rows_of) {
  double total = 0;
  for (int64_t begin = 0; begin < rows; begin += kRowsPerBlock) {
    const int64_t end = std::min(rows, begin + kRowsPerBlock);
    std::vector<double> forms(static_cast<size_t>(end - begin));
    gram.quadratic_form(backend, rows_of(begin, end), forms);
    total = std::accumulate(forms.begin(), forms.end(), total);
  }
  return total;
}

/// mean over tokens of |changed - reference|^2 / |reference|^2, both [tokens, hidden].
double relative_change(const Tensor& reference, const Tensor& changed) {
  const auto before = reference.values<float>();
  const auto after = changed.values<float>();
  const auto hidden = static_cast<size_t>(reference.dim(1));
  double sum = 0;
  for (size_t begin = 0; begin < before.size(); begin += hidden) {
    double error = 0;
    double signal = 0;
    for (size_t i = begin; i < begin + hidden; ++i) {
      const double difference = double{after[i]} - double{before[i]};
      error += difference * difference;
      signal += double{before[i]} * double{before[i]};
    }
    if (signal > 0) sum += error / signal;
  }
  return sum / static_cast<double>(std::max<int64_t>(1, reference.dim(0)));
}

/// What a change of the stream by queries and keys counts more than others: they move attention from some
/// tokens to others, which later layers do not average away. Measured by rounding one set after the other and
/// looking at the model's output (docs/measurements.md).
constexpr double kAttentionFactor = 4;

double factor_of(std::span<const LinearId> set) {
  const bool decides = std::ranges::any_of(set, [](const LinearId& id) {
    return id.role == LinearRole::q || id.role == LinearRole::k || id.role == LinearRole::q_a ||
           id.role == LinearRole::q_b;
  });
  return decides ? kAttentionFactor : 1;
}

/// Measures the linears of one layer.
class LayerMeasure {
 public:
  LayerMeasure(const LayerJob& job, const LayerWeights& original, const LayerStatistics& statistics)
      : job_(job), original_(original), statistics_(statistics), unscaled_(job.spec, original) {}

  /// The set's errors, relative to those with kReferenceBits; `rounded` gets its linears with those.
  WidthErrors run(std::span<const LinearId> set, LayerWeights& rounded) {
    WidthErrors sum{};
    for (const LinearId& id : set) {
      with_context(job_.spec.linear_name(job_.layer, id), [&] { add(id, rounded, sum); });
    }
    const double reference = sum[kReferenceBits - kLeastBits];
    // What 4 bits hold exactly changes nothing at 4 bits, so that its own errors have to stand for the
    // change.
    if (reference > 0) {
      for (double& error : sum) error /= reference;
    }
    return sum;
  }

 private:
  /// Experts of a set come one after another, gate, up and down of each.
  const ActivationStatistics& input_of(const LinearId& id) {
    if (!is_expert(id.role)) return statistics_.of(id);
    if (!expert_ || expert_->first != id.expert) {
      expert_.reset();
      expert_.emplace(id.expert, statistics_.of_expert(id.expert));
    }
    return id.role == LinearRole::expert_down ? expert_->second.hidden : expert_->second.input;
  }

  void add(const LinearId& id, LayerWeights& rounded, WidthErrors& sum) {
    const ActivationStatistics& input = input_of(id);
    const Tensor weight = unscaled_.weight(id);
    const double signal = sum_of_forms(job_.backend, input.gram(), weight.dim(0),
                                       [&](int64_t begin, int64_t end) { return weight.slice(begin, end); });
    if (!std::isfinite(signal)) {
      fail(ErrorKind::invalid_argument, "the squared outputs add up to {}: weights or inputs are not finite",
           signal);
    }
    if (signal <= 0) return;
    for (size_t i = 0; i < kBitWidths; ++i) {
      throw_if_cancelled(job_.cancelled);
      const int num_bits = kLeastBits + static_cast<int>(i);
      const Candidate best = best_of(id, weight, input, num_bits);
      sum[i] += best.error / signal;
      if (num_bits == kReferenceBits) {
        Tensor changed = rounding_errors(best.rule, weight, best.scales, 0, weight.dim(0));
        const auto values = changed.mutable_values<float>();
        const auto source = weight.values<float>();
        for (size_t k = 0; k < values.size(); ++k) values[k] += source[k];
        rounded[id].dense = changed.to(original_[id].dense.dtype());
      }
    }
  }

  struct Candidate {
    RoundingRule rule;
    std::vector<float> scales;  // [in]
    double error;
  };

  Candidate best_of(const LinearId& id, const Tensor& weight, const ActivationStatistics& input,
                    int num_bits) const {
    RoundingRule rule{.scheme = job_.linears.at(id).scheme,
                      .scale_dtype = job_.storage.value_or(original_[id].dense.dtype())};
    rule.scheme.num_bits = num_bits;
    std::optional<Candidate> best;
    for (std::vector<float>& scales : scales_of(id, input)) {
      const RoundingRule own = rule_for_matrix(rule, weight, scales);
      const double error = sum_of_forms(
          job_.backend, input.gram(), weight.dim(0),
          [&](int64_t begin, int64_t end) { return rounding_errors(own, weight, scales, begin, end); });
      // In f32 the form of tiny errors may come out below 0.
      if (!best || error < best->error) best = Candidate{own, std::move(scales), std::max(0.0, error)};
    }
    return *best;
  }

  /// What the smoothing may come to, each divided by the middle of its extremes.
  std::vector<std::vector<float>> scales_of(const LinearId& id, const ActivationStatistics& input) const {
    std::vector<std::vector<float>> candidates{
        std::vector<float>(static_cast<size_t>(input.features()), 1.0f)};
    const bool smoothed = std::ranges::any_of(job_.mappings, [&](const ResolvedMapping& mapping) {
      return std::ranges::find(mapping.balance, id) != mapping.balance.end();
    });
    if (!smoothed) return candidates;
    std::vector<float> scales = input.mean_absolute();
    for (float& scale : scales) scale = std::sqrt(std::max(scale, 1e-8f));
    const float middle = std::sqrt(std::ranges::min(scales) * std::ranges::max(scales));
    for (float& scale : scales) scale /= middle;
    candidates.push_back(std::move(scales));
    return candidates;
  }

  const LayerJob& job_;
  const LayerWeights& original_;
  const LayerStatistics& statistics_;
  ScaledLayer unscaled_;
  std::optional<std::pair<int64_t, ExpertStatistics>> expert_;
};

}  // namespace

std::vector<WidthErrors> measure_widths(const LayerJob& job, const LayerWeights& original,
                                        std::span<const std::vector<LinearId>> sets, LayerStream& stream) {
  LayerStatistics statistics(job, original, stream.tokens());
  const LinearObserver observer = statistics.observer();
  const Tensor input = stream.probe_input();
  const PreparedLayer prepared = prepare_layer(job.backend, original);
  const Tensor reference = stream.probe(job.backend, job.layer, prepared, input);
  stream.advance(job.layer, prepared, &observer);
  LayerMeasure measure(job, original, statistics);
  std::vector<WidthErrors> result;
  for (const std::vector<LinearId>& set : sets) {
    LayerWeights rounded = original;
    WidthErrors errors = measure.run(set, rounded);
    const Tensor changed = stream.probe(job.backend, job.layer, prepare_layer(job.backend, rounded), input);
    const bool exact = errors[kReferenceBits - kLeastBits] == 0;
    const double change = exact ? 1 : relative_change(reference, changed);
    for (double& error : errors) error *= factor_of(set) * change;
    result.push_back(errors);
    return_free_memory();
  }
  return result;
}

}  // namespace salient
