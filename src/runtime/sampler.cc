#include "runtime/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/error.h"
#include "base/random.h"
#include "runtime/candidates.h"
#include "runtime/shortlist.h"

namespace salient {
namespace {

/// Tokens outside the vocabulary are no error: whoever takes options from outside refuses them.
template <typename Change>
void change_logit(int32_t token, std::vector<double>& logits, const Change& change) {
  if (token >= 0 && static_cast<size_t>(token) < logits.size()) change(logits[static_cast<size_t>(token)]);
}

void forbid(const DrawContext& context, std::vector<double>& logits) {
  constexpr double kNever = -std::numeric_limits<double>::infinity();
  for (const int32_t token : context.forbidden)
    change_logit(token, logits, [](double& logit) { logit = kNever; });
  if (context.allowed.empty()) return;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (i >= context.allowed.size() || context.allowed[i] == 0) logits[i] = kNever;
  }
}

/// Each token once, however often it was seen.
void penalize(double penalty, std::span<const int32_t> seen, std::vector<double>& logits) {
  if (penalty == 1.0) return;
  std::vector<int32_t> tokens(seen.begin(), seen.end());
  std::sort(tokens.begin(), tokens.end());
  tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
  for (const int32_t token : tokens) {
    change_logit(token, logits, [&](double& logit) { logit = penalized(logit, penalty); });
  }
}

[[noreturn]] void fail_without_candidates(const SamplingOptions& options, const DrawContext& context) {
  const auto finite = [](float logit) { return std::isfinite(logit); };
  if (std::ranges::none_of(context.logits, finite))
    fail(ErrorKind::invalid_argument, "none of the {} logits is finite", context.logits.size());
  fail(
      ErrorKind::invalid_argument, "no token may come next: {}{}",
      context.allowed.empty() ? "all are forbidden" : "none of those that the response format allows is left",
      options.logit_bias.empty() ? "" : " by logit_bias");
}

/// Finite logits as candidates; NaN and infinities never win.
std::vector<Candidate> finite_candidates(const std::vector<double>& logits) {
  std::vector<Candidate> candidates;
  candidates.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isfinite(logits[i])) candidates.push_back({static_cast<int32_t>(i), logits[i]});
  }
  return candidates;
}

/// Far beyond what logits differ by, so that a bias of it decides; what more would say is minus infinity.
constexpr double kMostBias = 1e3;

void require(bool valid, std::string_view name, double value, std::string_view range) {
  if (!valid) fail(ErrorKind::invalid_argument, "{} {} is outside {}", name, value, range);
}

}  // namespace

void validate(const SamplingOptions& options) {
  const auto within = [](double value, double low, double high) { return value >= low && value <= high; };
  require(within(options.repetition_penalty, 1e-3, 1e3), "repetition_penalty", options.repetition_penalty,
          "[0.001, 1000]");
  require(within(options.temperature, 0, 1e3), "temperature", options.temperature, "[0, 1000]");
  require(options.top_k >= 0, "top_k", static_cast<double>(options.top_k), "[0, ...)");
  require(within(options.top_p, 0, 1), "top_p", options.top_p, "[0, 1]");
  require(within(options.min_p, 0, 1), "min_p", options.min_p, "[0, 1]");
  for (const auto& [token, bias] : options.logit_bias) {
    if (bias >= -kMostBias ? bias <= kMostBias : bias == -std::numeric_limits<double>::infinity()) continue;
    fail(ErrorKind::invalid_argument, "logit_bias {} of token {} is neither within [-1000, 1000] nor -inf",
         bias, token);
  }
}

std::vector<TokenProbability> next_token_distribution(const SamplingOptions& options,
                                                      const DrawContext& context) {
  std::vector<double> scores(context.logits.begin(), context.logits.end());
  for (const auto& [token, bias] : options.logit_bias)
    change_logit(token, scores, [&](double& logit) { logit += bias; });
  penalize(options.repetition_penalty, context.seen, scores);
  forbid(context, scores);
  auto candidates = finite_candidates(scores);
  if (candidates.empty()) fail_without_candidates(options, context);
  if (options.temperature == 0) {
    return {{std::min_element(candidates.begin(), candidates.end(), likelier)->token, 1.0}};
  }
  const double largest = std::min_element(candidates.begin(), candidates.end(), likelier)->logit;
  for (Candidate& candidate : candidates)
    candidate.logit = score(candidate.logit, largest, options.temperature);
  keep_top_k(options.top_k, candidates);
  return distribution_of(std::move(candidates), options);
}

int32_t draw_token(std::span<const float> logits, double temperature, double uniform) {
  float largest = -std::numeric_limits<float>::infinity();
  for (const float logit : logits) {
    if (std::isfinite(logit)) largest = std::max(largest, logit);
  }
  if (!std::isfinite(largest)) {
    fail(ErrorKind::invalid_argument, "none of the {} logits is finite", logits.size());
  }
  const auto weight = [&](float logit) {
    return std::isfinite(logit)
               ? std::exp((static_cast<double>(logit) - static_cast<double>(largest)) / temperature)
               : 0.0;
  };
  double left = 0;
  for (const float logit : logits) left += weight(logit);
  left *= uniform;
  int32_t token = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double own = weight(logits[i]);
    if (own == 0) continue;
    token = static_cast<int32_t>(i);
    left -= own;
    if (left < 0) break;
  }
  return token;  // the last possible one where rounding left a crumb
}

Sampler::Sampler(const SamplingOptions& options, uint64_t draws) : options_(options), draws_(draws) {
  validate(options);
}

int32_t Sampler::draw(const DrawContext& context, uint64_t number) const {
  return draw_from(next_token_distribution(options_, context), random_uniform(options_.seed, number));
}

std::optional<int32_t> Sampler::sample(const Shortlist& list, const DrawContext& context) {
  const auto token = peek(list, context, 0);
  if (token) ++draws_;
  return token;
}

std::optional<int32_t> Sampler::peek(const Shortlist& list, const DrawContext& context,
                                     uint64_t ahead) const {
  return draw_from(list, options_, context, random_uniform(options_.seed, draws_ + ahead));
}

}  // namespace salient
