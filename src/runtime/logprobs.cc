#include "runtime/logprobs.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace salient {
namespace {

double log_sum_exp(std::span<const float> logits) {
  double largest = -std::numeric_limits<double>::infinity();
  for (const float logit : logits) {
    if (std::isfinite(logit)) largest = std::max(largest, static_cast<double>(logit));
  }
  double sum = 0;
  for (const float logit : logits) {
    if (std::isfinite(logit)) sum += std::exp(static_cast<double>(logit) - largest);
  }
  return largest + std::log(sum);
}

}  // namespace

TokenLogprobs token_logprobs(std::span<const float> logits, int32_t token, int64_t count) {
  const double log_sum = log_sum_exp(logits);
  const auto logprob = [&](int32_t id) -> TokenLogprob {
    const float logit = logits[static_cast<size_t>(id)];
    if (!std::isfinite(logit)) return {id, -std::numeric_limits<double>::infinity()};
    return {id, static_cast<double>(logit) - log_sum};
  };
  TokenLogprobs result{.chosen = logprob(token), .top = {}};
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::erase_if(ids, [&](int32_t id) { return !std::isfinite(logits[static_cast<size_t>(id)]); });
  const auto kept = std::min<ptrdiff_t>(count, std::ssize(ids));
  std::partial_sort(ids.begin(), ids.begin() + kept, ids.end(), [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)];
    const float y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  for (ptrdiff_t i = 0; i < kept; ++i) result.top.push_back(logprob(ids[static_cast<size_t>(i)]));
  return result;
}

}  // namespace salient
