#include "awq/awq.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "awq/apply.h"
#include "awq/clip_search.h"
#include "awq/compensated_rounding.h"
#include "awq/layer_statistics.h"
#include "awq/mse_clips.h"
#include "awq/scale_search.h"
#include "awq/scaled_layer.h"
#include "base/error.h"
#include "base/process.h"
#include "quant/group_quantize.h"

namespace salient {
namespace {

constexpr double kEquivalenceLimit = 1e-3;

/// Linears as they are to be written, but for their biases.
using FinishedLinears = PerLinear<LinearWeight>;

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

/// The largest weight of each group where an observer finds it in the weights alone; undefined where there is
/// no such search.
Tensor clip_by_weights(const RoundingRule& rule, const Tensor& weight, const LinearRounding& rounding) {
  if (rounding.observer != Observer::mse) return {};
  return search_mse_clips(rule, weight, rounding.observer_settings);
}

/// One layer on its way through the search: scales are found for mapping after mapping, then its linears are
/// clipped and rounded. Experts come one by one, with statistics of their own.
class LayerSearch {
 public:
  LayerSearch(const LayerJob& job, const AwqModifier& settings, const LayerWeights& original,
              const LayerStatistics& statistics)
      : job_(job),
        settings_(settings),
        original_(original),
        statistics_(statistics),
        scaled_(job.spec, original) {}

  void run(LayerReport& report) {
    for (const ResolvedMapping& mapping : job_.mappings) {
      if (expert_of(mapping) < 0) smooth(mapping, statistics_.of(mapping.balance.front()), report);
    }
    for (const auto& slot : job_.spec.linears(job_.layer)) {
      if (is_expert(slot.id.role) || !job_.linears.contains(slot.id)) continue;
      finish(slot.id, statistics_.of(slot.id), report);
      return_free_memory();
    }
    if (!job_.spec.has_experts(job_.layer)) return;
    for (int64_t expert = 0; expert < job_.spec.moe->experts; ++expert) run_expert(expert, report);
  }

  const ScaledLayer& scaled() const { return scaled_; }
  FinishedLinears take_finished() { return std::move(finished_); }

 private:
  /// The expert whose linears a mapping pairs; -1 for all others.
  static int64_t expert_of(const ResolvedMapping& mapping) {
    const auto* smooth = std::get_if<LinearId>(&mapping.smooth);
    return smooth != nullptr && is_expert(smooth->role) ? smooth->expert : -1;
  }

  void run_expert(int64_t expert, LayerReport& report) {
    const LinearId gate(LinearRole::expert_gate, expert);
    const LinearId up(LinearRole::expert_up, expert);
    const LinearId down(LinearRole::expert_down, expert);
    if (!job_.linears.contains(gate) && !job_.linears.contains(up) && !job_.linears.contains(down)) return;
    const ExpertStatistics statistics = statistics_.of_expert(expert);
    if (statistics.pooled) report.pooled_experts.push_back(expert);
    for (const ResolvedMapping& mapping : job_.mappings) {
      if (expert_of(mapping) == expert) smooth(mapping, statistics.hidden, report);
    }
    for (const LinearId& id : {gate, up, down}) {
      if (job_.linears.contains(id)) finish(id, id == down ? statistics.hidden : statistics.input, report);
    }
    return_free_memory();
  }

  bool any_quantized(const ResolvedMapping& mapping) const {
    return std::any_of(mapping.balance.begin(), mapping.balance.end(),
                       [&](const LinearId& id) { return job_.linears.contains(id); });
  }

  /// `input`: of the balance layers.
  void smooth(const ResolvedMapping& mapping, const ActivationStatistics& input, LayerReport& report) {
    MappingReport& own = report.mappings.emplace_back(MappingReport{.mapping = mapping.describe(job_.spec)});
    own.left_alone = true;
    if (!any_quantized(mapping)) return;
    const ScaleSearchResult found = with_context(fmt::format("layer {}: {}", job_.layer, own.mapping),
                                                 [&] { return search(mapping, input); });
    own.loss_before = found.loss_identity;
    own.loss_after = found.loss;
    own.ratio = found.ratio;
    own.duo = found.duo;
    own.left_alone = found.identity;
    if (!found.identity) scaled_.apply(mapping, found.scales);
  }

