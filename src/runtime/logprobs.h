#pragma once

#include <cstdint>
#include <span>

#include "salient/model.h"

namespace salient {

/// Of a token that was drawn, and of the `count` likeliest ones (ties: lower id first), by the softmax of
/// `logits` [vocab] as the model gives them. A logit that is not finite has probability 0; among the
/// likeliest there is none of those.
TokenLogprobs token_logprobs(std::span<const float> logits, int32_t token, int64_t count);

}  // namespace salient
