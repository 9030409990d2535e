#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/sampler.h"

namespace salient {

// The steps from logits to a token, for whole rows and for a few of their values alike.

/// A token that may be drawn, with its logit or, behind the temperature, its score.
struct Candidate {
  int32_t token;
  double logit;
};

inline bool likelier(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

inline double penalized(double logit, double penalty) {
  return logit < 0 ? logit * penalty : logit / penalty;
}

/// Logits become scores: relative to the largest, so that a tiny temperature leads to -infinity, never to
/// infinity - infinity.
inline double score(double logit, double largest, double temperature) {
  return (logit - largest) / temperature;
}

/// Keeps ties with the k-th, as transformers does.
void keep_top_k(int64_t top_k, std::vector<Candidate>& candidates);

/// Of scores, by softmax, top-p and min-p; likeliest first.
std::vector<TokenProbability> distribution_of(std::vector<Candidate> candidates,
                                              const SamplingOptions& options);

/// The first, in their order, at which the summed probabilities pass `uniform` of [0, 1).
int32_t draw_from(std::span<const TokenProbability> distribution, double uniform);

}  // namespace salient
