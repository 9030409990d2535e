#pragma once

#include "evaluate/hidden_states.h"

namespace salient {

/// How well a model predicts text: exp of the mean negative log-likelihood of every token but the first of
/// each window.
struct Perplexity {
  double perplexity = 0;
  double mean_loss = 0;  ///< nats per token
  int64_t predictions = 0;
};

/// Errors: invalid_argument for no windows, a window of fewer than two tokens or of more than the model can
/// use, or a token outside the vocabulary; cancelled.
Perplexity measure_perplexity(Backend& backend, const ModelWeights& weights, const TokenWindows& windows,
                              const EvaluationOptions& options = {});

}  // namespace salient
