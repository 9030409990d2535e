#pragma once

#include "base/json.h"
#include "evaluate/divergence.h"

namespace salient {

/// perplexity, mean_loss, predictions.
Json to_json(const Perplexity& perplexity);
/// The model's perplexity, the reference's as `reference`, mean_kl and same_top.
Json to_json(const Divergence& divergence);

}  // namespace salient
