#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace salient {

/// A 64-bit checksum of bytes that come piece by piece: XXH64 with seed 0 (Collet, the specification of
/// xxHash). As fast as memory, and no protection against somebody who means to deceive.
class Digest {
 public:
  Digest& add(std::span<const std::byte> bytes);
  /// The text and where it ends, so that "ab", "c" is not "a", "bc".
  Digest& add_text(std::string_view text);

  uint64_t value() const;
  /// Sixteen hexadecimal digits.
  std::string hex() const;

 private:
  static constexpr size_t kStripe = 32;

  void take_stripe(const std::byte* stripe);

  std::array<uint64_t, 4> lanes_{0x60ea27eeadc0b5d6, 0xc2b2ae3d27d4eb4f, 0, 0x61c8864e7a143579};
  std::array<std::byte, kStripe> pending_{};
  size_t pending_size_ = 0;
  uint64_t size_ = 0;
};

}  // namespace salient
