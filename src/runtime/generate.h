#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/cancellation.h"
#include "runtime/decoder.h"
#include "runtime/sampler.h"
#include "salient/model.h"

namespace salient {

struct GenerateRequest {
  std::span<const int32_t> prompt;
  int64_t max_tokens = 256;
  /// No stop token is drawn before there are so many.
  int64_t min_tokens = 0;
  SamplingOptions sampling;
  /// Tokens that end the text, usually `decoder.spec().eos_tokens` and whatever the user adds.
  std::span<const int32_t> stop_tokens;
  const CancellationFlag* cancelled = nullptr;
};

struct GenerateResult {
  std::vector<int32_t> tokens;
  FinishReason reason = FinishReason::max_tokens;
  std::optional<int32_t> stop_token{};  ///< the one that came; not among `tokens`
  int64_t prompt_tokens = 0;
  double prefill_seconds = 0;  ///< the whole prompt, to the first logits
  double decode_seconds = 0;   ///< of the forward passes and draws after that
  int64_t decode_steps = 0;    ///< forward passes of one token

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
  /// Copies what the request points to, but for `cancelled`; the decoder must outlive the stream. Errors:
  /// invalid_argument for an empty prompt, one beyond the context limit, bad sampling options or a negative
  /// max_tokens.
  TokenStream(const Decoder& decoder, const GenerateRequest& request);

  /// The next token; nothing once the text has ended, for the reason that the result tells. The first call
  /// runs the prompt. Errors: invalid_argument for a token outside the vocabulary.
  std::optional<int32_t> next();

  /// Another flag to poll from now on.
  void set_cancelled(const CancellationFlag* cancelled) { cancelled_ = cancelled; }
  /// The caller wants no more tokens.
  void stop() { end(FinishReason::callback); }

  const GenerateResult& result() const { return result_; }

 private:
  std::optional<int32_t> step();
  void forbid_stop_tokens();
  bool prepare_logits();
  void forward(std::span<const int32_t> tokens);
  void end(FinishReason reason);

  const Decoder& decoder_;
  int64_t max_tokens_;
  int64_t min_tokens_;
  std::vector<int32_t> stop_tokens_;
  const CancellationFlag* cancelled_;
  Sampler sampler_;
  KvCache cache_;
  std::vector<int32_t> seen_;  // the prompt and what follows
  Tensor logits_;              // of the token after `seen_`, once the prompt has been run
  bool ended_ = false;
  GenerateResult result_;
};

/// Sees each token as it comes; false ends the text.
using TokenCallback = std::function<bool(int32_t token)>;

/// The whole text. Cancellation is a result, no error. Errors: those of TokenStream.
GenerateResult generate(const Decoder& decoder, const GenerateRequest& request,
                        const TokenCallback& on_token);

}  // namespace salient
