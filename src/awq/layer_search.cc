#include "awq/layer_search.h"

#include <fmt/format.h>

#include <algorithm>

#include "awq/apply.h"
#include "awq/block_loss.h"
#include "awq/clip_search.h"
#include "awq/linear_losses.h"
#include "awq/mse_clips.h"
#include "awq/output_matching.h"
#include "base/error.h"
#include "base/process.h"
#include "base/stopwatch.h"

namespace salient {
namespace {

bool makes_attention_scores(LinearRole role) {
  return role == LinearRole::q || role == LinearRole::k || role == LinearRole::q_a ||
         role == LinearRole::q_b || role == LinearRole::state_q || role == LinearRole::state_k;
}

std::array<double, 7> quantiles_of(std::vector<float> values) {
  std::ranges::sort(values);
  std::array<double, 7> result{};
  constexpr double kShares[] = {0, 0.05, 0.25, 0.5, 0.75, 0.95, 1};
  for (size_t i = 0; i < result.size(); ++i) {
    result[i] =
        double{values[static_cast<size_t>(kShares[i] * static_cast<double>(values.size() - 1) + 0.5)]};
  }
  return result;
}

}  // namespace

DType storage_of(const LayerJob& job, const Tensor& original) {
  return job.storage.value_or(original.dtype());
}

std::optional<RoundingRule> rounding_rule(const LayerJob& job, const LinearId& id,
                                          const LayerWeights& original) {
  const auto rounding = job.linears.find(id);
  if (rounding == job.linears.end()) return std::nullopt;
  const LinearWeight& weight = original[id];
  return RoundingRule{.scheme = rounding->second.scheme, .scale_dtype = storage_of(job, weight.dense)};
}

Tensor clip_by_weights(const RoundingRule& rule, const Tensor& weight, const LinearRounding& rounding) {
  if (rounding.observer != Observer::mse) return {};
  return search_mse_clips(rule, weight, rounding.observer_settings);
}

LayerSearch::LayerSearch(const LayerJob& job, const AwqModifier& settings, const LayerWeights& original,
                         const PreparedLayer* prepared, LayerStatistics& statistics, LayerStream& stream)
    : job_(job),
      settings_(settings),
      original_(original),
      prepared_(prepared),
      statistics_(statistics),
      stream_(stream),
      representatives_(input_representatives(job.spec, job.layer)),
      scaled_(job.spec, original) {}

void LayerSearch::run(LayerReport& report) {
  for (const ResolvedMapping& mapping : job_.mappings) {
    if (expert_of(mapping) < 0) smooth(mapping, statistics_.of(mapping.balance.front()), report);
  }
  for (const LinearId& id : finishing_order()) {
    finish(id, statistics_.of(id), report);
    return_free_memory();
  }
  shared_.reset();
  if (!job_.spec.has_experts(job_.layer)) return;
  for (int64_t expert = 0; expert < job_.spec.moe->experts; ++expert) run_expert(expert, report);
}

/// Those that belong to no expert, as the layer uses them, but those that read one tensor behind one another.
std::vector<LinearId> LayerSearch::finishing_order() const {
  std::vector<LinearId> order;
  for (const auto& slot : job_.spec.linears(job_.layer)) {
    if (is_expert(slot.id.role) || !job_.linears.contains(slot.id)) continue;
    const LinearId& reader = representatives_.at(slot.id);
    const auto last = std::find_if(order.rbegin(), order.rend(),
                                   [&](const LinearId& id) { return representatives_.at(id) == reader; });
    order.insert(last == order.rend() ? order.end() : last.base(), slot.id);
  }
  return order;
}

/// The expert whose linears a mapping pairs; -1 for all others.
int64_t LayerSearch::expert_of(const ResolvedMapping& mapping) {
  const auto* smooth = std::get_if<LinearId>(&mapping.smooth);
  return smooth != nullptr && is_expert(smooth->role) ? smooth->expert : -1;
}

void LayerSearch::run_expert(int64_t expert, LayerReport& report) {
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

bool LayerSearch::any_quantized(const ResolvedMapping& mapping) const {
  return std::any_of(mapping.balance.begin(), mapping.balance.end(),
                     [&](const LinearId& id) { return job_.linears.contains(id); });
}

/// `input`: of the balance layers. A search that fails leaves the mapping alone.
void LayerSearch::smooth(const ResolvedMapping& mapping, const ActivationStatistics& input,
                         LayerReport& report) {
  MappingReport& own = report.mappings.emplace_back(MappingReport{.mapping = mapping.describe(job_.spec)});
  own.left_alone = true;
  if (!any_quantized(mapping)) return;
  const Stopwatch watch(report.seconds.scales);
  ScaleSearchResult found;
  try {
    found = search(mapping, input);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::bad_format) throw;
    own.failure = error.what();
    return;
  }
  own.loss_before = found.loss_identity;
  own.loss_after = found.loss;
  own.ratio = found.ratio;
  own.duo = found.duo;
  own.left_alone = found.identity;
  own.scale_quantiles = quantiles_of(found.scales);
  if (!found.identity) scaled_.apply(mapping, found.scales);
}

ScaleSearchResult LayerSearch::search(const ResolvedMapping& mapping,
                                      const ActivationStatistics& input) const {
  std::vector<BalanceLayer> layers;
  for (const LinearId& id : mapping.balance) layers.push_back(balance_layer(id));
  const int64_t columns = original_[mapping.balance.front()].in_features();
  std::vector<int64_t> channel_of(static_cast<size_t>(columns));
  for (size_t c = 0; c < channel_of.size(); ++c)
    channel_of[c] = smooth_channel(job_.spec, mapping, static_cast<int64_t>(c));
  std::optional<BlockLoss> block;
  // The output of a linear that is scaled alone is that of the block, but for what lies behind.
  if (settings_.objective == Objective::block_output && mapping.balance.size() > 1)
    block.emplace(job_, original_, scaled_, mapping, stream_);
  return search_scales({.backend = job_.backend,
                        .layers = layers,
                        .input = input,
                        .channel_of = channel_of,
                        .channels = smooth_channel_count(job_.spec, mapping, columns),
                        .make_representable = [&](std::span<float> scales) { represent(mapping, scales); },
                        .duo_scaling = settings_.duo_scaling,
                        .n_grid = settings_.n_grid,
                        .precision = job_.precision,
                        .loss = block ? std::ref(*block) : std::function<double(std::span<const float>)>(),
                        .cancelled = job_.cancelled});
}

/// Few linears are worth keeping during the search; of the many of all experts each is made when its turn
/// comes.
BalanceLayer LayerSearch::balance_layer(const LinearId& id) const {
  const auto rule = rounding_rule(job_, id, original_);
  if (is_expert(id.role)) return {.weight = [this, id] { return scaled_.weight(id); }, .rounding = rule};
  return {.weight = [weight = scaled_.weight(id)] { return weight; }, .rounding = rule};
}

void LayerSearch::represent(const ResolvedMapping& mapping, std::span<float> scales) const {
  if (const auto* norm = std::get_if<NormRole>(&mapping.smooth)) {
    make_representable(scaled_.norm(*norm), storage_of(job_, original_[*norm].weight), scales);
  } else if (!job_.linears.contains(std::get<LinearId>(mapping.smooth))) {
    make_powers_of_two(scales);
  }
}

/// `statistics`: of what the linear reads in the layer as it was.
void LayerSearch::finish(const LinearId& id, const ActivationStatistics& statistics, LayerReport& report) {
  throw_if_cancelled(job_.cancelled);
  const std::string name = job_.spec.linear_name(job_.layer, id);
  with_context(name, [&] {
    SharedInput& shared = shared_input(id, statistics, report);
    const RoundingRule rule = *rounding_rule(job_, id, original_);
    Tensor weight = scaled_.weight(id);
    if (shared.correction.defined()) weight = correct_outputs(job_.exact, weight, shared.correction);
    const bool scaled_only = job_.result == OneshotResult::scaled;
    // What an observer would find is left to whoever rounds scaled weights: it looks at these weights only.
    const bool searched = !scaled_only || job_.linears.at(id).observer == Observer::automatic;
    const Tensor clip = searched ? clip_of(id, rule, weight, shared.input, report) : Tensor();
    if (scaled_only) {
      if (clip.defined()) clamp_groups(weight, clip);
      finished_[id].dense = store_as("weight", weight, storage_of(job_, original_[id].dense));
      return;
    }
    {
      const Stopwatch watch(report.seconds.rounding);
      finished_[id].quantized = round(id, rule, weight, clip, shared);
      // As large as the Gram matrix, which is all that sweeps and losses need.
      if (--shared.to_round == 0) shared.factors.clear();
      if (const int sweeps = settings_.sweeps.value_or(0); sweeps > 0) {
        improve_rounding({.backend = job_.backend,
                          .weight = weight,
                          .input = shared.input,
                          .sweeps = sweeps,
                          .cancelled = job_.cancelled},
                         *finished_[id].quantized);
      }
    }
    const Stopwatch watch(report.seconds.checks);
    report.linears.push_back(measure_losses({.backend = job_.backend,
                                             .precision = job_.precision,
                                             .rule = rule,
                                             .original = original_[id].dense,
                                             .statistics = statistics,
                                             .weight = weight,
                                             .row_scales = scaled_.row_scales(id),
                                             .column_scales = scaled_.column_scales(id),
                                             .input = shared.input,
                                             .clip = clip,
                                             .rounded = *finished_[id].quantized}));
    report.linears.back().name = name;
  });
}

/// Linears that read one tensor come one after another: nobody asks for its Gram matrix again.
LayerSearch::SharedInput& LayerSearch::shared_input(const LinearId& id,
                                                    const ActivationStatistics& statistics,
                                                    LayerReport& report) {
  const bool expert = is_expert(id.role);
  const LinearId reader = !expert                              ? representatives_.at(id)
                          : id.role == LinearRole::expert_down ? id
                                                               : LinearId(LinearRole::expert_gate, id.expert);
  if (shared_ && shared_->reader == reader) return *shared_;
  shared_.reset();
  GramMatrix gram = expert ? statistics.gram().copy() : statistics_.take_gram(id);
  if (settings_.rounding == Rounding::matched && !expert) {
    gram = {};
    shared_ = matched_input(id, report);
  } else {
    gram.divide_input(scaled_.column_scales(id));
    shared_ = SharedInput{.reader = reader, .input = {std::move(gram), statistics.tokens()}};
  }
  shared_->reader = reader;
  shared_->to_round = quantized_readers(reader);
  return *shared_;
}

/// A grid of the whole matrix has no bound of each row that could be searched. The outputs of q and k meet in
/// a product before the softmax: measured, their clips help where nothing fits scales afterwards, and not
/// before sweeps, which do.
bool LayerSearch::may_clip(LinearRole role, const QuantizationScheme& scheme) const {
  if (settings_.clip == ClipSearch::off || scheme.group_size == QuantizationScheme::kWholeMatrix)
    return false;
  return settings_.sweeps.value_or(0) == 0 || !makes_attention_scores(role);
}

/// How many linears share the input of `reader` and are to be rounded.
int64_t LayerSearch::quantized_readers(const LinearId& reader) const {
  if (reader.role == LinearRole::expert_down) return 1;
  if (reader.role == LinearRole::expert_gate) {
    const LinearId up(LinearRole::expert_up, reader.expert);
    return static_cast<int64_t>(job_.linears.count(reader) + job_.linears.count(up));
  }
  return std::ranges::count_if(job_.linears, [&](const auto& linear) {
    return !is_expert(linear.first.role) && representatives_.at(linear.first) == reader;
  });
}

LayerSearch::SharedInput LayerSearch::matched_input(const LinearId& id, LayerReport& report) {
  std::optional<Stopwatch> watch(std::in_place, report.seconds.forward);
  const PreparedLayer so_far = prepare_so_far();
  MatchedInput matched = match_inputs({.backend = job_.backend,
                                       .precision = job_.precision,
                                       .stream = stream_,
                                       .layer = job_.layer,
                                       .weights = so_far,
                                       .original = *prepared_,
                                       .column_scales = scaled_.column_scales(id)},
                                      id);
  watch.emplace(report.seconds.rounding);
  const Tensor correction = output_correction(job_.exact, matched);
  return {.reader = id, .input = std::move(matched.input), .correction = correction};
}

/// The scaled layer, with what is rounded already in its place.
PreparedLayer LayerSearch::prepare_so_far() const {
  PreparedLayer prepared = scaled_.prepare(job_.backend);
  prepared.make = [this](const LinearId& id) -> std::shared_ptr<const PreparedLinear> {
    LinearWeight linear;
    linear.dense = scaled_.weight(id);
    linear.bias = scaled_.bias(id);
    if (const auto done = finished_.find(id); done != finished_.end()) {
      linear.quantized = done->second.quantized;
      linear.dense = {};
    }
    return job_.backend.prepare(linear);
  };
  return prepared;
}

QuantizedWeight LayerSearch::round(const LinearId& id, const RoundingRule& rule, const Tensor& weight,
                                   const Tensor& clip, SharedInput& shared) const {
  if (settings_.rounding == Rounding::nearest) {
    return quantize_to_nearest(weight, clip, rule.scheme, rule.scale_dtype);
  }
  const ActivationOrder order = job_.linears.at(id).order;
  auto factor = shared.factors.find(order);
  if (factor == shared.factors.end()) {
    factor =
        shared.factors.emplace(order, make_feedback_factor(job_.backend, shared.input, order, job_.cancelled))
            .first;
  }
  return round_compensated({.backend = job_.backend,
                            .rounding = rule,
                            .weight = weight,
                            .clip = clip,
                            .factor = factor->second,
                            .cancelled = job_.cancelled});
}

/// The largest weight of each group, as its observer finds it; undefined for that of the weights themselves.
Tensor LayerSearch::clip_of(const LinearId& id, const RoundingRule& rule, const Tensor& weight,
                            const RoundingInput& input, LayerReport& report) const {
  const LinearRounding& rounding = job_.linears.at(id);
  if (rounding.observer != Observer::automatic) return clip_by_weights(rule, weight, rounding);
  if (!may_clip(id.role, rule.scheme)) return {};
  const Stopwatch watch(report.seconds.clips);
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

}  // namespace salient
