#include "runtime/decoder.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/error.h"
#include "runtime/packed_weights.h"

namespace salient {
namespace {

/// Rows per chunk of a prompt: enough to keep products busy, few enough for small intermediate tensors.
constexpr size_t kChunk = 512;

void check_positions(const DecoderSpec& spec, int64_t end) {
  const int64_t most = spec.positions->count - spec.positions->offset;
  if (end > most) {
    fail(ErrorKind::invalid_argument, "{} positions, but the model has learned {}", end, most);
  }
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
  check_tokens(spec, run.tokens);
  const auto count = static_cast<int64_t>(run.tokens.size());
  Tensor hidden = Tensor::empty(DType::f32, {count, spec.hidden_size});
  backend.embed(embedding.table, run.tokens, hidden);
  if (spec.embedding_scale != 1) backend.scale(static_cast<float>(spec.embedding_scale), hidden);
  if (embedding.positions.defined()) {
    check_positions(spec, run.first_position + count);
    std::vector<int32_t> rows(run.tokens.size());
    std::iota(rows.begin(), rows.end(), static_cast<int32_t>(run.first_position + spec.positions->offset));
    Tensor positions = Tensor::empty(DType::f32, hidden.shape());
    backend.embed(embedding.positions, rows, positions);
    backend.add(positions, hidden);
  }
  return embedding.norm.defined() ? normalized(backend, spec.norm, embedding.norm, hidden) : hidden;
}

namespace {

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

}  // namespace

Decoder Decoder::load(const std::string& directory, Backend& backend, const DecoderOptions& options) {
  Decoder decoder;
  decoder.backend_ = &backend;
  decoder.weights_ = std::make_unique<ModelWeights>(directory);
  const PackedWeights packed = options.packed_weights.empty()
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
  forward_rows(request, cache, [&](int64_t row, const Tensor& part) {
    Tensor target = logits.slice(row - first, row - first + part.dim(0));
    std::memcpy(target.mutable_bytes(), part.bytes(), part.byte_size());
  });
  return logits;
}

void Decoder::forward_rows(const LogitRequest& request, KvCache& cache, const LogitConsumer& consume) const {
  const auto tokens = request.tokens;
  if (tokens.empty()) fail(ErrorKind::invalid_argument, "a forward pass needs at least one token");
  check_tokens(spec(), tokens);
  const int64_t before = cache.length();
  cache.mark();
  const int64_t sequence_length = before + static_cast<int64_t>(tokens.size());
  TensorPool pool;
  try {
    for (size_t begin = 0; begin < tokens.size(); begin += kChunk) {
      const auto chunk = tokens.subspan(begin, std::min(kChunk, tokens.size() - begin));
      const Tensor hidden = run_chunk({chunk, sequence_length, request.cancelled, pool}, cache);
      const int64_t skipped = std::max<int64_t>(0, request.first_row - static_cast<int64_t>(begin));
      if (skipped >= hidden.dim(0)) continue;
      consume(static_cast<int64_t>(begin) + skipped,
              final_logits(*backend_, spec(), head_, hidden.slice(skipped, hidden.dim(0))));
    }
  } catch (...) {
    cache.truncate(before);
    throw;
  }
}

Tensor Decoder::step(std::span<const int32_t> tokens, std::span<KvCache> caches,
                     const CancellationFlag* cancelled) const {
  std::vector<KvCache*> pointers;
  for (KvCache& cache : caches) pointers.push_back(&cache);
  return step(tokens, pointers, cancelled);
}

Tensor Decoder::step(std::span<const int32_t> tokens, std::span<KvCache* const> caches,
                     const CancellationFlag* cancelled) const {
  if (tokens.empty() || tokens.size() != caches.size()) {
    fail(ErrorKind::invalid_argument, "{} tokens for {} sequences; each takes one", tokens.size(),
         caches.size());
  }
  std::vector<int64_t> positions;
  for (const KvCache* cache : caches) positions.push_back(cache->length());
  Tensor logits = run_rows({tokens, caches, positions, cancelled});
  for (KvCache* cache : caches) cache->advance(1);
  return logits;
}

Tensor Decoder::forward_each(std::span<const int32_t> tokens, KvCache& cache,
                             const CancellationFlag* cancelled) const {
  if (tokens.empty()) fail(ErrorKind::invalid_argument, "a forward pass needs at least one token");
  if (spec().linear_attention) {
    fail(ErrorKind::unsupported,
         "{} has linear attention, whose states follow one token after another: several at once cannot be "
         "taken back",
         spec().architecture);
  }
  const int64_t before = cache.length();
  Tensor logits = Tensor::empty(DType::f32, {std::ssize(tokens), spec().vocab_size});
  try {
    for (int64_t row = 0; row < logits.dim(0); row += kRowsAsAlone) {
      const int64_t count = std::min(kRowsAsAlone, logits.dim(0) - row);
      const std::vector<KvCache*> caches(static_cast<size_t>(count), &cache);
      std::vector<int64_t> positions(caches.size());
      std::iota(positions.begin(), positions.end(), cache.length());
      const Tensor part =
          run_rows({tokens.subspan(static_cast<size_t>(row), caches.size()), caches, positions, cancelled});
      std::memcpy(logits.slice(row, row + count).mutable_bytes(), part.bytes(), part.byte_size());
      cache.advance(count);
    }
  } catch (...) {
    cache.truncate(before);
    throw;
  }
  return logits;
}

Tensor Decoder::run_rows(const Rows& rows) const {
  Tensor hidden = Tensor::empty(DType::f32, {std::ssize(rows.tokens), spec().hidden_size});
  std::vector<SequenceSpan> sequences;
  for (size_t i = 0; i < rows.tokens.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    const Tensor embedded =
        embed_tokens(*backend_, spec(), embedding_, {rows.tokens.subspan(i, 1), rows.positions[i]});
    std::memcpy(hidden.slice(row, row + 1).mutable_bytes(), embedded.bytes(), embedded.byte_size());
    sequences.push_back({row, 1, rows.positions[i], nullptr});
  }
  const std::vector<RopeTable> ropes = make_rope_tables(spec(), sequences);
  TensorPool pool;
  for (int64_t layer = 0; layer < spec().layers; ++layer) {
    throw_if_cancelled(rows.cancelled);
    for (size_t i = 0; i < sequences.size(); ++i) sequences[i].cache = &rows.caches[i]->layer(layer);
    run_layer({.backend = *backend_,
               .spec = spec(),
               .ropes = ropes,
               .layer = layer,
               .sequences = sequences,
               .pool = &pool},
              layers_[static_cast<size_t>(layer)], hidden);
  }
  return final_logits(*backend_, spec(), head_, hidden);
}

Tensor Decoder::run_chunk(const Chunk& chunk, KvCache& cache) const {
  Tensor hidden = embed_tokens(*backend_, spec(), embedding_, {chunk.tokens, cache.length()});
  const auto count = static_cast<int64_t>(chunk.tokens.size());
  const RopeSpan span{cache.length(), count, chunk.sequence_length};
  std::vector<RopeTable> ropes;
  for (const RopeSpec& rope : spec().ropes) ropes.emplace_back(rope, std::span(&span, 1));
  for (int64_t layer = 0; layer < spec().layers; ++layer) {
    throw_if_cancelled(chunk.cancelled);
    const SequenceSpan sequence{0, count, cache.length(), &cache.layer(layer)};
    run_layer({.backend = *backend_,
               .spec = spec(),
               .ropes = ropes,
               .layer = layer,
               .sequences = {&sequence, 1},
               .pool = &chunk.pool},
              layers_[static_cast<size_t>(layer)], hidden);
  }
  cache.advance(count);
  return hidden;
}

}  // namespace salient
