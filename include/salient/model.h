#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "salient/error.h"

namespace salient {

/// Why a text ended.
enum class FinishReason {
  stop_token,     ///< the model's end-of-text token came; it is not part of the text
  stop_text,      ///< one of the stop texts came; it is not part of the text
  max_tokens,     ///< as many tokens as were asked for
  context_limit,  ///< the model's positions are used up
  callback,       ///< the callback returned false
  cancelled,      ///< the flag was raised
};
std::string_view to_string(FinishReason reason);

struct LoadOptions {
  /// "auto" or "cpu".
  std::string device = "auto";
  /// How linears of up to 4 bits take their inputs: "fp32" (exact products), "int16" or "int8" (integers with
  /// a scale for each group of weights; a multiple faster for many rows).
  std::string activations = "fp32";
  /// A folder where packed weights of up to 4 bits are kept, so that the next load maps them; empty: they are
  /// packed in memory every time.
  std::string packed_weights{};
  const std::atomic<bool>* cancelled = nullptr;
};

/// How a prompt is continued. Filters apply in the order repetition penalty, temperature, top-k, top-p,
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
};

struct Generation {
  std::string text;
  FinishReason reason = FinishReason::max_tokens;
  int64_t prompt_tokens = 0;
  int64_t tokens = 0;
  double prefill_tokens_per_second = 0;
  double decode_tokens_per_second = 0;
};

/// A model directory, dense or quantized, ready to continue texts.
class Model {
 public:
  /// Errors: not_found, bad_format, unsupported, invalid_argument for an unknown device or activations,
  /// cancelled.
  static Model load(const std::string& path, const LoadOptions& options = {});
  ~Model();
  Model(Model&&) noexcept;
  Model& operator=(Model&&) noexcept;

  /// Continues `prompt`. `on_text` gets the text piece by piece, in whole characters; false ends it.
  /// Errors: invalid_argument for a prompt beyond the context, no UTF-8, or bad options.
  Generation generate(std::string_view prompt, const GenerateOptions& options = {},
                      const std::function<bool(std::string_view text)>& on_text = {}) const;

 private:
  struct State;
  explicit Model(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace salient
