#include "runtime/layer.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "base/parallel.h"
#include "runtime/linear_attention.h"
#include "runtime/moe.h"

namespace salient {
namespace {

Tensor ones(int64_t features) {
  Tensor result = Tensor::empty(DType::f32, {features});
  std::ranges::fill(result.mutable_values<float>(), 1.0f);
  return result;
}

/// A geometric sequence that starts at 2^(-8/n) for n heads, n a power of two; for other n the even places of
/// the sequence of the next power fill up (Press et al. 2022, section 3; the filling is that of their code).
std::vector<float> alibi_slopes(int64_t heads) {
  int64_t power = 1;
  while (power * 2 <= heads) power *= 2;
  std::vector<float> slopes;
  for (int64_t i = 1; i <= power; ++i) {
    slopes.push_back(
        static_cast<float>(std::exp2(-8.0 * static_cast<double>(i) / static_cast<double>(power))));
  }
  for (int64_t i = 1; static_cast<int64_t>(slopes.size()) < heads; i += 2) {
    slopes.push_back(
        static_cast<float>(std::exp2(-4.0 * static_cast<double>(i) / static_cast<double>(power))));
  }
  return slopes;
}

/// Queries, keys and values of a batch, [rows, heads of each * features of a head].
struct QueryKeyValue {
  Tensor query;
  Tensor key;
  Tensor value;
};

/// Keys and values of the batch's sequences become theirs, keys and queries rotated by `rope` if there is
/// one.
void rope_and_store(const LayerRun& run, const RopeTable* rope, const QueryKeyValue& input) {
  std::vector<RowsForCache> caches;
  for (const SequenceSpan& sequence : run.sequences)
    if (sequence.cache != nullptr) sequence.cache->reserve(sequence.first_position, sequence.count);
  for (const SequenceSpan& sequence : run.sequences) {
    if (sequence.cache == nullptr) continue;
    caches.push_back({.begin = sequence.begin,
                      .count = sequence.count,
                      .first = sequence.first_position,
                      .pages = sequence.cache->view(run.layer)});
  }
  run.backend.rope_and_store({.query = input.query,
                              .keys = input.key,
                              .values = input.value,
                              .cosine = rope != nullptr ? rope->cosine() : Tensor(),
                              .sine = rope != nullptr ? rope->sine() : Tensor(),
                              .head_dim = run.spec.head_dim,
                              .pairs = run.spec.rope_pairs,
                              .caches = caches});
}

/// What attention reads and writes of one sequence of the batch.
struct SequenceRows {
  SequenceRows(const LayerRun& run, const SequenceSpan& sequence, const QueryKeyValue& input, Tensor& mixed)
      : query(rows_of(input.query, sequence)), output(rows_of(mixed, sequence)) {
    if (sequence.cache != nullptr) {
      cache = sequence.cache->view(run.layer);
    } else {
      keys = rows_of(input.key, sequence);
      values = rows_of(input.value, sequence);
    }
  }
  static Tensor rows_of(const Tensor& all, const SequenceSpan& sequence) {
    return all.slice(sequence.begin, sequence.begin + sequence.count);
  }

