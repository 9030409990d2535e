#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

namespace salient {

/// How the next token is drawn. Filters apply in the order of the fields, each on what the one before left,
/// as in transformers: bias, repetition penalty, temperature, top-k, top-p, min-p.
struct SamplingOptions {
  /// Added to the logits of these tokens, before anything else is done to them; minus infinity: never drawn.
  std::map<int32_t, double> logit_bias{};
  /// Logits of tokens seen before (prompt included) are divided by it when positive, multiplied when
  /// negative; 1 is off.
  double repetition_penalty = 1.0;
  /// 0: greedy, the largest logit, no filter but the penalty.
  double temperature = 0.0;
  /// Only the k most likely tokens; 0 is off.
  int64_t top_k = 0;
  /// The smallest set of most likely tokens whose probabilities reach p; 1 is off.
  double top_p = 1.0;
  /// Tokens at least min_p times as likely as the likeliest; 0 is off.
  double min_p = 0.0;
  uint64_t seed = 0;
};

/// Errors: invalid_argument naming the option and its value.
void validate(const SamplingOptions& options);

/// What a token is drawn from.
struct DrawContext {
  std::span<const float> logits;         ///< [vocab], as the model gives them
  std::span<const int32_t> seen{};       ///< all tokens before, prompt included; may repeat tokens
  std::span<const int32_t> forbidden{};  ///< tokens that may not be drawn
  /// Empty, or for each token whether it may be drawn; those behind its end may not.
  std::span<const uint8_t> allowed{};
};

struct TokenProbability {
  int32_t token;
  double probability;
};

/// The distribution after bias, penalty, temperature and filters, likeliest first (ties: lower id first),
/// probabilities summing to 1. Greedy gives its one token. Errors: invalid_argument when no logit is finite.
std::vector<TokenProbability> next_token_distribution(const SamplingOptions& options,
                                                      const DrawContext& context);

/// A token of the softmax of logits / temperature (above 0), without filters and without sorting: the first,
/// by id, at which the summed probabilities pass `uniform` of [0, 1). Logits that are not finite never win.
/// Errors: invalid_argument when none is.
int32_t draw_token(std::span<const float> logits, double temperature, double uniform);

struct Shortlist;

/// Draws tokens. The n-th draw depends on the seed, n and the distribution only, so a seed gives the same
/// text on every machine whose logits agree.
class Sampler {
 public:
  /// The first draw is the one that follows `draws` others. Errors: those of validate.
  explicit Sampler(const SamplingOptions& options, uint64_t draws = 0);

  /// Errors: invalid_argument when no logit is finite.
  int32_t sample(const DrawContext& context) { return draw(context, draws_++); }
  /// The same from a few logits of the row, which `context` need not have; nothing, and no draw, where they
  /// do not tell.
  std::optional<int32_t> sample(const Shortlist& list, const DrawContext& context);
  /// What the draw that comes `ahead` draws after the next one gives in this context.
  int32_t peek(const DrawContext& context, uint64_t ahead) const { return draw(context, draws_ + ahead); }
  std::optional<int32_t> peek(const Shortlist& list, const DrawContext& context, uint64_t ahead) const;
  uint64_t draws() const { return draws_; }
  const SamplingOptions& options() const { return options_; }

 private:
  int32_t draw(const DrawContext& context, uint64_t number) const;

  SamplingOptions options_;
  uint64_t draws_;
};

}  // namespace salient
