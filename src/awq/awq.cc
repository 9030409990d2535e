#include "awq/awq.h"

#include <algorithm>
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

using RoundedLinears = PerLinear<QuantizedWeight>;

DType storage_of(const LayerJob& job, const Tensor& original) {
  return job.storage.value_or(original.dtype());
}

/// Nothing for a linear that stays dense.
std::optional<RoundingRule> rounding_rule(const LayerJob& job, const LinearId& id,
                                          const LayerWeights& original) {
  const auto rounding = job.linears.find(id);
  if (rounding == job.linears.end()) return std::nullopt;
  const LinearWeight& weight = original[id];
  return RoundingRule{.scheme = rounding->second.scheme, .scale_dtype = storage_of(job, weight.dense)};
}

/// What each linear's input looks like; one entry for all linears that share it.
class LayerStatistics {
 public:
  explicit LayerStatistics(const LayerJob& job)
      : job_(job), representatives_(input_representatives(job.spec, job.layer)) {}

  LinearObserver observer() {
    return [this](const LinearId& id, const Tensor& input) {
      if (representatives_.at(id) != id) return;
      const auto [entry, is_new] = inputs_.try_emplace(id, input.dim(1));
      entry->second.add(job_.backend, job_.precision, input);
    };
  }

  /// Null for an expert that saw no token.
  const ActivationStatistics* find(const LinearId& id) const {
    const auto found = inputs_.find(representatives_.at(id));
    return found == inputs_.end() ? nullptr : &found->second;
  }

 private:
  const LayerJob& job_;
  PerLinear<LinearId> representatives_;
  PerLinear<ActivationStatistics> inputs_;
};

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
      column_scales_[slot.id].assign(static_cast<size_t>(slot.in_features), 1.0f);
    }
  }

  const LayerWeights& weights() const { return weights_; }

  MappingReport smooth(const ResolvedMapping& mapping) {
    MappingReport report{.mapping = mapping.describe(job_.spec)};
    report.left_alone = true;
    if (!any_quantized(mapping) || statistics_.find(mapping.balance.front()) == nullptr) return report;
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
      if (!job_.linears.contains(slot.id)) continue;
      throw_if_cancelled(job_.cancelled);
      rounded[slot.id] = with_context(slot.name, [&] { return round(slot.id, report); });
    }
    return rounded;
  }

 private:
  bool any_quantized(const ResolvedMapping& mapping) const {
    return std::any_of(mapping.balance.begin(), mapping.balance.end(),
                       [&](const LinearId& id) { return job_.linears.contains(id); });
  }

  QuantizedWeight round(const LinearId& id, LayerReport& report) const {
    const Tensor& weight = weights_[id].dense;
    const RoundingRule rule = *rounding_rule(job_, id, original_);
    const ActivationStatistics* seen = statistics_.find(id);
    if (seen == nullptr) return quantize_to_nearest(weight, {}, rule.scheme, rule.scale_dtype);
    const ActivationStatistics& input = *seen;
    const Tensor gram = scaled_gram(input.gram(), column_scales_.at(id));
    Tensor clip;
    if (settings_.clip == ClipSearch::on && may_clip(id.role, rule.scheme)) {
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
  /// A grid of the whole matrix has no bound of each row that could be searched.
  static bool may_clip(LinearRole role, const QuantizationScheme& scheme) {
    return scheme.group_size != QuantizationScheme::kWholeMatrix && role != LinearRole::q &&
           role != LinearRole::k && role != LinearRole::q_a && role != LinearRole::q_b;
  }

  ScaleSearchResult search(const ResolvedMapping& mapping) const {
    std::vector<BalanceLayer> layers;
    for (const LinearId& id : mapping.balance) {
      layers.push_back({.weight = weights_[id].dense, .rounding = rounding_rule(job_, id, original_)});
    }
    const LinearId& first = mapping.balance.front();
    const int64_t columns = weights_[first].in_features();
    std::vector<int64_t> channel_of(static_cast<size_t>(columns));
    for (size_t c = 0; c < channel_of.size(); ++c)
      channel_of[c] = smooth_channel(job_.spec, mapping, static_cast<int64_t>(c));
    const SmoothStorage storage = smooth_storage(mapping);
    return search_scales(
        {.backend = job_.backend,
         .layers = layers,
         .input = *statistics_.find(first),
         .channel_of = channel_of,
         .channels = smooth_channel_count(job_.spec, mapping, columns),
         .make_representable =
             [&](std::span<float> scales) { make_representable(weights_, mapping, storage, scales); },
         .duo_scaling = settings_.duo_scaling,
         .n_grid = settings_.n_grid,
         .cancelled = job_.cancelled});
  }

  SmoothStorage smooth_storage(const ResolvedMapping& mapping) const {
    if (const auto* norm = std::get_if<NormRole>(&mapping.smooth)) {
      return {.stored = storage_of(job_, original_[*norm].weight), .smooth_quantized = false};
    }
    const LinearId& id = std::get<LinearId>(mapping.smooth);
    return {.stored = storage_of(job_, original_[id].dense), .smooth_quantized = job_.linears.contains(id)};
  }

  void apply(const ResolvedMapping& mapping, std::span<const float> scales) {
    apply_scales(job_.spec, mapping, scales, weights_);
    for (const LinearId& id : mapping.balance) {
      auto& column_scales = column_scales_.at(id);
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
  PerLinear<std::vector<float>> column_scales_;  // what each linear's input has been divided by
};

/// The f32 weights of a layer in the types in which they are written.
LayerWeights store_layer(const LayerJob& job, const LayerWeights& original, const LayerWeights& weights,
                         RoundedLinears rounded) {
  LayerWeights stored;
  for (const auto& slot : job.spec.linears(job.layer)) {
    const LinearWeight& from = weights[slot.id];
    LinearWeight& to = stored[slot.id];
    with_context(slot.name, [&] {
      if (const auto integers = rounded.find(slot.id); integers != rounded.end()) {
        to.quantized = std::move(integers->second);
      } else {
        to.dense = store_as("weight", from.dense, storage_of(job, original[slot.id].dense));
      }
      if (from.bias.defined()) to.bias = store_as("bias", from.bias, storage_of(job, original[slot.id].bias));
    });
  }
  for (size_t i = 0; i < kNormRoles; ++i) {
    const NormWeight& from = weights.norms[i];
    if (!from.defined()) continue;
    const std::string name = job.spec.norm_name(job.layer, static_cast<NormRole>(i));
    stored.norms[i] = {
        store_as(name + ".weight", from.weight, storage_of(job, original.norms[i].weight)), {}, from.offset};
    if (from.bias.defined()) {
      stored.norms[i].bias = store_as(name + ".bias", from.bias, storage_of(job, original.norms[i].bias));
    }
  }
  stored.router_correction = weights.router_correction;
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
    const auto rule = rounding_rule(job, slot.id, original);
    if (!rule) continue;
    rounded[slot.id] = with_context(slot.name, [&] {
      return quantize_to_nearest(weights[slot.id].dense, {}, rule->scheme, rule->scale_dtype);
    });
  }
  return {.weights = store_layer(job, original, weights, std::move(rounded)), .report = {.layer = job.layer}};
}

QuantizedLayer quantize_layer(const LayerJob& job, const AwqModifier& settings, const LayerWeights& original,
                              LayerStream& stream) {
  LayerStatistics statistics(job);
  const LinearObserver observer = statistics.observer();
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
    for (const ResolvedMapping& mapping : job.mappings)
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
