#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "quant/scheme.h"

namespace salient {

/// The numbers of bits that a code may have, from kLeastBits on.
inline constexpr size_t kBitWidths = kMostBits - kLeastBits + 1;

/// What shares one number of bits.
struct BitUnit {
  std::array<double, kBitWidths> error;  ///< with kLeastBits, ..., kMostBits bits: finite, at least 0
  std::array<int64_t, kBitWidths> size;  ///< in bits, growing
};

/// A number of bits for every unit, so that their sizes add up to at most `budget` bits and their errors to
/// as little as the convex hulls of the units' curves allow: from the fewest bits on, the step that takes
/// away most error per bit of size comes next (Shoham and Gersho 1988, "Efficient bit allocation"). A step
/// that no longer fits ends its unit, and those behind it fill what is left, so that a larger budget never
/// gives a larger error. Of equal steps the one of the earlier unit comes first. Errors: internal for a
/// budget below the sum of the smallest sizes.
std::vector<int> allocate_bits(std::span<const BitUnit> units, int64_t budget);

}  // namespace salient