  ScaleSearchResult search(const ResolvedMapping& mapping, const ActivationStatistics& input) const {
    std::vector<BalanceLayer> layers;
    for (const LinearId& id : mapping.balance) layers.push_back(balance_layer(id));
    const int64_t columns = original_[mapping.balance.front()].in_features();
    std::vector<int64_t> channel_of(static_cast<size_t>(columns));
    for (size_t c = 0; c < channel_of.size(); ++c)
      channel_of[c] = smooth_channel(job_.spec, mapping, static_cast<int64_t>(c));
    return search_scales({.backend = job_.backend,
                          .layers = layers,
                          .input = input,
                          .channel_of = channel_of,
                          .channels = smooth_channel_count(job_.spec, mapping, columns),
                          .make_representable = [&](std::span<float> scales) { represent(mapping, scales); },
                          .duo_scaling = settings_.duo_scaling,
                          .n_grid = settings_.n_grid,
                          .cancelled = job_.cancelled});
  }

  /// Few linears are worth keeping during the search; of the many of all experts each is made when its turn
  /// comes.
  BalanceLayer balance_layer(const LinearId& id) const {
    const auto rule = rounding_rule(job_, id, original_);
    if (is_expert(id.role)) return {.weight = [this, id] { return scaled_.weight(id); }, .rounding = rule};
    return {.weight = [weight = scaled_.weight(id)] { return weight; }, .rounding = rule};
  }

  void represent(const ResolvedMapping& mapping, std::span<float> scales) const {
    if (const auto* norm = std::get_if<NormRole>(&mapping.smooth)) {
      make_representable(scaled_.norm(*norm), storage_of(job_, original_[*norm].weight), scales);
    } else if (!job_.linears.contains(std::get<LinearId>(mapping.smooth))) {
      make_powers_of_two(scales);
    }
  }

  struct ScaledInput {
    const Tensor& gram;
    int64_t tokens;
  };

  /// `input`: of the linear.
  void finish(const LinearId& id, const ActivationStatistics& input, LayerReport& report) {
    throw_if_cancelled(job_.cancelled);
    with_context(job_.spec.linear_name(job_.layer, id), [&] {
      const Tensor gram = scaled_gram(input.gram(), scaled_.column_scales(id));
      const ScaledInput scaled_input{gram, input.tokens()};
      if (job_.result == OneshotResult::scaled) {
        finished_[id].dense = clip(id, scaled_input, report);
      } else {
        finished_[id].quantized = round(id, scaled_input, report);
      }
    });
  }

  /// Smoothed and clipped, in the type in which it is written. What an observer would find is left to whoever
  /// rounds: it looks at these weights only.
  Tensor clip(const LinearId& id, const ScaledInput& input, LayerReport& report) const {
    Tensor weight = scaled_.weight(id);
    if (job_.linears.at(id).observer == Observer::automatic) {
      const Tensor bounds = clip_of(id, *rounding_rule(job_, id, original_), weight, input, report);
      if (bounds.defined()) clamp_groups(weight, bounds);
    }
    return store_as("weight", weight, storage_of(job_, original_[id].dense));
  }

  QuantizedWeight round(const LinearId& id, const ScaledInput& input, LayerReport& report) const {
    const Tensor weight = scaled_.weight(id);
    const RoundingRule rule = *rounding_rule(job_, id, original_);
    const Tensor clip = clip_of(id, rule, weight, input, report);
    if (settings_.rounding == Rounding::nearest) {
      return quantize_to_nearest(weight, clip, rule.scheme, rule.scale_dtype);
    }
    return round_compensated({.backend = job_.backend,
                              .rounding = rule,
                              .weight = weight,
                              .clip = clip,
                              .gram = input.gram,
                              .tokens = input.tokens,
                              .order = job_.linears.at(id).order,
                              .cancelled = job_.cancelled});
  }

