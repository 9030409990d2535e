#include "awq/awq.h"

#include <cmath>

#include "awq/apply.h"
#include "awq/clip_search.h"
#include "awq/compensated_rounding.h"
#include "awq/mapping.h"
#include "awq/scale_search.h"
#include "base/error.h"
#include "quant/group_quantize.h"

namespace salient {
namespace {

constexpr double kEquivalenceLimit = 1e-3;

using LayerStatistics = std::array<std::optional<ActivationStatistics>, kLinearRoles>;
using RoundedLinears = std::array<std::optional<QuantizedWeight>, kLinearRoles>;

size_t index(LinearRole role) { return static_cast<size_t>(role); }

DType storage_of(const LayerJob& job, const Tensor& original) {
  return job.storage.value_or(original.dtype());
}

RoundingRule rounding_rule(const LayerJob& job, const LinearWeight& original) {
  return {.scheme = job.scheme, .scale_dtype = storage_of(job, original.dense)};
}

LinearObserver collector(const LayerJob& job, LayerStatistics& statistics) {
  return [&job, &statistics](LinearRole role, const Tensor& input) {
    if (input_representative(role) != role) return;
    auto& entry = statistics[index(role)];
    if (!entry) entry.emplace(input.dim(1));
    entry->add(job.backend, job.precision, input);
  };
}

const ActivationStatistics& input_statistics(const LayerStatistics& statistics, LinearRole role) {
  return *statistics[index(input_representative(role))];
}

/// One layer on its way through the search: weights change, and with them the inputs that the statistics
/// describe.
class LayerSearch {
 public:
  LayerSearch(const LayerJob& job, const AwqModifier& settings, const LayerWeights& original,
              const LayerStatistics& statistics)
      : job_(job),
        settings_(settings),
        original_(original),
        statistics_(statistics),
        weights_(to_f32(original)) {
    for (const auto& slot : job.spec.linears(job.layer)) {
      column_scales_[index(slot.role)].assign(static_cast<size_t>(slot.in_features), 1.0f);
    }
  }

  const LayerWeights& weights() const { return weights_; }

  MappingReport smooth(const ResolvedMapping& mapping) {
    MappingReport report{.mapping = mapping.describe(job_.spec)};
    report.left_alone = true;
    if (!any_quantized(mapping)) return report;
    const ScaleSearchResult found = with_context(fmt::format("layer {}: {}", job_.layer, report.mapping),
                                                 [&] { return search(mapping); });
    report.loss_before = found.loss_identity;
    report.loss_after = found.loss;
    report.ratio = found.ratio;
    report.duo = found.duo;
    report.left_alone = found.identity;
    if (!found.identity) apply(mapping, found.scales);
    return report;
  }

  RoundedLinears round(LayerReport& report) const {
    RoundedLinears rounded;
    for (const auto& slot : job_.spec.linears(job_.layer)) {
      if (!job_.quantized[index(slot.role)]) continue;
      throw_if_cancelled(job_.cancelled);
      rounded[index(slot.role)] = with_context(slot.name, [&] { return round(slot.role, report); });
    }
    return rounded;
  }

 private:
  bool any_quantized(const ResolvedMapping& mapping) const {
    for (const LinearRole role : mapping.balance) {
      if (job_.quantized[index(role)]) return true;
    }
    return false;
  }

  QuantizedWeight round(LinearRole role, LayerReport& report) const {
    const Tensor& weight = weights_[role].dense;
    const RoundingRule rule = rounding_rule(job_, original_[role]);
    const auto& input = input_statistics(statistics_, role);
    const Tensor gram = scaled_gram(input.gram(), column_scales_[index(role)]);
    Tensor clip;
    if (settings_.clip == ClipSearch::on && may_clip(role)) {
      const ClipSearchResult found = search_clips({.backend = job_.backend,
                                                   .rounding = rule,
                                                   .weight = weight,
                                                   .gram = gram,
                                                   .tokens = input.tokens(),
                                                   .cancelled = job_.cancelled});
      clip = found.clip;
      report.clip_loss_before += found.loss_before;
      report.clip_loss_after += found.loss_after;
    }
    if (settings_.rounding == Rounding::nearest) {
      return quantize_to_nearest(weight, clip, rule.scheme, rule.scale_dtype);
    }
    return round_compensated({.backend = job_.backend,
                              .rounding = rule,
                              .weight = weight,
                              .clip = clip,
                              .gram = gram,
                              .tokens = input.tokens(),
                              .cancelled = job_.cancelled});
  }

  /// AutoAWQ leaves q and k alone: their outputs meet in a product before the softmax, where clipping hurts.
  static bool may_clip(LinearRole role) { return role != LinearRole::q && role != LinearRole::k; }

  ScaleSearchResult search(const ResolvedMapping& mapping) const {
    std::vector<BalanceLayer> layers;
    for (const LinearRole role : mapping.balance) {
      layers.push_back({.weight = weights_[role].dense, .quantized = job_.quantized[index(role)]});
    }
    const LinearRole first = mapping.balance.front();
    const auto columns = static_cast<size_t>(weights_[first].in_features());
    std::vector<int64_t> channel_of(columns);
    for (size_t c = 0; c < columns; ++c)
      channel_of[c] = smooth_channel(job_.spec, mapping, static_cast<int64_t>(c));
    const SmoothStorage storage = smooth_storage(mapping);
    return search_scales(
        {.backend = job_.backend,
         .rounding = rounding_rule(job_, original_[first]),
         .layers = layers,
         .input = input_statistics(statistics_, first),
         .channel_of = channel_of,
         .channels = smooth_channel_count(job_.spec, mapping),
         .make_representable =
             [&](std::span<float> scales) { make_representable(weights_, mapping, storage, scales); },
         .duo_scaling = settings_.duo_scaling,
         .n_grid = settings_.n_grid,
         .cancelled = job_.cancelled});
  }

