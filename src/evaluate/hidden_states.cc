#include "evaluate/hidden_states.h"

#include "runtime/batch.h"
#include "runtime/decoder.h"

namespace salient {

namespace {

/// A cache for each sequence, of which one layer is used; none for f32, which sequences hold anyway.
std::vector<KvCache> caches_for(const WindowsRun& run, SequenceBatch& batch) {
  std::vector<KvCache> caches;
  if (run.kv_type == KvType::fp32) return caches;
  caches.assign(batch.sequences.size(), KvCache(run.weights.spec(), run.kv_type));
  for (size_t i = 0; i < caches.size(); ++i) batch.sequences[i].cache = &caches[i];
  return caches;
}

}  // namespace

Tensor run_all_layers(const WindowsRun& run, const std::function<void()>& on_layer) {
  const DecoderSpec& spec = run.weights.spec();
  Tensor hidden = embed_sequences(run.backend, run.weights, run.windows);
  auto batches = make_batches(spec, run.windows);
  for (int64_t layer = 0; layer < spec.layers; ++layer) {
    const PreparedLayer prepared = prepare_layer(run.backend, run.weights.layer(layer));
    for (SequenceBatch& batch : batches) {
      const std::vector<KvCache> caches = caches_for(run, batch);
      Tensor rows = hidden.slice(batch.begin, batch.begin + batch.rows);
      run_layer({run.backend, spec, batch.ropes, layer, batch.sequences}, prepared, rows);
    }
    run.weights.release_layer(layer);
    on_layer();
  }
  return hidden;
}

}  // namespace salient
