#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "salient/error.h"

namespace salient {

/// Why a text ended.
enum class FinishReason {
  stop_token,     ///< the model's end-of-text token came; it is not part of the text
  stop_text,      ///< one of the stop texts came; it is not part of the text
  complete,       ///< the text is what GenerateOptions::response_format asks for
  max_tokens,     ///< as many tokens as were asked for
  context_limit,  ///< the model's positions are used up
  callback,       ///< the callback returned false
  cancelled,      ///< the flag was raised
  error,          ///< of a batch: its next token could not be drawn, see Generation::error
};
std::string_view to_string(FinishReason reason);

struct LoadOptions {
  /// "cpu", "cuda" (the first GPU), "cuda:N", or "auto": the first GPU that works, else the CPU.
  std::string device = "auto";
  /// How quantized linears take their inputs: "fp32" (exact products), "int16" or "int8" (integers with
  /// a scale for each group of weights; a multiple faster for many rows). Perplexity was measured within 0.02
  /// % of that of exact products with "int16", within 0.5 % with "int8". A GPU multiplies "fp16", whichever
  /// of these is named, or "bf16".
  std::string activations = "int16";
  /// What becomes of a projection to the vocabulary in floating point: "int8" (rounded), "stored" (as it is)
  /// or "auto": int8 in quantized models with activations int8.
  std::string lm_head = "auto";
  /// A folder where packed weights are kept, so that the next load maps them; empty: they are
  /// packed in memory every time.
  std::string packed_weights{};
  /// How keys and values of attention are kept: "fp32"; "fp16", which is "auto"; "bf16", three bits coarser,
  /// with the range of fp32; or "int8".
  std::string kv_cache_dtype = "fp16";
  const std::atomic<bool>* cancelled = nullptr;
  /// Kernels of quantized weights on a GPU: "auto" (by the number of rows), "gemm" or "marlin", "gemv" or
  /// "gemv_fast", "exllama", "exllamav2".
  std::string kernel = "auto";
  /// Told in a line which kernels of a GPU run and why, or why the CPU runs though there is a GPU.
  std::function<void(const std::string&)> on_note{};
};

/// What a text has to be.
enum class ResponseFormat {
  text,
  json_object,  ///< one object of JSON, and nothing behind it
};
/// Errors: invalid_argument for a name that is not known.
ResponseFormat response_format_by_name(std::string_view name);

class Model;

/// How a prompt is continued. Filters apply in the order bias, repetition penalty, temperature, top-k, top-p,
/// min-p.
struct GenerateOptions {
  int64_t max_tokens = 256;
  double temperature = 0.0;         ///< 0: always the most likely token
  int64_t top_k = 0;                ///< only the k most likely tokens; 0 is off
  double top_p = 1.0;               ///< the most likely tokens that together reach this probability; 1 is off
  double min_p = 0.0;               ///< tokens at least this times as likely as the likeliest; 0 is off
  double repetition_penalty = 1.0;  ///< above 1 makes tokens seen before less likely
  uint64_t seed = 0;                ///< the same seed draws the same tokens on any machine
  std::vector<std::string> stop;    ///< the text ends before any of these
  const std::atomic<bool>* cancelled = nullptr;

  /// Added to the logits of token ids, before anything else is done to them: within [-1000, 1000], or minus
  /// infinity for a token that is never drawn.
  std::map<int32_t, double> logit_bias{};
  /// Set: log-probabilities of each token that is drawn and of so many that were likeliest there.
  std::optional<int64_t> logprobs{};

  /// With json_object only tokens are drawn that leave the text the beginning of an object, and it ends with
  /// that, unless max_tokens cut it off; docs/generating.md says what bounds it has.
  ResponseFormat response_format = ResponseFormat::text;

  /// Tokens to propose before each pass, which then says of all of them whether they are what it would have
  /// drawn: the text is the same, and comes in fewer passes. 0 is off. Not for models with linear attention.
  int64_t speculate = 0;
  /// A small model of the same vocabulary that proposes; null: what followed the last tokens where they came
  /// before. It must outlive the call.
  const Model* draft = nullptr;

