#pragma once

#include "support/random.h"

namespace salient {

/// f32 [tokens, columns] whose Gram matrix has nothing outside of blocks of `block` columns: each token
/// activates the channels of one block, which go together.
inline Tensor split_input(int64_t tokens, int64_t columns, int64_t block, uint32_t seed) {
  Tensor x = random_tensor({tokens, columns}, seed);
  const int64_t blocks = (columns + block - 1) / block;
  const auto values = x.mutable_values<float>();
  for (int64_t t = 0; t < tokens; ++t) {
    float* row = values.data() + t * columns;
    const float common = row[0];
    for (int64_t c = 0; c < columns; ++c) {
      const float strength = 0.3f + 0.2f * static_cast<float>(c % 11);
      row[c] = c / block == t % blocks ? (row[c] + 2 * common) * strength : 0.0f;
    }
  }
  return x;
}

}  // namespace salient