  Tensor query;
  Tensor output;
  std::optional<KvView> cache;
  Tensor keys;  // without a cache
  Tensor values;
};

/// Attention of each sequence of the batch over what its cache holds or, without one, its own keys.
void attend(const LayerRun& run, const QueryKeyValue& input, Tensor& mixed) {
  const std::vector<float> slopes = run.spec.alibi ? alibi_slopes(run.spec.heads) : std::vector<float>();
  std::vector<SequenceRows> rows;
  std::vector<AttentionProblem> problems;
  rows.reserve(run.sequences.size());  // problems refer to them
  for (const SequenceSpan& sequence : run.sequences) {
    SequenceRows& own = rows.emplace_back(run, sequence, input, mixed);
    problems.push_back({
        .query = own.query,
        .cache = own.cache ? &*own.cache : nullptr,
        .keys = own.keys,
        .values = own.values,
        .output = own.output,
        .heads = run.spec.heads,
        .kv_heads = run.spec.kv_heads,
        .head_dim = run.spec.head_dim,
        .value_dim = run.spec.value_dim,
        .first_position = sequence.first_position,
        .window = run.spec.window[static_cast<size_t>(run.layer)],
        .scale = static_cast<float>(run.spec.attention_scale),
        .softcap = static_cast<float>(run.spec.attention_softcap),
        .slopes = slopes,
    });
  }
  run.backend.attention(problems);
}

void normalize_heads(const LayerRun& run, const PreparedNorm& norm, Tensor& heads) {
  if (norm.defined()) heads = normalized(run.backend, run.spec.norm, norm, heads, run.pool);
}

/// The layer's rotation; null when it has none.
const RopeTable* rope_of(const LayerRun& run) {
  const int index = run.spec.rope_of_layer[static_cast<size_t>(run.layer)];
  return index < 0 ? nullptr : &run.ropes[static_cast<size_t>(index)];
}

/// Before any rotation.
QueryKeyValue plain_query_key_value(const LayerRun& run, const PreparedLayer& weights, const Tensor& x) {
  const Linears linear(run, weights);
  auto heads = linear.of_one_input({LinearRole::q, LinearRole::k, LinearRole::v}, x);
  QueryKeyValue result{std::move(heads[0]), std::move(heads[1]), std::move(heads[2])};
  normalize_heads(run, weights[NormRole::query], result.query);
  normalize_heads(run, weights[NormRole::key], result.key);
  return result;
}

/// Columns [begin, end) of every row, a copy.
Tensor copy_columns(const LayerRun& run, const Tensor& matrix, int64_t begin, int64_t end) {
  Tensor result = run.rows_like(matrix, end - begin);
  const float* from = matrix.values<float>().data() + begin;
  float* to = result.mutable_values<float>().data();
  for (int64_t row = 0; row < matrix.dim(0); ++row) {
    std::copy_n(from + row * matrix.dim(1), end - begin, to + row * (end - begin));
  }
  return result;
}

/// Keys [plain part of the head, the rotated part that all heads share] and values from kv_b's output
/// [rows, heads * (plain_dim + value_dim)].
void expand_latents(const LayerRun& run, const Tensor& expanded, const Tensor& rotated,
                    QueryKeyValue& result) {
  const DecoderSpec& spec = run.spec;
  const LatentAttention& latent = *spec.latent;
  result.key = run.rows_like(expanded, spec.key_features());
  result.value = run.rows_like(expanded, spec.value_features());
  const float* from = expanded.values<float>().data();
  float* key = result.key.mutable_values<float>().data();
  float* value = result.value.mutable_values<float>().data();
  for (int64_t row = 0; row < expanded.dim(0); ++row) {
    const float* shared = rotated.values<float>().data() + row * latent.rotated_dim;
    for (int64_t head = 0; head < spec.heads; ++head) {
      key = std::copy_n(from, latent.plain_dim, key);
      key = std::copy_n(shared, latent.rotated_dim, key);
      value = std::copy_n(from + latent.plain_dim, spec.value_dim, value);
      from += latent.plain_dim + spec.value_dim;
    }
  }
}

/// DeepSeek-AI 2024, section 2.1, with keys and values written out rather than absorbed: what the weights are
/// calibrated for.
QueryKeyValue latent_query_key_value(const LayerRun& run, const PreparedLayer& weights, const Tensor& x) {
  const LatentAttention& latent = *run.spec.latent;
  const Linears linear(run, weights);
  const NormSpec norm{.epsilon = latent.norm_epsilon};
  QueryKeyValue result;
  if (latent.query_rank == 0) {
    result.query = linear(LinearRole::q, x);
  } else {
    const Tensor low = linear(LinearRole::q_a, x);
    result.query = linear(LinearRole::q_b,
                          normalized(run.backend, norm, weights[NormRole::query_latent], low, run.pool));
  }
  const Tensor low = linear(LinearRole::kv_a, x);
  const Tensor key_latent = copy_columns(run, low, 0, latent.key_value_rank);
  Tensor rotated = copy_columns(run, low, latent.key_value_rank, low.dim(1));
  const RopeTable& rope = *rope_of(run);
  run.backend.rope({.cosine = rope.cosine(),
                    .sine = rope.sine(),
                    .head_dim = latent.rotated_dim,
                    .pairs = run.spec.rope_pairs,
                    .x = rotated});
  run.backend.rope({.cosine = rope.cosine(),
                    .sine = rope.sine(),
                    .head_dim = run.spec.head_dim,
                    .pairs = run.spec.rope_pairs,
                    .first = latent.plain_dim,
                    .x = result.query});
  const Tensor expanded = linear(
      LinearRole::kv_b, normalized(run.backend, norm, weights[NormRole::key_latent], key_latent, run.pool));
  expand_latents(run, expanded, rotated, result);
  return result;
}

/// mixed *= sigmoid(gate x), where the family has the gate.
Tensor gated(const LayerRun& run, const PreparedLayer& weights, const Tensor& x, Tensor mixed) {
  if (!run.spec.attention_gate) return mixed;
  Tensor gate = Linears(run, weights)(LinearRole::attention_gate, x);
  run.backend.gated_activation(Activation::sigmoid, gate, mixed, gate);
  return gate;
}

/// softmax(q k^T * scale) v, what o reads.
Tensor mixed_values(const LayerRun& run, const PreparedLayer& weights, const Tensor& x) {
  const bool latent = run.spec.latent.has_value();  // rotated on its way here
  const QueryKeyValue input =
      latent ? latent_query_key_value(run, weights, x) : plain_query_key_value(run, weights, x);
  rope_and_store(run, latent ? nullptr : rope_of(run), input);
  Tensor mixed = run.rows_like(x, run.spec.heads * run.spec.value_dim);
  attend(run, input, mixed);
  return gated(run, weights, x, mixed);
}

Tensor attention_block(const LayerRun& run, const PreparedLayer& weights, const Tensor& x) {
  if (run.spec.has_state(run.layer)) return linear_attention_block(run, weights, x);
  return Linears(run, weights)(LinearRole::o, mixed_values(run, weights, x));
}

const MlpRoles& plain_mlp() {
  static const MlpRoles roles{LinearRole::gate, LinearRole::up, LinearRole::down};
  return roles;
}

Tensor feed_forward(const LayerRun& run, const PreparedLayer& weights, const Tensor& x) {
  if (run.spec.has_experts(run.layer)) return moe_block(run, weights, x);
  return mlp_block(run, weights, plain_mlp(), x);
}

/// What a block reads: the residual stream through the norm before the block, if the family has one there.
Tensor block_input(const LayerRun& run, const PreparedNorm& norm, const Tensor& hidden) {
  if (!norm.defined() && run.spec.norm.weight) return hidden;
  return normalized(run.backend, run.spec.norm, norm, hidden, run.pool);
}

/// hidden += block, through the family's norm on the block's output if it has one, and scaled.
void add_block(const LayerRun& run, const PreparedNorm& norm, Tensor block, Tensor& hidden) {
  if (norm.defined()) block = normalized(run.backend, run.spec.norm, norm, block, run.pool);
  if (run.spec.residual_scale != 1) run.backend.scale(static_cast<float>(run.spec.residual_scale), block);
  run.backend.add(block, hidden);
}

/// add_block behind attention and block_input of the feed-forward block, in one pass over the rows where
/// nothing stands between the two.
Tensor add_attention(const LayerRun& run, const PreparedLayer& weights, Tensor block, Tensor& hidden) {
  const PreparedNorm& behind = weights[NormRole::after_attention];
  const PreparedNorm& next = weights[NormRole::mlp];
  const NormSpec& norm = run.spec.norm;
  if (behind.defined() || !next.defined() || norm.kind != NormKind::rms || run.spec.residual_scale != 1) {
    add_block(run, behind, std::move(block), hidden);
    return block_input(run, next, hidden);
  }
  Tensor input = run.rows_like(hidden, hidden.dim(1));
  run.backend.add_rms_norm(
      {.x = block, .weight = next.gain, .epsilon = norm.epsilon, .sum = hidden, .y = input});
  return input;
}

/// The linears behind attention, packed, where rows pass them in slices; else none.
std::optional<PreparedLayer> packed_for_slices(const LayerRun& run, const PreparedLayer& weights,
                                               int64_t rows) {
  const bool stepwise = run.order == LayerOrder::stepwise;
  if (stepwise || weights.make || !passes_in_slices(run.spec, run.layer, rows, thread_count())) return {};
  PreparedLayer packed = weights;
  for (const LinearId id : {LinearRole::o, LinearRole::gate, LinearRole::up, LinearRole::down}) {
    const auto found = packed.linears.find(id);
    if (found == packed.linears.end()) continue;
    found->second = run.backend.pack(*found->second, run.pool);
    if (!found->second) return {};
  }
  return packed;
}

/// What is left of a layer behind `mixed`, what o reads, slice by slice.
class LayerSlices {
 public:
  LayerSlices(const LayerRun& run, const PreparedLayer& packed, const Tensor& mixed)
      : run_(run), silent_(run), packed_(packed), mixed_(mixed) {
    silent_.observer = nullptr;
  }

