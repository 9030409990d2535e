#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/cancellation.h"
#include "runtime/decoder.h"
#include "runtime/proposer.h"
#include "runtime/sampler.h"
#include "runtime/sequence_state.h"
#include "runtime/token_constraint.h"
#include "salient/model.h"

namespace salient {

struct SpeculationOptions {
  /// Tokens proposed at most before each pass; 0 is off. Fewer where few of the last ones were drawn: a row
  /// of a pass is cheap, but not for nothing.
  int64_t tokens = 0;
  /// Proposes; must outlive the stream. Null: prompt look-up.
  const Decoder* draft = nullptr;
};

struct GenerateRequest {
  std::span<const int32_t> prompt;
  int64_t max_tokens = 256;
  /// No stop token is drawn before there are so many.
  int64_t min_tokens = 0;
  SamplingOptions sampling;
  /// Tokens that end the text, usually `decoder.spec().eos_tokens` and whatever the user adds.
  std::span<const int32_t> stop_tokens;
  const CancellationFlag* cancelled = nullptr;
  /// Set: log-probabilities of the tokens drawn and of so many of the likeliest.
  std::optional<int64_t> logprobs{};
  SpeculationOptions speculation{};
  /// Copied; null: any token may come. Where it is complete the text ends, whatever `min_tokens` says, and no
  /// stop token is drawn before.
  const TokenConstraint* constraint = nullptr;
};

struct GenerateResult {
  std::vector<int32_t> tokens;
  FinishReason reason = FinishReason::max_tokens;
  std::optional<int32_t> stop_token{};  ///< the one that came; not among `tokens`
  std::optional<Error> failure{};       ///< for which an engine ended the text
  std::vector<TokenLogprobs> logprobs;  ///< of each of `tokens`, when asked for
  int64_t prompt_tokens = 0;            ///< those of the state that it follows included
  int64_t cached_tokens = 0;            ///< of these, the ones that did not have to be run
  double prefill_seconds = 0;           ///< the rest of the prompt, to the first logits
  double decode_seconds = 0;            ///< of the forward passes and draws after that
  int64_t decode_steps = 0;             ///< forward passes after that
  int64_t proposed_tokens = 0;          ///< by speculation
  int64_t accepted_tokens = 0;          ///< of these, those that were drawn

  double prefill_tokens_per_second() const;
  double decode_tokens_per_second() const;
};

/// Positions that the model can use: max_position_embeddings, stretched where the rope scaling stretches it.
int64_t context_limit(const DecoderSpec& spec);

/// Errors: invalid_argument when a window of this many tokens is longer than what the model can use.
void check_window(const DecoderSpec& spec, int64_t tokens);

/// A text in the making, token by token.
class TokenStream {
 public:
  /// Copies what the request points to, but for `cancelled`; the decoder must outlive the stream. The prompt
  /// follows `state`, which nobody else may go on with. Errors: invalid_argument for no tokens at all, more
  /// than the context limit, bad options, or a bias for no token of the vocabulary; unsupported for
  /// speculation with linear attention.
  TokenStream(const Decoder& decoder, const GenerateRequest& request, SequenceState state);
  TokenStream(const Decoder& decoder, const GenerateRequest& request)
      : TokenStream(decoder, request, SequenceState(decoder.make_cache())) {}

  /// Lets an empty cache begin with blocks that hold the first tokens of the prompt, though not all of it.
  void begin_with(std::span<const KvBlock> blocks);
  /// Lets a text that has run nothing stand where another of the same prompt and model does, of which nothing
  /// has been drawn.
  void begin_as(const TokenStream& other);
  /// Runs the prompt, if that has not been done.
  void prefill();
  /// Another text from the same place, with another seed; the prompt need not be run again.
  TokenStream fork(uint64_t seed) const { return {*this, seed}; }

  /// The next token; nothing once the text has ended, for the reason that the result tells. The first call
  /// runs the prompt. Errors: invalid_argument for a token outside the vocabulary.
  std::optional<int32_t> next();

