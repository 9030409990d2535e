#include "runtime/decoder.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "runtime/packed_weights.h"

namespace salient {
namespace {

/// Rows per chunk of a prompt: enough to keep products busy, few enough for small intermediate tensors.
constexpr int64_t kChunk = 4 * kPageRows;

void check_positions(const DecoderSpec& spec, int64_t end) {
  const int64_t most = spec.positions->count - spec.positions->offset;
  if (end > most) {
    fail(ErrorKind::invalid_argument, "{} positions, but the model has learned {}", end, most);
  }
}

PreparedLayer load_layer(Backend& backend, const ModelWeights& weights, const PackedWeights& packed,
                         int64_t layer) {
  const auto is_packed = [&](const LinearSlot& slot) { return packed.contains(layer, slot.id); };
  const LayerWeights stored = weights.layer(layer, is_packed);
  PreparedLayer prepared = prepare_all_but_linears(stored);
  for (const LinearSlot& slot : weights.spec().linears(layer)) {
    const LinearWeight& weight = stored[slot.id];
    prepared.linears[slot.id] =
        is_packed(slot) ? packed.prepare(backend, layer, slot, weight.bias) : backend.prepare(weight);
  }
  return prepared;
}

PreparedHead load_head(Backend& backend, const ModelWeights& weights, const PackedWeights& packed,
                       LmHead lm_head) {
  if (!packed.contains_head()) return prepare_head(backend, weights, lm_head);
  return {prepare_norm(weights.final_norm()), packed.prepare_head(backend, weights.spec()), "int8"};
}

/// Takes caches back to where they were unless `keep` is called.
class CacheGuard {
 public:
  void add(KvCache& cache) {
    cache.mark();
    before_.emplace_back(&cache, cache.length());
  }
  void keep() { before_.clear(); }
  ~CacheGuard() {
    for (const auto& [cache, length] : before_) cache->truncate(length);
  }

 private:
  std::vector<std::pair<KvCache*, int64_t>> before_;
};

void require_tokens(std::span<const int32_t> tokens) {
  if (tokens.empty()) fail(ErrorKind::invalid_argument, "a forward pass needs at least one token");
}

/// Hidden states of the tokens of several runs, one run behind the other.
Tensor embed_runs(Backend& backend, const DecoderSpec& spec, const PreparedEmbedding& embedding,
                  std::span<const TokenRun> runs) {
  std::vector<int32_t> tokens;
  for (const TokenRun& run : runs) tokens.insert(tokens.end(), run.tokens.begin(), run.tokens.end());
  check_tokens(spec, tokens);
  Tensor hidden = Tensor::empty(DType::f32, {std::ssize(tokens), spec.hidden_size});
  backend.embed(embedding.table, tokens, hidden);
  if (spec.embedding_scale != 1) backend.scale(static_cast<float>(spec.embedding_scale), hidden);
  if (embedding.positions.defined()) {
    std::vector<int32_t> rows;
    for (const TokenRun& run : runs) {
      const int64_t end = run.first_position + std::ssize(run.tokens);
      check_positions(spec, end);
      for (int64_t position = run.first_position; position < end; ++position)
        rows.push_back(static_cast<int32_t>(position + spec.positions->offset));
    }
    Tensor positions = Tensor::empty(DType::f32, hidden.shape());
    backend.embed(embedding.positions, rows, positions);
    backend.add(positions, hidden);
  }
  return embedding.norm.defined() ? normalized(backend, spec.norm, embedding.norm, hidden) : hidden;
}

}  // namespace

void check_tokens(const DecoderSpec& spec, std::span<const int32_t> tokens) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= spec.vocab_size) {
      fail(ErrorKind::invalid_argument, "token {} is {}, but the vocabulary has {} entries", i, tokens[i],
           spec.vocab_size);
    }
  }
}

PreparedEmbedding prepare_embedding(const ModelWeights& weights) {
  return {weights.embedding(), weights.positions(), prepare_norm(weights.embedding_norm())};
}

Tensor embed_tokens(Backend& backend, const DecoderSpec& spec, const PreparedEmbedding& embedding,
                    const TokenRun& run) {
  return embed_runs(backend, spec, embedding, {&run, 1});
}