  void finish(Tensor& hidden) {
    if (run_.observer != nullptr) {
      (*run_.observer)(LinearRole::o, mixed_);
      seen_ = run_.rows_like(mixed_, hidden.dim(1));
      inner_ = run_.rows_like(mixed_, packed_[LinearRole::down]->in_features());
    }
    parallel_for(static_cast<size_t>(hidden.dim(0)), kRowsPerSlice, [&](size_t begin, size_t end) {
      Tensor rows = hidden.slice(static_cast<int64_t>(begin), static_cast<int64_t>(end));
      finish_slice(static_cast<int64_t>(begin), rows);
    });
    if (run_.observer == nullptr) return;
    if (run_.spec.gated_mlp) (*run_.observer)(LinearRole::gate, seen_);
    (*run_.observer)(LinearRole::up, seen_);
    (*run_.observer)(LinearRole::down, inner_);
  }

 private:
  void finish_slice(int64_t begin, Tensor& rows) {
    const Linears linear(silent_, packed_);
    const Tensor attention = linear(LinearRole::o, mixed_.slice(begin, begin + rows.dim(0)));
    const Tensor x = add_attention(silent_, packed_, attention, rows);
    const Tensor inner = mlp_hidden(silent_, packed_, plain_mlp(), x);
    if (seen_.defined()) {
      copy_rows(x, seen_, begin);
      copy_rows(inner, inner_, begin);
    }
    add_block(silent_, packed_[NormRole::after_mlp], linear(LinearRole::down, inner), rows);
  }

