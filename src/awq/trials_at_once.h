#pragma once

#include <algorithm>
#include <cstdint>

namespace salient {

/// How many roundings of a weight are judged in one call, of `products` multiplications each: enough for a
/// device to have something to do, and no more than what whoever cancels may wait for.
inline int64_t trials_at_once(int64_t products, int64_t trials) {
  constexpr int64_t kProducts = int64_t{1} << 36;
  return std::clamp<int64_t>(kProducts / std::max<int64_t>(1, products), 1, std::max<int64_t>(1, trials));
}

}  // namespace salient
