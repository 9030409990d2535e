#include "runtime/decoder.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace salient {
namespace {

/// Rows per chunk of a prompt: enough to keep products busy, few enough for small intermediate tensors.
constexpr size_t kChunk = 512;

void check_tokens(const DecoderSpec& spec, std::span<const int32_t> tokens) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= spec.vocab_size) {
      fail(ErrorKind::invalid_argument, "token {} is {}, but the vocabulary has {} entries", i, tokens[i],
           spec.vocab_size);
    }
  }
}

}  // namespace

Tensor embed_tokens(Backend& backend, const ModelWeights& weights, std::span<const int32_t> tokens) {
  const DecoderSpec& spec = weights.spec();
  check_tokens(spec, tokens);
  Tensor hidden = Tensor::empty(DType::f32, {static_cast<int64_t>(tokens.size()), spec.hidden_size});
  backend.embed(weights.embedding(), tokens, hidden);
  return hidden;
}

PreparedHead prepare_head(Backend& backend, const ModelWeights& weights) {
  return {weights.final_norm().to(DType::f32), weights.spec().norm_epsilon, backend.prepare(weights.head())};
}

Tensor final_logits(Backend& backend, const PreparedHead& head, const Tensor& hidden) {
  Tensor normalized = Tensor::empty(DType::f32, hidden.shape());
  backend.rms_norm(hidden, head.norm, head.norm_epsilon, normalized);
  Tensor logits = Tensor::empty(DType::f32, {hidden.dim(0), head.projection->out_features()});
  backend.linear(*head.projection, normalized, logits);
  return logits;
}

Decoder Decoder::load(const std::string& directory, Backend& backend) {
  Decoder decoder;
  decoder.backend_ = &backend;
  decoder.weights_ = std::make_unique<ModelWeights>(directory);
  for (int64_t layer = 0; layer < decoder.spec().layers; ++layer) {
    decoder.layers_.push_back(prepare_layer(backend, decoder.weights_->layer(layer)));
    decoder.weights_->release_layer(layer);
  }
  decoder.head_ = prepare_head(backend, *decoder.weights_);
  return decoder;
}

Tensor Decoder::forward(std::span<const int32_t> tokens, KvCache& cache,
                        const ForwardOptions& options) const {
  if (tokens.empty()) fail(ErrorKind::invalid_argument, "a forward pass needs at least one token");
  check_tokens(spec(), tokens);
  const int64_t before = cache.length();
  const int64_t sequence_length = before + static_cast<int64_t>(tokens.size());
  const bool all = options.rows == LogitRows::all;
  Tensor logits;
  if (all) logits = Tensor::empty(DType::f32, {static_cast<int64_t>(tokens.size()), spec().vocab_size});
  try {
    for (size_t begin = 0; begin < tokens.size(); begin += kChunk) {
      const auto chunk = tokens.subspan(begin, std::min(kChunk, tokens.size() - begin));
      const Tensor hidden = run_chunk({chunk, sequence_length, options.cancelled}, cache);
      if (all) {
        const Tensor part = final_logits(*backend_, head_, hidden);
        Tensor target = logits.slice(static_cast<int64_t>(begin), static_cast<int64_t>(begin + chunk.size()));
        std::memcpy(target.mutable_bytes(), part.bytes(), part.byte_size());
      } else if (begin + chunk.size() == tokens.size()) {
        logits = final_logits(*backend_, head_, hidden.slice(hidden.dim(0) - 1, hidden.dim(0)));
      }
    }
  } catch (...) {
    cache.truncate(before);
    throw;
  }
  return logits;
}

Tensor Decoder::run_chunk(const Chunk& chunk, KvCache& cache) const {
  Tensor hidden = embed_tokens(*backend_, *weights_, chunk.tokens);
  const auto count = static_cast<int64_t>(chunk.tokens.size());
  const RopeSpan span{cache.length(), count, chunk.sequence_length};
  const RopeTable rope(spec().rope, {&span, 1});
  for (int64_t layer = 0; layer < spec().layers; ++layer) {
    throw_if_cancelled(chunk.cancelled);
    const SequenceSpan sequence{0, count, cache.length(), &cache.layer(layer)};
    run_layer({*backend_, spec(), rope, layer, {&sequence, 1}}, layers_[static_cast<size_t>(layer)], hidden);
  }
  cache.advance(count);
  return hidden;
}

}  // namespace salient
