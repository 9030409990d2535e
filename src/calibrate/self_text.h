#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/cancellation.h"
#include "runtime/decoder.h"
#include "text/tokenizer.h"

namespace salient {

/// How a sequence of the model's own begins.
struct SelfTextStart {
  /// What the tokenizer puts in front of every text, such as <s>; then each sequence begins with it.
  std::vector<int32_t> prefix;
  /// Else the first token is one of these, each as likely: all of the vocabulary but the special ones.
  std::vector<int32_t> first_tokens;
  /// Ids from here on are no tokens: the vocabularies of many models are padded.
  int64_t vocabulary = 0;
};

/// Errors: invalid_argument for a tokenizer without tokens that the model knows; those of Tokenizer::encode.
SelfTextStart self_text_start(const Tokenizer& tokenizer, const DecoderSpec& spec);

struct SelfTextOptions {
  int64_t sequences = 128;
  int64_t length = 512;  ///< tokens of each
  uint64_t seed = 42;
  /// Caches of the sequences that are drawn together take no more, if that of one alone does not.
  uint64_t cache_bytes = uint64_t{256} << 20;
  /// Told after each position of a group of sequences that is drawn together.
  std::function<void(int64_t tokens_done, int64_t tokens)> on_progress{};
  const CancellationFlag* cancelled = nullptr;
};

/// Sequences drawn from the model itself: each token from the softmax of its logits at temperature 1, behind
/// a random first one (LLM-QAT: Liu et al. 2023, section 3.1; it draws the first few greedily, which measured
/// no better). A sequence goes on behind an end-of-text token, as training texts do. The same model, seed and
/// instruction set give the same tokens for any number of threads. Errors: invalid_argument for a length
/// beyond the model's positions or logits that are not finite; cancelled.
std::vector<std::vector<int32_t>> sample_self_text(const Decoder& decoder, const SelfTextStart& start,
                                                   const SelfTextOptions& options);

/// Bytes of the caches and logits of the sequences that are drawn together.
uint64_t self_text_memory(const DecoderSpec& spec, const SelfTextOptions& options);

}  // namespace salient
