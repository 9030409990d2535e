#pragma once

#include <cstdint>
#include <span>
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
    const CancellationFlag* cancelled = nullptr;
  };
  /// Starts behind the embedding.
  explicit LayerStream(const Options& options);

  int64_t tokens() const { return hidden_.rows(); }

  /// Shows `observer` every linear's input in layer `layer`; the stream stays before the layer.
  void observe(int64_t layer, const PreparedLayer& weights, const LinearObserver& observer);
  /// Moves the stream behind the layer; `observer`, if any, watches.
  void advance(int64_t layer, const PreparedLayer& weights, const LinearObserver* observer = nullptr);
  /// A copy of the hidden states of the longest sequence (the first of several) before the current layer,
  /// [tokens of the sequence, hidden].
  Tensor probe_input() const;
  /// What a layer makes of `input` (from `probe_input`), computed by any back end.
  Tensor probe(Backend& backend, int64_t layer, const PreparedLayer& weights, const Tensor& input) const;

 private:
  void embed(const ModelWeights& weights, std::span<const std::vector<int32_t>> windows);
  void run(int64_t layer, const PreparedLayer& weights, const SequenceBatch& batch,
           const LinearObserver* observer, Tensor& hidden);

  Backend& backend_;
  const DecoderSpec& spec_;
  const CancellationFlag* cancelled_;
  std::vector<SequenceBatch> batches_;
  HiddenStore hidden_;       // [tokens, hidden]
  int64_t probe_begin_ = 0;  // row of hidden_
  int64_t probe_count_ = 0;
};

}  // namespace salient
