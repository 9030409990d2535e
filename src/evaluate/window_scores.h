#pragma once

#include <functional>
#include <span>

#include "evaluate/perplexity.h"
#include "runtime/decoder.h"

namespace salient {

/// Counts steps, tells the caller and stops when asked to.
class EvaluationSteps {
 public:
  EvaluationSteps(const EvaluationOptions& options, int64_t steps) : options_(options), steps_(steps) {}
  void operator()() {
    ++done_;
    if (options_.on_progress) options_.on_progress(done_, steps_);
    throw_if_cancelled(options_.cancelled);
  }

 private:
  const EvaluationOptions& options_;
  int64_t steps_;
  int64_t done_ = 0;
};

/// Errors: invalid_argument for no windows, one of fewer than two tokens or of more than the model can use.
void check_windows(const DecoderSpec& spec, const TokenWindows& windows);

/// Log of the sum of exponentials, and the position of the largest logit.
struct RowSummary {
  double log_sum;
  int64_t top;
};
RowSummary summarize(std::span<const float> logits);

/// A stretch of predictions: rows of a window and the token that each has to predict.
struct ScoredRows {
  int64_t begin;  ///< row of the hidden states of all windows
  std::span<const int32_t> targets;
};

/// The predictions of all windows in stretches short enough for a small tensor of logits.
std::vector<ScoredRows> scored_rows(const TokenWindows& windows);

/// Turns a sum of losses into the result.
Perplexity to_perplexity(double loss, int64_t predictions);

}  // namespace salient
