#include "awq/awq.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "awq/apply.h"
#include "awq/layer_search.h"
#include "awq/layer_statistics.h"
#include "awq/scaled_layer.h"
#include "base/error.h"
#include "base/process.h"
#include "base/stopwatch.h"
#include "quant/group_quantize.h"

namespace salient {
namespace {

constexpr double kEquivalenceLimit = 1e-3;

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

void check_finite(const LayerJob& job, const LinearId& id, const Tensor& input, const LayerStream& stream) {
  if (job.backend.all_finite(input)) return;
  const auto values = input.values<float>();
  const auto bad = std::find_if(values.begin(), values.end(), [](float x) { return !std::isfinite(x); });
  const int64_t at = bad - values.begin();
  fail(ErrorKind::bad_format,
       "{}: its input is {} at channel {} of {}: the model does not compute numbers there",
       job.spec.linear_name(job.layer, id), *bad, at % input.dim(1), stream.locate(at / input.dim(1)));
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
  if (job.follows_original || job.propagation == Propagation::original) {
    const PreparedLayer prepared = prepare_layer(job.backend, original);
    if (job.propagation == Propagation::original) stream.advance(job.layer, prepared);
    if (job.follows_original) stream.advance_original(job.layer, prepared);
  }
  if (job.propagation == Propagation::quantized) pass_quantized(job, finished, stream);
}

QuantizedLayer quantize_layer(const LayerJob& job, const AwqModifier& settings, const LayerWeights& original,
                              LayerStream& stream) {
  QuantizedLayer result{.weights = {}, .report = {.layer = job.layer}};
  LayerSeconds& seconds = result.report.seconds;
  LayerStatistics statistics(job, original, stream.tokens());
  const LinearObserver observer = [&, observe = statistics.observer()](const LinearId& id,
                                                                       const Tensor& input) {
    const Stopwatch watch(seconds.statistics);
    check_finite(job, id, input, stream);
    observe(id, input);
  };
  const Tensor probe_input = stream.probe_input(kProbeTokens);
  Tensor reference;
  {
    const Stopwatch watch(seconds.checks);
    reference = stream.probe(job.exact, job.layer, prepare_layer(job.exact, original), probe_input);
  }
  std::optional<PreparedLayer> prepared = prepare_layer(job.backend, original);
  // The outputs of the original layer are what comes next, and nobody asks for its inputs again.
  const bool one_pass =
      job.propagation == Propagation::original && settings.objective == Objective::linear_output;
  {
    const Stopwatch watch(seconds.forward);
    if (one_pass) {
      stream.advance(job.layer, *prepared, &observer);
    } else {
      stream.observe(job.layer, *prepared, observer);
    }
  }
  seconds.forward -= seconds.statistics;
  // A device need not have room for the linears of the original and of what becomes of it at once.
  const bool matched = job.follows_original || settings.rounding == Rounding::matched;
  if (!matched && (one_pass || job.propagation == Propagation::quantized)) prepared.reset();
  return_free_memory();  // activations, before Gram matrices are copied
  {
    LayerSearch search(job, settings, original, prepared ? &*prepared : nullptr, statistics, stream);
    search.run(result.report);
    const Stopwatch watch(seconds.checks);
    const Tensor changed =
        stream.probe(job.exact, job.layer, search.scaled().prepare(job.exact), probe_input);
    result.report.equivalence_error = equivalence_error(probe_input, reference, changed);
    check_equivalence(job, result.report.equivalence_error);
    result.weights = store_layer(job, original, search.scaled(), search.take_finished());
  }
  const Stopwatch watch(seconds.forward);
  if (job.follows_original) stream.advance_original(job.layer, *prepared);
  if (job.propagation == Propagation::quantized) {
    prepared.reset();
    pass_quantized(job, result.weights, stream);
  } else if (!one_pass) {
    stream.advance(job.layer, *prepared);
  }
  return result;
}

}  // namespace salient
