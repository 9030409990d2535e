#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/cancellation.h"
#include "model/weights.h"
#include "runtime/head.h"
#include "runtime/kv_cache.h"
#include "runtime/layer.h"
#include "runtime/shortlist.h"

namespace salient {

/// Which rows of logits the caller wants.
enum class LogitRows { last, all };

/// Token ids [tokens] of sequences that stand behind one another, and where each starts.
struct TokenRun {
  std::span<const int32_t> tokens;
  int64_t first_position = 0;
};

/// Everything before the first layer.
struct PreparedEmbedding {
  Tensor table;      ///< [vocab, hidden], as stored
  Tensor positions;  ///< [rows, hidden], as stored; undefined for a family without
  PreparedNorm norm;
};

PreparedEmbedding prepare_embedding(const ModelWeights& weights);

/// Errors: invalid_argument for an id outside the vocabulary.
void check_tokens(const DecoderSpec& spec, std::span<const int32_t> tokens);

/// Hidden states f32 [tokens, hidden]. Errors: invalid_argument for an id outside the vocabulary or a
/// position outside the learned ones.
Tensor embed_tokens(Backend& backend, const DecoderSpec& spec, const PreparedEmbedding& embedding,
                    const TokenRun& run);

struct ForwardOptions {
  LogitRows rows = LogitRows::last;
  const CancellationFlag* cancelled = nullptr;  ///< polled once per layer and chunk
};

/// Takes logits f32 [rows, vocab] of the tokens from `row` on.
using LogitConsumer = std::function<void(int64_t row, const Tensor& logits)>;

struct DecoderOptions {
  /// A folder where packed weights are kept, see PackedWeights; empty, or on a GPU: they are packed in
  /// memory.
  std::string packed_weights{};
  /// How its caches keep keys and values.
  KvType kv_type = KvType::fp32;
  LmHead lm_head = LmHead::automatic;
  const CancellationFlag* cancelled = nullptr;
};

/// Tokens that a pass appends to a sequence.
struct SequencePart {
  std::span<const int32_t> tokens;
  KvCache& cache;
  /// Of the whole prompt, with all parts that follow; dynamic and longrope turn by it. 0: none follow.
  int64_t sequence_length = 0;
  /// Of so many of the last tokens the logits are wanted.
  int64_t logit_rows = 1;
};

/// What a decoder consists of, prepared by one back end.
struct DecoderParts {
  DecoderSpec spec;
  std::vector<PreparedLayer> layers;
  PreparedEmbedding embedding;
  PreparedHead head;
};

/// A model with all its layers prepared, for generation.
class Decoder {
 public:
  /// Opens the directory and prepares every layer. The back end must outlive the decoder. Errors: those of
  /// ModelWeights, PackedWeights and rounded_head; cancelled, polled once per layer.
  static Decoder load(const std::string& directory, Backend& backend, const DecoderOptions& options = {});

  /// A model that is in no directory: it has no `weights`. The back end must outlive it.
  static Decoder of(Backend& backend, DecoderParts parts, KvType kv_type = KvType::fp32);

  const DecoderSpec& spec() const { return *spec_; }
  const ModelWeights& weights() const { return *weights_; }
  int64_t rows_as_alone() const { return backend_->rows_as_alone(); }
  bool favors_many_rows() const { return backend_->favors_many_rows(); }
  /// See Backend.
  std::optional<uint64_t> free_device_bytes() const { return backend_->free_device_bytes(); }
  /// Whether rows get the bytes that they would get alone in passes of any number: activations are integers
  /// and all weights of layers in panels. (Of the head passes take few rows at a time.)
  bool rows_are_apart() const;
  /// Of so many tokens behind `length` others those that `forward` takes at a time.
  static int64_t prompt_chunk(int64_t length, int64_t tokens);
  KvType kv_type() const { return kv_type_; }
  KvCache make_cache() const { return KvCache(spec(), kv_type_); }
  /// Bytes of weights that `step` reads for so many sequences, each weight once: of the experts as many as
  /// so many tokens can be routed to, and no embedding, of which a step reads rows only.
  double step_weight_bytes(int64_t sequences) const;
  /// Of these, those of the head; and what it is: "bf16", "int8".
  double head_bytes() const { return static_cast<double>(head_.projection->byte_size()); }
  const std::string& head_form() const { return head_.form; }

