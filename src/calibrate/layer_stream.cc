#include "calibrate/layer_stream.h"

#include "runtime/decoder.h"

namespace salient {
namespace {

int64_t count_tokens(std::span<const std::vector<int32_t>> windows) {
  int64_t count = 0;
  for (const auto& window : windows) count += static_cast<int64_t>(window.size());
  return count;
}

}  // namespace

LayerStream::LayerStream(const Options& options)
    : backend_(options.backend),
      spec_(options.weights.spec()),
      cancelled_(options.cancelled),
      batches_(make_batches(spec_, options.windows, options.rows_per_batch)),
      hidden_(options.place, count_tokens(options.windows), spec_.hidden_size) {
  embed(options.weights, options.windows);
  // In a sequence of one token attention has nothing to weigh: the longest shows most.
  for (const SequenceBatch& batch : batches_) {
    for (const SequenceSpan& sequence : batch.sequences) {
      if (sequence.count <= probe_count_) continue;
      probe_begin_ = batch.begin + sequence.begin;
      probe_count_ = sequence.count;
    }
  }
}

void LayerStream::embed(const ModelWeights& weights, std::span<const std::vector<int32_t>> windows) {
  const PreparedEmbedding embedding = prepare_embedding(weights);
  int64_t row = 0;
  for (const auto& window : windows) {
    throw_if_cancelled(cancelled_);
    if (window.empty()) continue;
    const Tensor part = embed_tokens(backend_, spec_, embedding, {window, 0});
    hidden_.write(row, part);
    row += part.dim(0);
  }
  weights.release_embedding();
}

void LayerStream::observe(int64_t layer, const PreparedLayer& weights, const LinearObserver& observer) {
  for (const SequenceBatch& batch : batches_) {
    Tensor copy = hidden_.read(batch.begin, batch.begin + batch.rows);
    run(layer, weights, batch, &observer, copy);
  }
}

void LayerStream::advance(int64_t layer, const PreparedLayer& weights, const LinearObserver* observer) {
  for (const SequenceBatch& batch : batches_) {
    Tensor rows = hidden_.borrow(batch.begin, batch.begin + batch.rows);
    run(layer, weights, batch, observer, rows);
    hidden_.write(batch.begin, rows);
  }
}

Tensor LayerStream::probe_input() const { return hidden_.read(probe_begin_, probe_begin_ + probe_count_); }

Tensor LayerStream::probe(Backend& backend, int64_t layer, const PreparedLayer& weights,
                          const Tensor& input) const {
  const SequenceSpan whole{.begin = 0, .count = input.dim(0), .first_position = 0, .cache = nullptr};
  const std::span sequences(&whole, 1);
  const std::vector<RopeTable> ropes = make_rope_tables(spec_, sequences);
  Tensor output = input.to(DType::f32);
  run_layer({.backend = backend, .spec = spec_, .ropes = ropes, .layer = layer, .sequences = sequences},
            weights, output);
  return output;
}

void LayerStream::run(int64_t layer, const PreparedLayer& weights, const SequenceBatch& batch,
                      const LinearObserver* observer, Tensor& hidden) {
  throw_if_cancelled(cancelled_);
  run_layer({.backend = backend_,
             .spec = spec_,
             .ropes = batch.ropes,
             .layer = layer,
             .sequences = batch.sequences,
             .observer = observer},
            weights, hidden);
}

}  // namespace salient