  const LayerRun& run_;
  LayerRun silent_;  // without observer, which sees whole batches
  const PreparedLayer& packed_;
  const Tensor& mixed_;
  Tensor seen_;   // what gate and up read, for the observer
  Tensor inner_;  // what down reads
};

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
  if (row != hidden.dim(0)) {
    fail(ErrorKind::internal, "layer {}: {} rows in sequences, hidden states {}", run.layer, row,
         to_string(hidden.shape()));
  }
  for (const RopeTable& rope : run.ropes) {
    if (rope.cosine().dim(0) == row) continue;
    fail(ErrorKind::internal, "layer {}: {} rows, {} in a rope table", run.layer, row, rope.cosine().dim(0));
  }
}

}  // namespace

PreparedNorm prepare_norm(const NormWeight& norm) {
  if (!norm.defined()) return {};
  return {gain_of(norm), norm.bias.defined() ? norm.bias.to(DType::f32) : Tensor()};
}

Tensor normalized(Backend& backend, const NormSpec& spec, const PreparedNorm& norm, const Tensor& x,
                  TensorPool* pool) {
  if (!norm.defined() && spec.weight) {
    fail(ErrorKind::internal, "a norm over {} features has no weights", x.dim(1));
  }
  Tensor y = pool_or_new(pool, DType::f32, x.shape());
  const Tensor gain = norm.defined() ? norm.gain : ones(x.dim(1));
  if (spec.kind == NormKind::rms) {
    backend.rms_norm(x, gain, spec.epsilon, y);
  } else {
    backend.layer_norm(x, {gain, norm.bias}, spec.epsilon, y);
  }
  return y;
}