Decoder Decoder::load(const std::string& directory, Backend& backend, const DecoderOptions& options) {
  Decoder decoder;
  decoder.backend_ = &backend;
  decoder.kv_type_ = options.kv_type;
  decoder.weights_ = std::make_unique<ModelWeights>(directory);
  decoder.spec_ = std::make_unique<DecoderSpec>(decoder.weights_->spec());
  const PackedWeights packed = options.packed_weights.empty() || !backend.keeps_packed_weights()
                                   ? PackedWeights()
                                   : PackedWeights(backend, *decoder.weights_,
                                                   {.folder = options.packed_weights,
                                                    .lm_head = options.lm_head,
                                                    .cancelled = options.cancelled});
  for (int64_t layer = 0; layer < decoder.spec().layers; ++layer) {
    throw_if_cancelled(options.cancelled);
    decoder.layers_.push_back(load_layer(backend, *decoder.weights_, packed, layer));
    decoder.weights_->release_layer(layer);
  }
  throw_if_cancelled(options.cancelled);
  decoder.embedding_ = prepare_embedding(*decoder.weights_);
  decoder.head_ = load_head(backend, *decoder.weights_, packed, options.lm_head);
  return decoder;
}

Decoder Decoder::of(Backend& backend, DecoderParts parts, KvType kv_type) {
  Decoder decoder;
  decoder.backend_ = &backend;
  decoder.kv_type_ = kv_type;
  decoder.spec_ = std::make_unique<DecoderSpec>(std::move(parts.spec));
  decoder.layers_ = std::move(parts.layers);
  decoder.embedding_ = std::move(parts.embedding);
  decoder.head_ = std::move(parts.head);
  return decoder;
}

bool Decoder::rows_are_apart() const {
  const auto in_panels = [&](const PreparedLayer& layer) {
    return std::ranges::all_of(
        layer.linears, [&](const auto& entry) { return backend_->packed_weight(*entry.second).has_value(); });
  };
  return rows_as_alone() == kAnyRows && std::ranges::all_of(layers_, in_panels);
}

int64_t Decoder::prompt_chunk(int64_t length, int64_t tokens) {
  return std::min(kChunk - length % kChunk, tokens);
}

double Decoder::step_weight_bytes(int64_t sequences) const {
  double bytes = head_bytes();
  const double used = !spec().moe
                          ? 1
                          : std::min(1.0, static_cast<double>(sequences * spec().moe->experts_per_token) /
                                              static_cast<double>(spec().moe->experts));
  for (const PreparedLayer& layer : layers_) {
    for (const auto& [id, linear] : layer.linears) {
      bytes += static_cast<double>(linear->byte_size()) * (is_expert(id.role) ? used : 1);
    }
  }
  return bytes;
}

Tensor Decoder::forward(std::span<const int32_t> tokens, KvCache& cache,
                        const ForwardOptions& options) const {
  const bool all = options.rows == LogitRows::all || tokens.empty();
  return logits({tokens, all ? 0 : static_cast<int64_t>(tokens.size()) - 1, options.cancelled}, cache);
}

Tensor Decoder::logits(const LogitRequest& request, KvCache& cache) const {
  const int64_t first = request.first_row;
  Tensor logits = Tensor::empty(DType::f32, {std::ssize(request.tokens) - first, spec().vocab_size});
  forward_rows(request, cache,
               [&](int64_t row, const Tensor& part) { copy_rows(part, logits, row - first); });
  return logits;
}

void Decoder::forward_rows(const LogitRequest& request, KvCache& cache, const LogitConsumer& consume) const {
  const auto tokens = request.tokens;
  require_tokens(tokens);
  check_tokens(spec(), tokens);
  const int64_t sequence_length = cache.length() + std::ssize(tokens);
  CacheGuard guard;
  guard.add(cache);
  TensorPool pool;
  for (int64_t begin = 0; begin < std::ssize(tokens);) {
    const int64_t count = prompt_chunk(cache.length(), std::ssize(tokens) - begin);
    const auto chunk = tokens.subspan(static_cast<size_t>(begin), static_cast<size_t>(count));
    Rows rows;
    rows.add(chunk, {cache.length(), count, sequence_length}, cache);
    const Tensor hidden = run_rows(rows, pool, request.cancelled);
    cache.advance(count);
    const int64_t skipped = std::max<int64_t>(0, request.first_row - begin);
    if (skipped < count) consume(begin + skipped, head(hidden.slice(skipped, count)));
    begin += count;
  }
  guard.keep();
}

Tensor Decoder::run(std::span<const SequencePart> parts, const CancellationFlag* cancelled) const {
  CacheGuard guard;
  Rows rows;
  std::vector<int32_t> wanted;
  for (const SequencePart& part : parts) {
    require_tokens(part.tokens);
    check_tokens(spec(), part.tokens);
    guard.add(part.cache);
    const int64_t first = part.cache.length();
    const int64_t end = first + std::ssize(part.tokens);
    rows.add(part.tokens, {first, end - first, std::max(end, part.sequence_length)}, part.cache);
    const auto row_end = static_cast<int32_t>(rows.tokens.size());
    for (auto row = row_end - static_cast<int32_t>(part.logit_rows); row < row_end; ++row)
      wanted.push_back(row);
  }
  if (parts.empty()) require_tokens({});
  TensorPool pool;
  const Tensor hidden = run_rows(rows, pool, cancelled);
  const Tensor logits = head_of_sequences(taken_rows(hidden, wanted));
  for (const SequencePart& part : parts) part.cache.advance(std::ssize(part.tokens));
  guard.keep();
  return logits;
}

