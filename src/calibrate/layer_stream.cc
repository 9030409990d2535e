#include "calibrate/layer_stream.h"

#include <algorithm>
#include <cstring>

#include "runtime/decoder.h"

namespace salient {
namespace {

bool same_lengths(std::span<const SequenceSpan> a, std::span<const SequenceSpan> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const SequenceSpan& x, const SequenceSpan& y) { return x.count == y.count; });
}

}  // namespace

LayerStream::LayerStream(const Options& options)
    : backend_(options.backend), spec_(options.weights.spec()), cancelled_(options.cancelled) {
  std::vector<int32_t> tokens;
  for (const auto& window : options.windows) {
    const auto count = static_cast<int64_t>(window.size());
    const auto begin = static_cast<int64_t>(tokens.size());
    if (batches_.empty() || begin + count - batches_.back().begin > kRowsPerBatch) batches_.push_back({.begin = begin});
    Batch& batch = batches_.back();
    batch.sequences.push_back({.begin = begin - batch.begin, .count = count, .first_position = 0, .cache = nullptr});
    batch.end = begin + count;
    tokens.insert(tokens.end(), window.begin(), window.end());
  }
  hidden_ = embed_tokens(backend_, options.weights, tokens);
  for (size_t i = 0; i < batches_.size(); ++i) {
    // Windows are usually of one length, so that almost all batches share one table.
    const bool shared = i > 0 && same_lengths(batches_[i].sequences, batches_[i - 1].sequences);
    batches_[i].rope = shared ? batches_[i - 1].rope
                              : std::make_shared<RopeTable>(make_rope_table(spec_.rope, batches_[i].sequences));
  }
}

void LayerStream::observe(int64_t layer, const PreparedLayer& weights, const LinearObserver& observer) {
  for (const Batch& batch : batches_) {
    Tensor copy = hidden_.slice(batch.begin, batch.end).to(DType::f32);
    run(layer, weights, batch, &observer, copy);
  }
}

void LayerStream::advance(int64_t layer, const PreparedLayer& weights, const LinearObserver* observer) {
  for (const Batch& batch : batches_) {
    Tensor rows = hidden_.slice(batch.begin, batch.end);
    run(layer, weights, batch, observer, rows);
  }
}

Tensor LayerStream::probe_input() const { return hidden_.slice(0, batches_.front().sequences.front().count).to(DType::f32); }

Tensor LayerStream::probe(Backend& backend, int64_t layer, const PreparedLayer& weights, const Tensor& input) const {
  const std::span sequences(batches_.front().sequences.data(), 1);
  const RopeTable rope = make_rope_table(spec_.rope, sequences);
  Tensor output = input.to(DType::f32);
  run_layer({.backend = backend, .spec = spec_, .rope = rope, .layer = layer, .sequences = sequences}, weights, output);
  return output;
}

void LayerStream::run(int64_t layer, const PreparedLayer& weights, const Batch& batch, const LinearObserver* observer,
                      Tensor& hidden) {
  throw_if_cancelled(cancelled_);
  run_layer({.backend = backend_,
             .spec = spec_,
             .rope = *batch.rope,
             .layer = layer,
             .sequences = batch.sequences,
             .observer = observer},
            weights, hidden);
}

}  // namespace salient