std::vector<RopeTable> make_rope_tables(const DecoderSpec& spec, std::span<const SequenceSpan> sequences) {
  std::vector<RopeSpan> spans;
  spans.reserve(sequences.size());
  for (const SequenceSpan& sequence : sequences) {
    spans.push_back({sequence.first_position, sequence.count, sequence.first_position + sequence.count});
  }
  std::vector<RopeTable> tables;
  for (const RopeSpec& rope : spec.ropes) tables.emplace_back(rope, spans);
  return tables;
}

bool passes_in_slices(const DecoderSpec& spec, int64_t layer, int64_t rows, size_t threads) {
  const bool plain = !spec.parallel_block && !spec.has_state(layer) && !spec.has_experts(layer);
  return plain && rows >= kRowsPerSlice * static_cast<int64_t>(threads);
}

PreparedLayer prepare_layer(Backend& backend, const LayerWeights& weights) {
  PreparedLayer prepared = prepare_all_but_linears(weights);
  for (const auto& [id, weight] : weights.linears) prepared.linears[id] = backend.prepare(weight);
  return prepared;
}

PreparedLayer prepare_all_but_linears(const LayerWeights& weights) {
  PreparedLayer prepared;
  for (size_t i = 0; i < kNormRoles; ++i) prepared.norms[i] = prepare_norm(weights.norms[i]);
  prepared.router_correction = weights.router_correction;
  prepared.state_tensors = weights.state_tensors;
  return prepared;
}

Tensor Linears::operator()(const LinearId& id, const Tensor& x) const {
  if (run_.observer != nullptr) (*run_.observer)(id, x);
  const auto weight = weights_[id];
  Tensor y = run_.rows_like(x, weight->out_features());
  run_.backend.linear(*weight, x, y);
  return y;
}

std::vector<Tensor> Linears::of_one_input(std::initializer_list<LinearId> ids, const Tensor& x) const {
  std::vector<Tensor> results;
  results.reserve(ids.size());
  if (weights_.make) {  // it holds one linear at a time
    for (const LinearId& id : ids) results.push_back((*this)(id, x));
    return results;
  }
  std::vector<LinearOutput> outputs;
  for (const LinearId& id : ids) {
    if (run_.observer != nullptr) (*run_.observer)(id, x);
    const PreparedLinear& weight = *weights_.linears.at(id);
    outputs.push_back({weight, results.emplace_back(run_.rows_like(x, weight.out_features()))});
  }
  run_.backend.linears(outputs, x);
  return results;
}

void run_layer(const LayerRun& run, const PreparedLayer& weights, Tensor& hidden) {
  check_batch(run, hidden);
  const Tensor attention_input = block_input(run, weights[NormRole::attention], hidden);
  if (const auto packed = packed_for_slices(run, weights, hidden.dim(0))) {
    const Tensor mixed = mixed_values(run, weights, attention_input);
    return LayerSlices(run, *packed, mixed).finish(hidden);
  }
  const Tensor attention = attention_block(run, weights, attention_input);
  if (run.spec.parallel_block) {
    const Tensor mlp = feed_forward(run, weights, attention_input);
    add_block(run, weights[NormRole::after_attention], attention, hidden);
    add_block(run, weights[NormRole::after_mlp], mlp, hidden);
    return;
  }
  const Tensor mlp = feed_forward(run, weights, add_attention(run, weights, attention, hidden));
  add_block(run, weights[NormRole::after_mlp], mlp, hidden);
}

}  // namespace salient