/// Rows in ascending order, by one launch where the device has them.
Tensor Decoder::taken_rows(const Tensor& hidden, std::span<const int32_t> rows) const {
  if (std::ssize(rows) == hidden.dim(0)) return hidden;
  Tensor taken = Tensor::empty(DType::f32, {std::ssize(rows), spec().hidden_size});
  backend_->gather_rows(hidden, rows, taken);
  return taken;
}

/// A head in floating point would round sums of more rows in another order: it takes few at a time, except
/// where all else does so too and each time costs as much as one.
Tensor Decoder::head_of_sequences(const Tensor& hidden) const {
  const int64_t rows = hidden.dim(0);
  if (rows <= kRowsAsAlone || favors_many_rows()) return head(hidden);
  Tensor logits = Tensor::empty(DType::f32, {rows, spec().vocab_size});
  for (int64_t begin = 0; begin < rows; begin += kRowsAsAlone)
    copy_rows(head(hidden.slice(begin, std::min(rows, begin + kRowsAsAlone))), logits, begin);
  return logits;
}

Tensor Decoder::step(std::span<const int32_t> tokens, std::span<KvCache> caches,
                     const CancellationFlag* cancelled) const {
  if (tokens.size() != caches.size()) {
    fail(ErrorKind::invalid_argument, "{} tokens for {} sequences; each takes one", tokens.size(),
         caches.size());
  }
  std::vector<SequencePart> parts;
  for (size_t i = 0; i < tokens.size(); ++i)
    parts.push_back({.tokens = tokens.subspan(i, 1), .cache = caches[i]});
  return run(parts, cancelled);
}

Tensor Decoder::forward_each(std::span<const int32_t> tokens, KvCache& cache,
                             const CancellationFlag* cancelled) const {
  require_tokens(tokens);
  check_tokens(spec(), tokens);
  if (spec().linear_attention) {
    fail(ErrorKind::unsupported,
         "{} has linear attention, whose states follow one token after another: several at once cannot be "
         "taken back",
         spec().architecture);
  }
  CacheGuard guard;
  guard.add(cache);
  TensorPool pool;
  Tensor logits = Tensor::empty(DType::f32, {std::ssize(tokens), spec().vocab_size});
  for (int64_t row = 0; row < logits.dim(0); row += kRowsAsAlone) {
    const int64_t count = std::min(kRowsAsAlone, logits.dim(0) - row);
    Rows rows;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t position = cache.length() + i;
      rows.add(tokens.subspan(static_cast<size_t>(row + i), 1), {position, 1, position + 1}, cache);
    }
    copy_rows(head(run_rows(rows, pool, cancelled)), logits, row);
    cache.advance(count);
  }
  guard.keep();
  return logits;
}

void Decoder::Rows::add(std::span<const int32_t> more, const RopeSpan& span, KvCache& cache) {
  tokens.insert(tokens.end(), more.begin(), more.end());
  spans.push_back(span);
  caches.push_back(&cache);
}

Tensor Decoder::run_rows(const Rows& rows, TensorPool& pool, const CancellationFlag* cancelled) const {
  std::vector<TokenRun> runs;
  std::vector<SequenceSpan> sequences;
  int64_t row = 0;
  for (size_t i = 0; i < rows.spans.size(); ++i) {
    const RopeSpan& span = rows.spans[i];
    const auto tokens =
        std::span(rows.tokens).subspan(static_cast<size_t>(row), static_cast<size_t>(span.count));
    runs.push_back({tokens, span.first_position});
    sequences.push_back({row, span.count, span.first_position, rows.caches[i]});
    row += span.count;
  }
  Tensor hidden = embed_runs(*backend_, spec(), embedding_, runs);
  std::vector<RopeTable> ropes;
  for (const RopeSpec& rope : spec().ropes) ropes.emplace_back(rope, rows.spans);
  for (int64_t layer = 0; layer < spec().layers; ++layer) {
    throw_if_cancelled(cancelled);
    run_layer({.backend = *backend_,
               .spec = spec(),
               .ropes = ropes,
               .layer = layer,
               .sequences = sequences,
               .pool = &pool},
              layers_[static_cast<size_t>(layer)], hidden);
  }
  return hidden;
}

}  // namespace salient