  /// Appends `tokens` to the sequence of `cache` and returns logits f32 [1 or tokens, vocab]. Long prompts
  /// run in chunks, so that memory stays bounded. An Error leaves the cache as it was. Errors:
  /// invalid_argument for no tokens or an id outside the vocabulary; cancelled.
  Tensor forward(std::span<const int32_t> tokens, KvCache& cache, const ForwardOptions& options) const;

  /// Appends to each of several sequences some tokens, in one pass, and returns the logits asked for, f32
  /// [rows of all, vocab]. The caches differ. What a sequence gets depends on nothing but itself where
  /// weights are in panels, activations are integers and its parts begin at multiples of kPageRows or behind
  /// all of its prompt; elsewhere up to kRowsAsAlone tokens of as many sequences get the bytes that each
  /// would get alone. An Error leaves the caches as they were. Errors: invalid_argument for no tokens or an
  /// id outside the vocabulary; cancelled.
  Tensor run(std::span<const SequencePart> parts, const CancellationFlag* cancelled) const;
  /// The same with one token for each.
  Tensor step(std::span<const int32_t> tokens, std::span<KvCache> caches,
              const CancellationFlag* cancelled) const;

  /// Appends tokens to one sequence and returns the logits f32 [tokens, vocab] behind each of them: the very
  /// bytes that `forward` gives for one token after another, in a pass for kRowsAsAlone tokens. An Error
  /// leaves the cache as it was. Errors: as `forward`; unsupported for a model with linear attention, whose
  /// states of the positions between would be lost.
  Tensor forward_each(std::span<const int32_t> tokens, KvCache& cache,
                      const CancellationFlag* cancelled) const;

  /// What tokens can be drawn from, of each row of logits [rows, vocab].
  Shortlists shortlists(const Tensor& logits, std::span<const ShortlistNeeds> needs) const {
    return {*backend_, logits, needs};
  }

  struct LogitRequest {
    std::span<const int32_t> tokens;
    int64_t first_row = 0;
    const CancellationFlag* cancelled = nullptr;
  };
  /// The same, handing the logits of the tokens from `first_row` on over piece by piece, so that those of a
  /// long text and a large vocabulary need not be held together.
  void forward_rows(const LogitRequest& request, KvCache& cache, const LogitConsumer& consume) const;
  /// The same, together: f32 [tokens - first_row, vocab].
  Tensor logits(const LogitRequest& request, KvCache& cache) const;

 private:
  Decoder() = default;
  /// Rows of a pass: tokens, of which span i of the batch belongs to the sequence of caches[i].
  struct Rows {
    std::vector<int32_t> tokens;
    std::vector<RopeSpan> spans;
    std::vector<KvCache*> caches;

    void add(std::span<const int32_t> more, const RopeSpan& span, KvCache& cache);
  };
  /// Their hidden states f32 [tokens, hidden]. Leaves the lengths of the caches as they are.
  Tensor run_rows(const Rows& rows, TensorPool& pool, const CancellationFlag* cancelled) const;
  Tensor head(const Tensor& hidden) const { return final_logits(*backend_, spec(), head_, hidden); }
  Tensor taken_rows(const Tensor& hidden, std::span<const int32_t> rows) const;
  Tensor head_of_sequences(const Tensor& hidden) const;

  Backend* backend_ = nullptr;
  std::unique_ptr<const DecoderSpec> spec_;
  std::unique_ptr<ModelWeights> weights_;  // of a directory
  std::vector<PreparedLayer> layers_;
  PreparedEmbedding embedding_;
  PreparedHead head_;
  KvType kv_type_ = KvType::fp32;
};

}  // namespace salient
