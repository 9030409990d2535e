#pragma once

#include "base/json.h"
#include "model/families.h"

namespace salient {

LinearAttention read_linear_attention(const JsonView& config, const LinearAttentionFamily& family,
                                      int64_t layers);

}  // namespace salient
