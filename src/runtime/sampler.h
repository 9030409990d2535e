#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace salient {

/// How the next token is drawn. Filters apply in the order of the fields, each on what the one before left,
/// as in transformers: repetition penalty, temperature, top-k, top-p, min-p.
struct SamplingOptions {
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

struct TokenProbability {
  int32_t token;
  double probability;
};

/// The distribution after penalty, temperature and filters, likeliest first (ties: lower id first),
/// probabilities summing to 1. `seen` may repeat tokens. Greedy gives its one token.
std::vector<TokenProbability> next_token_distribution(const SamplingOptions& options,
                                                      std::span<const float> logits,
                                                      std::span<const int32_t> seen);

/// A token of the softmax of logits / temperature (above 0), without filters and without sorting: the first,
/// by id, at which the summed probabilities pass `uniform` of [0, 1). Logits that are not finite never win.
/// Errors: invalid_argument when none is.
int32_t draw_token(std::span<const float> logits, double temperature, double uniform);

/// Draws tokens. The n-th draw depends on the seed, n and the distribution only, so a seed gives the same
/// text on every machine whose logits agree.
class Sampler {
 public:
  /// Errors: those of validate.
  explicit Sampler(const SamplingOptions& options);

  /// Errors: invalid_argument when no logit is finite.
  int32_t sample(std::span<const float> logits, std::span<const int32_t> seen);

 private:
  SamplingOptions options_;
  uint64_t draws_ = 0;
};

}  // namespace salient
