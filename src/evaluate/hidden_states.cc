#include "evaluate/hidden_states.h"

#include "runtime/batch.h"
#include "runtime/decoder.h"

namespace salient {

Tensor run_all_layers(Backend& backend, const ModelWeights& weights,
                      std::span<const std::vector<int32_t>> windows, const std::function<void()>& on_layer) {
  const DecoderSpec& spec = weights.spec();
  Tensor hidden = embed_sequences(backend, weights, windows);
  const auto batches = make_batches(spec, windows);
  for (int64_t layer = 0; layer < spec.layers; ++layer) {
    const PreparedLayer prepared = prepare_layer(backend, weights.layer(layer));
    for (const SequenceBatch& batch : batches) {
      Tensor rows = hidden.slice(batch.begin, batch.begin + batch.rows);
      run_layer({backend, spec, batch.ropes, layer, batch.sequences}, prepared, rows);
    }
    weights.release_layer(layer);
    on_layer();
  }
  return hidden;
}

}  // namespace salient
