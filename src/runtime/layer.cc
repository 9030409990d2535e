#include "runtime/layer.h"

#include <cmath>

#include "base/error.h"

namespace salient {
namespace {

Tensor rows_like(const Tensor& x, int64_t features) {
  return Tensor::empty(DType::f32, {x.dim(0), features});
}

/// The linears of one layer at work: each reports its input to the observer first.
class Linears {
 public:
  Linears(const LayerRun& run, const PreparedLayer& weights) : run_(run), weights_(weights) {}

  Tensor operator()(LinearRole role, const Tensor& x) const {
    if (run_.observer != nullptr) (*run_.observer)(role, x);
    Tensor y = rows_like(x, weights_[role].out_features());
    run_.backend.linear(weights_[role], x, y);
    return y;
  }

 private:
  const LayerRun& run_;
  const PreparedLayer& weights_;
};

Tensor normalized(const LayerRun& run, const Tensor& x, const Tensor& weight) {
  Tensor y = rows_like(x, x.dim(1));
  run.backend.rms_norm(x, weight, run.spec.norm_epsilon, y);
  return y;
}

/// Attention of one sequence of the batch over its own keys and what its cache holds.
void attend(const LayerRun& run, const SequenceSpan& sequence, const Tensor& query, const Tensor& key,
            const Tensor& value, Tensor& mixed) {
  const int64_t end = sequence.begin + sequence.count;
  const Tensor own_keys = key.slice(sequence.begin, end);
  const Tensor own_values = value.slice(sequence.begin, end);
  if (sequence.cache != nullptr) sequence.cache->store(sequence.first_position, own_keys, own_values);
  Tensor output = mixed.slice(sequence.begin, end);
  run.backend.attention({
      .query = query.slice(sequence.begin, end),
      .keys = sequence.cache != nullptr ? sequence.cache->keys() : own_keys,
      .values = sequence.cache != nullptr ? sequence.cache->values() : own_values,
      .output = output,
      .heads = run.spec.heads,
      .kv_heads = run.spec.kv_heads,
      .head_dim = run.spec.head_dim,
      .first_position = sequence.first_position,
      .window = run.spec.window[static_cast<size_t>(run.layer)],
      .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(run.spec.head_dim))),
  });
}

/// o(softmax(rope(q) rope(k)^T / sqrt(d)) v)
Tensor attention_block(const LayerRun& run, const PreparedLayer& weights, const Tensor& x) {
  const Linears linear(run, weights);
  Tensor query = linear(LinearRole::q, x);
  Tensor key = linear(LinearRole::k, x);
  const Tensor value = linear(LinearRole::v, x);
  if (run.spec.query_key_norm) {
    run.backend.rms_norm(query, weights[NormRole::query], run.spec.norm_epsilon, query);
    run.backend.rms_norm(key, weights[NormRole::key], run.spec.norm_epsilon, key);
  }
  run.backend.rope(run.rope.cosine(), run.rope.sine(), run.spec.head_dim, query);
  run.backend.rope(run.rope.cosine(), run.rope.sine(), run.spec.head_dim, key);
  Tensor mixed = rows_like(x, query.dim(1));
  for (const SequenceSpan& sequence : run.sequences) attend(run, sequence, query, key, value, mixed);
  return linear(LinearRole::o, mixed);
}

/// down(activation(gate(x)) * up(x))
Tensor mlp_block(const LayerRun& run, const PreparedLayer& weights, const Tensor& x) {
  const Linears linear(run, weights);
  Tensor gate = linear(LinearRole::gate, x);
  const Tensor up = linear(LinearRole::up, x);
  run.backend.gated_activation(run.spec.activation, gate, up, gate);
  return linear(LinearRole::down, gate);
}

/// Every row belongs to exactly one sequence, in order, and a sequence without a cache starts at its
/// beginning.
void check_batch(const LayerRun& run, const Tensor& hidden) {
  int64_t row = 0;
  for (const SequenceSpan& sequence : run.sequences) {
    if (sequence.begin != row || sequence.count < 1 ||
        (sequence.cache == nullptr && sequence.first_position != 0)) {
      fail(ErrorKind::internal, "layer {}: a sequence [{}, +{}) at position {} where row {} was expected",
           run.layer, sequence.begin, sequence.count, sequence.first_position, row);
    }
    row += sequence.count;
  }
  if (row != hidden.dim(0) || run.rope.cosine().dim(0) != row) {
    fail(ErrorKind::internal, "layer {}: {} rows in sequences, {} in the rope table, hidden states {}",
         run.layer, row, run.rope.cosine().dim(0), to_string(hidden.shape()));
  }
}

}  // namespace

RopeTable make_rope_table(const RopeSpec& spec, std::span<const SequenceSpan> sequences) {
  std::vector<RopeSpan> spans;
  spans.reserve(sequences.size());
  for (const SequenceSpan& sequence : sequences) {
    spans.push_back({sequence.first_position, sequence.count, sequence.first_position + sequence.count});
  }
  return {spec, spans};
}

PreparedLayer prepare_layer(Backend& backend, const LayerWeights& weights) {
  PreparedLayer prepared;
  for (size_t i = 0; i < kLinearRoles; ++i) prepared.linears[i] = backend.prepare(weights.linears[i]);
  for (size_t i = 0; i < kNormRoles; ++i) {
    if (weights.norms[i].defined()) prepared.norms[i] = weights.norms[i].to(DType::f32);
  }
  return prepared;
}

void run_layer(const LayerRun& run, const PreparedLayer& weights, Tensor& hidden) {
  check_batch(run, hidden);
  run.backend.add(attention_block(run, weights, normalized(run, hidden, weights[NormRole::attention])),
                  hidden);
  run.backend.add(mlp_block(run, weights, normalized(run, hidden, weights[NormRole::mlp])), hidden);
}

}  // namespace salient
