#include "runtime/candidates.h"

#include <algorithm>
#include <cmath>

namespace salient {
namespace {

std::vector<TokenProbability> softmax(const std::vector<Candidate>& sorted) {
  std::vector<TokenProbability> result;
  result.reserve(sorted.size());
  double sum = 0;
  for (const Candidate& candidate : sorted) {
    result.push_back({candidate.token, std::exp(candidate.logit - sorted.front().logit)});
    sum += result.back().probability;
  }
  for (TokenProbability& entry : result) entry.probability /= sum;
  return result;
}

void renormalize(std::vector<TokenProbability>& distribution) {
  double sum = 0;
  for (const TokenProbability& entry : distribution) sum += entry.probability;
  for (TokenProbability& entry : distribution) entry.probability /= sum;
}

/// Drops from the unlikely end while what is dropped stays within 1 - top_p; the likeliest always stays.
void keep_top_p(double top_p, std::vector<TokenProbability>& distribution) {
  if (top_p >= 1.0) return;
  double dropped = 0;
  while (distribution.size() > 1) {
    dropped += distribution.back().probability;
    if (dropped > 1 - top_p) break;
    distribution.pop_back();
  }
  renormalize(distribution);
}

void keep_min_p(double min_p, std::vector<TokenProbability>& distribution) {
  if (min_p <= 0) return;
  const double limit = min_p * distribution.front().probability;
  while (distribution.size() > 1 && distribution.back().probability < limit) distribution.pop_back();
  renormalize(distribution);
}

}  // namespace

void keep_top_k(int64_t top_k, std::vector<Candidate>& candidates) {
  const auto k = static_cast<size_t>(top_k);
  if (k == 0 || k >= candidates.size()) return;
  std::nth_element(candidates.begin(), candidates.begin() + static_cast<ptrdiff_t>(k - 1), candidates.end(),
                   likelier);
  const double limit = candidates[k - 1].logit;
  std::erase_if(candidates, [&](const Candidate& candidate) { return candidate.logit < limit; });
}

std::vector<TokenProbability> distribution_of(std::vector<Candidate> candidates,
                                              const SamplingOptions& options) {
  std::sort(candidates.begin(), candidates.end(), likelier);
  auto distribution = softmax(candidates);
  keep_top_p(options.top_p, distribution);
  keep_min_p(options.min_p, distribution);
  return distribution;
}

int32_t draw_from(std::span<const TokenProbability> distribution, double uniform) {
  double left = uniform;
  for (const TokenProbability& entry : distribution) {
    left -= entry.probability;
    if (left < 0) return entry.token;
  }
  return distribution.back().token;  // rounding left a crumb
}

}  // namespace salient
