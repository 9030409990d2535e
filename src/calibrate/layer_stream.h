#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "base/cancellation.h"
#include "calibrate/hidden_store.h"
#include "model/weights.h"
#include "runtime/batch.h"

namespace salient {

/// The hidden states of all calibration tokens on their way through the decoder, one layer at a time: nothing
/// of the model but the layer at hand needs to be in memory.
class LayerStream {
 public:
  struct Options {
    Backend& backend;
    const ModelWeights& weights;
    std::span<const std::vector<int32_t>> windows;  ///< token ids, one sequence each
    HiddenPlace place{};                            ///< where the tokens wait between two layers
    int64_t rows_per_batch = kRowsPerBatch;         ///< tokens that run through a layer together
    /// Whether the hidden states of the original model go along, see compare.
    bool with_original = false;
    /// Empty, or like `windows`: where 0 stands the observer does not see the token, which takes part in all
    /// else.
    std::span<const std::vector<uint8_t>> masks = {};
    const CancellationFlag* cancelled = nullptr;
  };
  /// Starts behind the embedding.
  explicit LayerStream(const Options& options);

  int64_t tokens() const { return hidden_.rows(); }

  /// Shows `observer` every linear's input in layer `layer`; the stream stays before the layer. With masks
  /// experts show nothing: which of the tokens routed to them count is for those to find who see the router's
  /// input.
  void observe(int64_t layer, const PreparedLayer& weights, const LinearObserver& observer);
  /// Moves the stream behind the layer; `observer`, if any, watches.
  void advance(int64_t layer, const PreparedLayer& weights, const LinearObserver* observer = nullptr);
  /// Moves the hidden states of the original model behind the layer.
  void advance_original(int64_t layer, const PreparedLayer& original);

  using Comparison = std::function<void(const Tensor& input, const Tensor& original_input)>;
  /// Shows `visit`, batch by batch, what the linear `id` reads [rows, in_features]: with `weights` in the
  /// stream, and with `original` in the stream of the original model. Both stay before the layer.
  void compare(int64_t layer, const LinearId& id, const PreparedLayer& weights, const PreparedLayer& original,
               const Comparison& visit);

  using Outputs = std::function<void(const Tensor& hidden)>;
  /// Shows `visit`, batch by batch, the hidden states [rows that count, hidden] behind the layer, or before
  /// the first of its linears for which `stops` is true. The stream stays before the layer.
  void outputs(int64_t layer, const PreparedLayer& weights,
               const std::function<bool(const LinearId& id)>& stops, const Outputs& visit);

  /// "calibration sequence 3, token 17" for a row that an observer sees while it is called.
  std::string locate(int64_t row) const;

  /// A copy of the hidden states of the longest sequence (the first of several) before the current layer,
  /// [tokens of the sequence, hidden]; of a long one its first `most_tokens`, which
  /// see nothing of those behind them.
  Tensor probe_input(int64_t most_tokens = std::numeric_limits<int64_t>::max()) const;
  /// What a layer makes of `input` (from `probe_input`), computed by any back end.
  Tensor probe(Backend& backend, int64_t layer, const PreparedLayer& weights, const Tensor& input) const;

 private:
  /// A batch on its way through a layer; `pool` serves one batch after the other.
  struct Pass {
    int64_t layer;
    const PreparedLayer& weights;
    const SequenceBatch& batch;
    TensorPool& pool;
    LayerOrder order = LayerOrder::free;
  };

  void embed(const ModelWeights& weights, std::span<const std::vector<int32_t>> windows);
  void run(const Pass& pass, const LinearObserver* observer, Tensor& hidden);
  bool any_counts(const SequenceBatch& batch) const;
  Tensor input_of(const Pass& pass, const LinearId& id, const HiddenStore& hidden);

  /// The same until the observer has seen enough; false if it never had.
  bool run_until(const Pass& pass, const LinearObserver& observer, Tensor& hidden);
  std::vector<int32_t> counting_rows(const SequenceBatch& batch) const;
  /// Those rows; `matrix` itself if they are all.
  Tensor gathered(const Tensor& matrix, std::span<const int32_t> rows) const;

  /// Shows `observer` the rows of `batch` that count.
  LinearObserver masked(const SequenceBatch& batch, const LinearObserver& observer) const;

  Backend& backend_;
  const DecoderSpec& spec_;
  const CancellationFlag* cancelled_;
  std::vector<SequenceBatch> batches_;
  std::vector<uint8_t> mask_;  // of each row of hidden_; empty: all count
  HiddenStore hidden_;         // [tokens, hidden]
  HiddenStore original_;       // the same of the original model, or without rows
  const SequenceBatch* at_work_ = nullptr;
  int64_t probe_begin_ = 0;  // row of hidden_
  int64_t probe_count_ = 0;
};

}  // namespace salient
