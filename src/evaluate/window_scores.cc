#include "evaluate/window_scores.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "runtime/generate.h"

namespace salient {

void check_windows(const DecoderSpec& spec, const TokenWindows& windows) {
  if (windows.empty()) fail(ErrorKind::invalid_argument, "evaluation: there is no text to predict");
  for (size_t i = 0; i < windows.size(); ++i) {
    if (windows[i].size() < 2) {
      fail(ErrorKind::invalid_argument, "evaluation: window {} has {} tokens, at least 2 are needed", i,
           windows[i].size());
    }
    with_context(fmt::format("evaluation: window {}", i),
                 [&] { check_window(spec, static_cast<int64_t>(windows[i].size())); });
  }
}

RowSummary summarize(std::span<const float> logits) {
  const auto top = std::max_element(logits.begin(), logits.end());
  double sum = 0;
  // Single exponentials are exact to 1e-7, the sum of many needs more.
  for (const float logit : logits) sum += std::exp(logit - *top);
  return {static_cast<double>(*top) + std::log(sum), top - logits.begin()};
}

std::vector<ScoredRows> scored_rows(const TokenWindows& windows) {
  constexpr size_t kRows = 128;
  std::vector<ScoredRows> result;
  int64_t begin = 0;
  for (const auto& window : windows) {
    const auto targets = std::span(window).subspan(1);
    for (size_t i = 0; i < targets.size(); i += kRows) {
      result.push_back(
          {begin + static_cast<int64_t>(i), targets.subspan(i, std::min(kRows, targets.size() - i))});
    }
    begin += static_cast<int64_t>(window.size());
  }
  return result;
}

Perplexity to_perplexity(double loss, int64_t predictions) {
  const double mean = loss / static_cast<double>(predictions);
  if (!std::isfinite(mean)) {
    fail(ErrorKind::bad_format,
         "the model's predictions are not finite numbers: its weights or scales are damaged");
  }
  return {std::exp(mean), mean, predictions};
}

}  // namespace salient