  SmoothStorage smooth_storage(const ResolvedMapping& mapping) const {
    if (const auto* norm = std::get_if<NormRole>(&mapping.smooth)) {
      return {.stored = storage_of(job_, original_[*norm]), .smooth_quantized = false};
    }
    const LinearRole role = std::get<LinearRole>(mapping.smooth);
    return {.stored = storage_of(job_, original_[role].dense),
            .smooth_quantized = job_.quantized[index(role)]};
  }

  void apply(const ResolvedMapping& mapping, std::span<const float> scales) {
    apply_scales(job_.spec, mapping, scales, weights_);
    for (const LinearRole role : mapping.balance) {
      auto& column_scales = column_scales_[index(role)];
      for (size_t c = 0; c < column_scales.size(); ++c) {
        column_scales[c] *=
            scales[static_cast<size_t>(smooth_channel(job_.spec, mapping, static_cast<int64_t>(c)))];
      }
    }
  }

  const LayerJob& job_;
  const AwqModifier& settings_;
  const LayerWeights& original_;
  const LayerStatistics& statistics_;
  LayerWeights weights_;
  std::array<std::vector<float>, kLinearRoles>
      column_scales_;  // what each linear's input has been divided by
};

/// The f32 weights of a layer in the types in which they are written.
LayerWeights store_layer(const LayerJob& job, const LayerWeights& original, const LayerWeights& weights,
                         RoundedLinears rounded) {
  LayerWeights stored;
  for (const auto& slot : job.spec.linears(job.layer)) {
    const LinearWeight& from = weights[slot.role];
    LinearWeight& to = stored[slot.role];
    with_context(slot.name, [&] {
      const RoundingRule rule = rounding_rule(job, original[slot.role]);
      if (job.quantized[index(slot.role)]) {
        to.quantized = std::move(rounded[index(slot.role)]);
      } else {
        to.dense = store_as("weight", from.dense, rule.scale_dtype);
      }
      if (from.bias.defined())
        to.bias = store_as("bias", from.bias, storage_of(job, original[slot.role].bias));
    });
  }
  for (size_t i = 0; i < kNormRoles; ++i) {
    if (!weights.norms[i].defined()) continue;
    const std::string name = job.spec.norm_name(job.layer, static_cast<NormRole>(i));
    stored.norms[i] = store_as(name, weights.norms[i], storage_of(job, original.norms[i]));
  }
  return stored;
}

void check_equivalence(const LayerJob& job, double error) {
  if (error <= kEquivalenceLimit) return;
  fail(ErrorKind::internal,
       "layer {}: smoothing changed what the layer computes by {:.2e} (limit {:.0e}): a mapping misses a "
       "consumer of the "
       "smoothed tensor, or the scales overflow",
       job.layer, error, kEquivalenceLimit);
}

}  // namespace

double equivalence_error(const Tensor& input, const Tensor& reference, const Tensor& changed) {
  const auto x = input.values<float>();
  const auto y = reference.values<float>();
  const auto z = changed.values<float>();
  double difference = 0;
  double update = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    difference += std::pow(static_cast<double>(z[i]) - static_cast<double>(y[i]), 2);
    update += std::pow(static_cast<double>(y[i]) - static_cast<double>(x[i]), 2);
  }
  if (difference == 0) return 0;
  return std::sqrt(difference /
                   update);  // infinity or NaN when the layer does nothing: never passes the check
}

QuantizedLayer round_layer(const LayerJob& job, const LayerWeights& original) {
  const LayerWeights weights = to_f32(original);
  RoundedLinears rounded;
  for (const auto& slot : job.spec.linears(job.layer)) {
    if (!job.quantized[index(slot.role)]) continue;
    const RoundingRule rule = rounding_rule(job, original[slot.role]);
    rounded[index(slot.role)] = with_context(slot.name, [&] {
      return quantize_to_nearest(weights[slot.role].dense, {}, rule.scheme, rule.scale_dtype);
    });
  }
  return {.weights = store_layer(job, original, weights, std::move(rounded)), .report = {.layer = job.layer}};
}

QuantizedLayer quantize_layer(const LayerJob& job, const AwqModifier& settings, const LayerWeights& original,
                              LayerStream& stream) {
  LayerStatistics statistics;
  const LinearObserver observer = collector(job, statistics);
  Tensor probe_input;
  Tensor reference;
  {
    const PreparedLayer exact = prepare_layer(job.exact, original);
    probe_input = stream.probe_input();
    reference = stream.probe(job.exact, job.layer, exact, probe_input);
    const PreparedLayer prepared = prepare_layer(job.backend, original);
    if (job.propagation == Propagation::original) {
      stream.advance(job.layer, prepared, &observer);
    } else {
      stream.observe(job.layer, prepared, observer);
    }
  }
  QuantizedLayer result{.weights = {}, .report = {.layer = job.layer}};
  {
    LayerSearch search(job, settings, original, statistics);
    for (const auto& mapping : default_mappings(job.spec))
      result.report.mappings.push_back(search.smooth(mapping));
    const PreparedLayer smoothed = prepare_layer(job.exact, search.weights());
    const Tensor changed = stream.probe(job.exact, job.layer, smoothed, probe_input);
    result.report.equivalence_error = equivalence_error(probe_input, reference, changed);
    check_equivalence(job, result.report.equivalence_error);
    result.weights = store_layer(job, original, search.weights(), search.round(result.report));
  }
  if (job.propagation == Propagation::quantized) {
    stream.advance(job.layer, prepare_layer(job.backend, result.weights));
  }
  return result;
}

}  // namespace salient