  /// A file that a run with the same model left: the prompt follows its tokens, and may be empty.
  std::string load_state{};
  /// Where to leave the tokens and what the model remembers of them.
  std::string save_state{};
};

/// The natural logarithm of a probability that the model gave a token, by the softmax of its logits before
/// bias, penalty, temperature and filters.
struct TokenLogprob {
  int32_t token;
  double logprob;
};

struct TokenLogprobs {
  TokenLogprob chosen;
  std::vector<TokenLogprob> top;  ///< likeliest first
};

struct Generation {
  std::string text;
  FinishReason reason = FinishReason::max_tokens;
  int64_t prompt_tokens = 0;      ///< those of a loaded state included
  int64_t cached_tokens = 0;      ///< of these, the ones that did not have to be run
  std::vector<int32_t> tokens{};  ///< without the one that ended the text
  uint64_t seed = 0;
  std::vector<TokenLogprobs> logprobs{};  ///< of each of `tokens`, when asked for
  int64_t proposed_tokens = 0;            ///< by speculation
  int64_t accepted_tokens = 0;            ///< of these
  double prefill_tokens_per_second = 0;
  double decode_tokens_per_second = 0;
  std::string error{};  ///< what ended one text of a batch, whose others go on
};

/// How many texts are in the making side by side.
struct BatchOptions {
  /// At most; the others wait.
  int64_t max_num_seqs = 16;
  /// Of a pass: one token of each text, and of prompts as many as there is room for.
  int64_t max_num_batched_tokens = 512;
  /// Bytes of keys and values. A text that could need more alone is refused.
  uint64_t kv_cache_memory_bytes = uint64_t{1} << 30;
  /// Whether each text is bit by bit the one that its prompt gets alone also where sums of many rows are
  /// rounded in another order than those of few: on a GPU, with activations "fp32" and dense weights. It
  /// takes smaller passes.
  bool batch_invariant = false;
};

/// A model directory, dense or quantized, ready to continue texts.
class Model {
 public:
  /// Errors: not_found, bad_format, unsupported, invalid_argument for an unknown device, activations or
  /// lm_head, cancelled.
  static Model load(const std::string& path, const LoadOptions& options = {});
  ~Model();
  Model(Model&&) noexcept;
  Model& operator=(Model&&) noexcept;

  /// Continues `prompt`. `on_text` gets the text piece by piece, in whole characters; false ends it.
  /// Errors: invalid_argument for a prompt beyond the context, no UTF-8, bad options, a draft of another
  /// vocabulary or a state of another model; unsupported for speculation with linear attention; bad_format,
  /// not_found, io for files of states.
  Generation generate(std::string_view prompt, const GenerateOptions& options = {},
                      const std::function<bool(std::string_view text)>& on_text = {}) const;

  /// `count` continuations of one prompt, which is run once: with options.seed, options.seed + 1, and so on,
  /// each the text that `generate` gives with its seed. Errors: as generate; invalid_argument for a count
  /// below 1, and for save_state with more than one.
  std::vector<Generation> generate_several(std::string_view prompt, int64_t count,
                                           const GenerateOptions& options = {}) const;

  /// One continuation for each prompt, side by side; prompts that begin alike share what is alike. Each is
  /// the text that `generate` gives, but for rounding on a GPU and where activations are "fp32" or weights
  /// dense, unless `batch` asks for that.
  /// `on_done` is told of each as it ends. Errors: as generate; invalid_argument for states, and for a text
  /// beyond the memory of the batch.
  using DoneCallback = std::function<void(size_t index, const Generation& result)>;
  std::vector<Generation> generate_batch(const std::vector<std::string>& prompts,
                                         const GenerateOptions& options = {}, const BatchOptions& batch = {},
                                         const DoneCallback& on_done = {}) const;

  /// Words of the vocabulary: the text of a token by itself, as JSON of `salient generate` shows it.
  std::string token_text(int32_t token) const;
  /// What computes: "cpu: avx512 (vnni, amx), 2 threads".
  std::string device() const;

 private:
  struct State;
  explicit Model(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace salient