  /// Another flag to poll from now on.
  void set_cancelled(const CancellationFlag* cancelled) { cancelled_ = cancelled; }
  /// The caller wants no more tokens.
  void stop(FinishReason reason = FinishReason::callback) { end(reason); }
  void stop_with(const Error& failure);
  bool ended() const { return ended_; }
  /// Frees what the model, and a draft, remember of a text that has ended.
  void forget();
  /// False when no token may follow; then the text ends.
  bool may_go_on();
  /// Of the prompt, or the last token drawn: those to be run before the next one can be drawn.
  int64_t pending() const { return needs_pass() && !ended_ ? std::max(unrun(), int64_t{1}) : 0; }
  /// Whether the pending ones are of the prompt.
  bool in_prompt() const { return !ended_ && !logits_.defined(); }
  bool speculates() const { return proposer_ != nullptr; }
  /// Whether that ends it.
  bool end_if_cancelled() {
    if (ended_ || !is_cancelled(cancelled_)) return false;
    end(FinishReason::cancelled);
    return true;
  }
  int64_t max_tokens() const { return max_tokens_; }

  const GenerateResult& result() const { return result_; }
  const Decoder& decoder() const { return decoder_; }
  /// All so far: of the state, of the prompt, and those drawn.
  std::span<const int32_t> tokens() const { return seen_; }

  /// The text so far, to be gone on with elsewhere. Proposals that were not drawn are not in it.
  SequenceState state();
  const KvCache& cache() const { return cache_; }
  /// Positions of the cache that are of the text: behind a rejected guess its keys and values still stand
  /// where those of the last token belong.
  int64_t certain_positions() const {
    return std::min(cache_.length(), std::ssize(seen_) - (needs_pass() ? 1 : 0));
  }

  /// How many of a stream's pending tokens a pass takes.
  struct Part {
    TokenStream* stream;
    int64_t tokens;
  };
  /// One pass for parts of several streams of one decoder. Errors: those of Decoder::run, behind which the
  /// streams are as before.
  static void run(std::span<const Part> parts, const CancellationFlag* cancelled);

 private:
  TokenStream(const TokenStream& other, uint64_t seed);

  /// Runs `work`; false when it was cancelled, which ends the text.
  template <typename Work>
  bool unless_cancelled(const Work& work);
  std::optional<int32_t> draw();
  DrawContext draw_context();
  int32_t draw_token();
  Tensor row() const { return logits_.slice(row_, row_ + 1); }
  ShortlistNeeds needs() const;
  void note_acceptance(int64_t count);
  bool needs_pass() const { return !logits_.defined() || row_ == logits_.dim(0); }
  void run_pass();
  void propose();
  int64_t unrun() const { return std::ssize(seen_) - cache_.length(); }
  void take_logits(Tensor logits);
  void end(FinishReason reason);

  const Decoder& decoder_;
  SamplingOptions sampling_;
  int64_t max_tokens_;
  int64_t min_tokens_;
  std::vector<int32_t> stop_tokens_;
  const CancellationFlag* cancelled_;
  std::optional<int64_t> logprobs_;
  Sampler sampler_;
  KvCache cache_;
  std::vector<int32_t> seen_;  // the prompt and what follows
  Tensor logits_;              // [rows, vocab] of the last pass, once the prompt has been run
  int64_t row_ = 0;            // the one that the next token is drawn from; behind the last: none
  Shortlists shortlists_;      // of `logits_`, once one was looked for
  int64_t most_proposed_;
  int64_t next_proposed_;                        // as many as are worth proposing, by how the last ones did
  std::unique_ptr<Proposer> proposer_;           // null: no speculation
  std::vector<int32_t> proposed_;                // [rows - 1], token i stands behind row i
  std::unique_ptr<TokenConstraint> constraint_;  // null: none
  bool ended_ = false;
  GenerateResult result_;
};

/// Sees each token as it comes; false ends the text.
using TokenCallback = std::function<bool(int32_t token)>;

/// The whole text. Cancellation is a result, no error. Errors: those of TokenStream.
GenerateResult generate(const Decoder& decoder, const GenerateRequest& request,
                        const TokenCallback& on_token);

}  // namespace salient
