#pragma once

#include <cstdint>

namespace salient {

/// What SplitMix64 (Steele, Lea, Flood 2014) adds to its state for each number.
inline constexpr uint64_t kSplitMixStep = 0x9e3779b97f4a7c15u;

/// The number of SplitMix64 at a state: 64 well mixed bits. The same on every machine, unlike the standard
/// library's distributions and shuffles.
constexpr uint64_t split_mix(uint64_t state) {
  uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/// 64 bits as a function of seed and counter: the n-th number does not depend on how the others were used.
constexpr uint64_t random_bits(uint64_t seed, uint64_t counter) {
  return split_mix(seed * 0xd1342543de82ef95u + (counter + 1) * kSplitMixStep);
}

/// The same in [0, 1): the top 53 bits.
constexpr double random_uniform(uint64_t seed, uint64_t counter) {
  return static_cast<double>(random_bits(seed, counter) >> 11) * 0x1p-53;
}

}  // namespace salient
