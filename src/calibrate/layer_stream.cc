#include "calibrate/layer_stream.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "runtime/decoder.h"

namespace salient {
namespace {

/// Thrown by an observer that has seen enough: what would come after it is not computed.
struct SeenEnough {};

/// The masks of all sequences behind one another.
std::vector<uint8_t> joined_masks(const LayerStream::Options& options) {
  if (options.masks.empty()) return {};
  std::vector<uint8_t> joined;
  bool fits = options.masks.size() == options.windows.size();
  for (size_t i = 0; fits && i < options.windows.size(); ++i) {
    fits = options.masks[i].size() == options.windows[i].size();
    joined.insert(joined.end(), options.masks[i].begin(), options.masks[i].end());
  }
  if (!fits) fail(ErrorKind::internal, "masks that do not fit their {} sequences", options.windows.size());
  return joined;
}

std::vector<int64_t> ends_of(std::span<const SequenceBatch> batches) {
  std::vector<int64_t> ends;
  for (const SequenceBatch& batch : batches) ends.push_back(batch.begin + batch.rows);
  return ends;
}

}  // namespace

LayerStream::LayerStream(const Options& options)
    : backend_(options.backend),
      spec_(options.weights.spec()),
      cancelled_(options.cancelled),
      batches_(make_batches(spec_, options.windows, options.rows_per_batch)),
      mask_(joined_masks(options)),
      hidden_(options.place, ends_of(batches_), spec_.hidden_size) {
  embed(options.weights, options.windows);
  if (options.with_original) {
    original_ = HiddenStore(options.place, ends_of(batches_), spec_.hidden_size);
    for (const SequenceBatch& batch : batches_)
      original_.write(batch.begin, hidden_.read(batch.begin, batch.begin + batch.rows));
  }
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
  TensorPool pool;
  for (const SequenceBatch& batch : batches_) {
    Tensor copy = hidden_.read(batch.begin, batch.begin + batch.rows);
    run({layer, weights, batch, pool}, &observer, copy);
  }
}

void LayerStream::advance(int64_t layer, const PreparedLayer& weights, const LinearObserver* observer) {
  TensorPool pool;
  for (const SequenceBatch& batch : batches_) {
    Tensor rows = hidden_.borrow(batch.begin, batch.begin + batch.rows);
    run({layer, weights, batch, pool}, observer, rows);
    hidden_.write(batch.begin, rows);
  }
}

void LayerStream::advance_original(int64_t layer, const PreparedLayer& original) {
  TensorPool pool;
  for (const SequenceBatch& batch : batches_) {
    Tensor rows = original_.borrow(batch.begin, batch.begin + batch.rows);
    run({layer, original, batch, pool}, nullptr, rows);
    original_.write(batch.begin, rows);
  }
}

void LayerStream::compare(int64_t layer, const LinearId& id, const PreparedLayer& weights,
                          const PreparedLayer& original, const Comparison& visit) {
  TensorPool pool;
  for (const SequenceBatch& batch : batches_) {
    if (!any_counts(batch)) continue;
    const Tensor expected = input_of({layer, original, batch, pool}, id, original_);
    visit(input_of({layer, weights, batch, pool}, id, hidden_), expected);
  }
}

bool LayerStream::any_counts(const SequenceBatch& batch) const {
  if (mask_.empty()) return true;
  const auto first = mask_.begin() + batch.begin;
  return std::find_if(first, first + batch.rows, [](uint8_t counts) { return counts != 0; }) !=
         first + batch.rows;
}

Tensor LayerStream::input_of(const Pass& pass, const LinearId& id, const HiddenStore& hidden) {
  Tensor seen;
  const LinearObserver observer = [&](const LinearId& linear, const Tensor& input) {
    if (linear != id) return;
    seen = input;
    throw SeenEnough{};
  };
  Tensor copy = hidden.read(pass.batch.begin, pass.batch.begin + pass.batch.rows);
  if (run_until(pass, observer, copy)) return seen;
  fail(ErrorKind::internal, "layer {}: a linear to compare was not used", pass.layer);
}

void LayerStream::outputs(int64_t layer, const PreparedLayer& weights,
                          const std::function<bool(const LinearId& id)>& stops, const Outputs& visit) {
  const LinearObserver observer = [&](const LinearId& linear, const Tensor&) {
    if (stops(linear)) throw SeenEnough{};
  };
  TensorPool pool;
  for (const SequenceBatch& batch : batches_) {
    if (!any_counts(batch)) continue;
    Tensor rows = hidden_.read(batch.begin, batch.begin + batch.rows);
    run_until({layer, weights, batch, pool}, observer, rows);
    if (!mask_.empty()) rows = gathered(rows, counting_rows(batch));
    visit(rows);
  }
}

bool LayerStream::run_until(const Pass& pass, const LinearObserver& observer, Tensor& hidden) {
  Pass stepwise = pass;
  stepwise.order = LayerOrder::stepwise;
  try {
    run(stepwise, &observer, hidden);
  } catch (const SeenEnough&) {
    return true;
  }
  return false;
}

std::string LayerStream::locate(int64_t row) const {
  int64_t sequence = 0;
  for (const SequenceBatch& batch : batches_) {
    for (const SequenceSpan& span : batch.sequences) {
      for (int64_t i = span.begin; &batch == at_work_ && i < span.begin + span.count; ++i) {
        const bool counts = mask_.empty() || mask_[static_cast<size_t>(batch.begin + i)] != 0;
        if (counts && row-- == 0)
          return fmt::format("calibration sequence {}, token {}", sequence, i - span.begin);
      }
      ++sequence;
    }
  }
  return "no calibration sequence";
}

Tensor LayerStream::probe_input(int64_t most_tokens) const {
  return hidden_.read(probe_begin_, probe_begin_ + std::min(probe_count_, most_tokens));
}

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

std::vector<int32_t> LayerStream::counting_rows(const SequenceBatch& batch) const {
  std::vector<int32_t> rows;
  for (int64_t row = 0; row < batch.rows; ++row) {
    if (mask_[static_cast<size_t>(batch.begin + row)] != 0) rows.push_back(static_cast<int32_t>(row));
  }
  return rows;
}

Tensor LayerStream::gathered(const Tensor& matrix, std::span<const int32_t> rows) const {
  if (std::ssize(rows) == matrix.dim(0)) return matrix;
  Tensor chosen = Tensor::empty(DType::f32, {std::ssize(rows), matrix.dim(1)});
  backend_.gather_rows(matrix, rows, chosen);
  return chosen;
}

LinearObserver LayerStream::masked(const SequenceBatch& batch, const LinearObserver& observer) const {
  return [this, rows = counting_rows(batch), &observer](const LinearId& id, const Tensor& input) {
    if (!rows.empty() && !is_expert(id.role)) observer(id, gathered(input, rows));
  };
}

void LayerStream::run(const Pass& pass, const LinearObserver* observer, Tensor& hidden) {
  throw_if_cancelled(cancelled_);
  LinearObserver chosen;
  if (observer != nullptr && !mask_.empty()) {
    chosen = masked(pass.batch, *observer);
    observer = &chosen;
  }
  at_work_ = &pass.batch;
  run_layer({.backend = backend_,
             .spec = spec_,
             .ropes = pass.batch.ropes,
             .layer = pass.layer,
             .sequences = pass.batch.sequences,
             .observer = observer,
             .pool = &pass.pool,
             .order = pass.order},
            pass.weights, hidden);
}

}  // namespace salient