  /// The largest weight of each group, as its observer finds it; undefined for that of the weights
  /// themselves.
  Tensor clip_of(const LinearId& id, const RoundingRule& rule, const Tensor& weight, const ScaledInput& input,
                 LayerReport& report) const {
    const LinearRounding& rounding = job_.linears.at(id);
    if (rounding.observer != Observer::automatic) return clip_by_weights(rule, weight, rounding);
    if (settings_.clip == ClipSearch::off || !may_clip(id.role, rule.scheme)) return {};
    const ClipSearchResult found = search_clips({.backend = job_.backend,
                                                 .rounding = rule,
                                                 .weight = weight,
                                                 .gram = input.gram,
                                                 .tokens = input.tokens,
                                                 .cancelled = job_.cancelled});
    report.clip_loss_before += found.loss_before;
    report.clip_loss_after += found.loss_after;
    return found.clip;
  }

  /// AutoAWQ leaves q and k alone: their outputs meet in a product before the softmax, where clipping hurts.
  /// A grid of the whole matrix has no bound of each row that could be searched.
  static bool may_clip(LinearRole role, const QuantizationScheme& scheme) {
    return scheme.group_size != QuantizationScheme::kWholeMatrix && role != LinearRole::q &&
           role != LinearRole::k && role != LinearRole::q_a && role != LinearRole::q_b &&
           role != LinearRole::state_q && role != LinearRole::state_k;
  }

