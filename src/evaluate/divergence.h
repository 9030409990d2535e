#pragma once

#include "evaluate/perplexity.h"

namespace salient {

/// How far a model's predictions are from those of a reference, over the predictions that perplexity counts.
struct Divergence {
  Perplexity model;
  Perplexity reference;
  double mean_kl = 0;         ///< nats, KL(reference || model)
  double same_top_share = 0;  ///< predictions whose most likely token is the same
};

/// Errors: those of measure_perplexity; invalid_argument when the vocabularies differ in size.
Divergence measure_divergence(Backend& backend, const ModelWeights& weights, const ModelWeights& reference,
                              const TokenWindows& windows, const EvaluationOptions& options = {});

}  // namespace salient