  const LayerJob& job_;
  const AwqModifier& settings_;
  const LayerWeights& original_;
  const LayerStatistics& statistics_;
  ScaledLayer scaled_;
  FinishedLinears finished_;
};

/// The scaled layer in the types in which it is written.
LayerWeights store_layer(const LayerJob& job, const LayerWeights& original, const ScaledLayer& scaled,
                         FinishedLinears finished) {
  LayerWeights stored;
  for (const auto& slot : job.spec.linears(job.layer)) {
    const LinearWeight& from = original[slot.id];
    LinearWeight& to = stored[slot.id];
    with_context(slot.name, [&] {
      if (const auto found = finished.find(slot.id); found != finished.end()) {
        to = std::move(found->second);
      } else {
        to.dense = store_as("weight", scaled.weight(slot.id), storage_of(job, from.dense));
      }
      if (from.bias.defined()) to.bias = store_as("bias", scaled.bias(slot.id), storage_of(job, from.bias));
    });
  }
  for (size_t i = 0; i < kNormRoles; ++i) {
    const NormWeight& from = scaled.norm(static_cast<NormRole>(i));
    if (!from.defined()) continue;
    const std::string name = job.spec.norm_name(job.layer, static_cast<NormRole>(i));
    stored.norms[i] = {
        store_as(name + ".weight", from.weight, storage_of(job, original.norms[i].weight)), {}, from.offset};
    if (from.bias.defined()) {
      stored.norms[i].bias = store_as(name + ".bias", from.bias, storage_of(job, original.norms[i].bias));
    }
  }
  stored.router_correction = original.router_correction;
  stored.state_tensors = original.state_tensors;
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

/// The next layer sees what this one makes of the tokens as it is written.
void pass_quantized(const LayerJob& job, const LayerWeights& finished, LayerStream& stream) {
  // Whoever rounds scaled weights later knows no compensation: rounded to nearest is what the next layer will
  // see then. The scaled layer itself computes what the original does, which Propagation::original gives.
  const bool rounds = job.result == OneshotResult::scaled;
  const LayerWeights rounded = rounds ? round_layer(job, finished).weights : LayerWeights{};
  stream.advance(job.layer, prepare_layer(job.backend, rounds ? rounded : finished));
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

QuantizedWeight round_by_rows(const Tensor& dense, const LinearRounding& rounding, DType scale_dtype,
                              const CancellationFlag* cancelled) {
  if (rounding.scheme.group_size == QuantizationScheme::kWholeMatrix) {
    fail(ErrorKind::unsupported, "one scale for the whole matrix cannot be found row by row");
  }
  constexpr int64_t kRowsPerBlock = 4096;
  QuantizedWeight result =
      allocate_quantized_weight(rounding.scheme, dense.dim(0), dense.dim(1), scale_dtype);
  for (int64_t begin = 0; begin < dense.dim(0); begin += kRowsPerBlock) {
    throw_if_cancelled(cancelled);
    const int64_t end = std::min(dense.dim(0), begin + kRowsPerBlock);
    const Tensor weight = dense.slice(begin, end).to(DType::f32);
    const QuantizedWeight block = with_context(fmt::format("rows from {} on", begin), [&] {
      return quantize_to_nearest(weight, clip_by_weights({rounding.scheme, scale_dtype}, weight, rounding),
                                 rounding.scheme, scale_dtype);
    });
    const auto place = [&](const Tensor& part, Tensor& whole) {
      if (!part.defined()) return;
      std::memcpy(whole.mutable_bytes() +
                      static_cast<size_t>(begin) * (part.byte_size() / static_cast<size_t>(end - begin)),
                  part.bytes(), part.byte_size());
    };
    place(block.codes, result.codes);
    place(block.scales, result.scales);
    place(block.zeros, result.zeros);
  }
  return result;
}

QuantizedLayer round_layer(const LayerJob& job, const LayerWeights& original) {
  const ScaledLayer unscaled(job.spec, original);
  FinishedLinears rounded;
  for (const auto& slot : job.spec.linears(job.layer)) {
    const auto rule = rounding_rule(job, slot.id, original);
    if (!rule) continue;
    throw_if_cancelled(job.cancelled);
    rounded[slot.id].quantized = with_context(slot.name, [&] {
      const Tensor weight = unscaled.weight(slot.id);
      return quantize_to_nearest(weight, clip_by_weights(*rule, weight, job.linears.at(slot.id)),
                                 rule->scheme, rule->scale_dtype);
    });
  }
  return {.weights = store_layer(job, original, unscaled, std::move(rounded)),
          .report = {.layer = job.layer}};
}

void pass_layer(const LayerJob& job, const LayerWeights& original, const LayerWeights& finished,
                LayerStream& stream) {
  if (job.propagation == Propagation::quantized) return pass_quantized(job, finished, stream);
  stream.advance(job.layer, prepare_layer(job.backend, original));
}

QuantizedLayer quantize_layer(const LayerJob& job, const AwqModifier& settings, const LayerWeights& original,
                              LayerStream& stream) {
  LayerStatistics statistics(job, original, stream.tokens());
  const LinearObserver observer = statistics.observer();
  const Tensor probe_input = stream.probe_input();
  const Tensor reference =
      stream.probe(job.exact, job.layer, prepare_layer(job.exact, original), probe_input);
  const PreparedLayer prepared = prepare_layer(job.backend, original);
  if (job.propagation == Propagation::original) {
    stream.advance(job.layer, prepared, &observer);
  } else {
    stream.observe(job.layer, prepared, observer);
  }
  return_free_memory();  // activations, before Gram matrices are copied
  QuantizedLayer result{.weights = {}, .report = {.layer = job.layer}};
  {
    LayerSearch search(job, settings, original, statistics);
    search.run(result.report);
    const Tensor changed =
        stream.probe(job.exact, job.layer, search.scaled().prepare(job.exact), probe_input);
    result.report.equivalence_error = equivalence_error(probe_input, reference, changed);
    check_equivalence(job, result.report.equivalence_error);
    result.weights = store_layer(job, original, search.scaled(), search.take_finished());
  }
  if (job.propagation == Propagation::quantized) pass_quantized(job, result.weights, stream);
  return result;
}

}  // namespace salient
