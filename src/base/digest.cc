#include "base/digest.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace salient {
namespace {

constexpr uint64_t kPrime1 = 0x9e3779b185ebca87;
constexpr uint64_t kPrime2 = 0xc2b2ae3d27d4eb4f;
constexpr uint64_t kPrime3 = 0x165667b19e3779f9;
constexpr uint64_t kPrime4 = 0x85ebca77c2b2ae63;
constexpr uint64_t kPrime5 = 0x27d4eb2f165667c5;

template <typename T>
T read(const std::byte* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

uint64_t mix(uint64_t lane, uint64_t input) { return std::rotl(lane + input * kPrime2, 31) * kPrime1; }

uint64_t merge(uint64_t hash, uint64_t lane) { return (hash ^ mix(0, lane)) * kPrime1 + kPrime4; }

}  // namespace

void Digest::take_stripe(const std::byte* stripe) {
  for (size_t i = 0; i < lanes_.size(); ++i) lanes_[i] = mix(lanes_[i], read<uint64_t>(stripe + 8 * i));
}

Digest& Digest::add(std::span<const std::byte> bytes) {
  size_ += bytes.size();
  if (pending_size_ > 0) {
    const size_t count = std::min(kStripe - pending_size_, bytes.size());
    std::copy_n(bytes.data(), count, pending_.data() + pending_size_);
    pending_size_ += count;
    bytes = bytes.subspan(count);
    if (pending_size_ < kStripe) return *this;
    take_stripe(pending_.data());
    pending_size_ = 0;
  }
  for (; bytes.size() >= kStripe; bytes = bytes.subspan(kStripe)) take_stripe(bytes.data());
  std::copy_n(bytes.data(), bytes.size(), pending_.data());
  pending_size_ = bytes.size();
  return *this;
}

Digest& Digest::add_text(std::string_view text) {
  const uint64_t size = text.size();
  return add(std::as_bytes(std::span(&size, 1))).add(std::as_bytes(std::span(text)));
}

uint64_t Digest::value() const {
  uint64_t hash = kPrime5;
  if (size_ >= kStripe) {
    hash = std::rotl(lanes_[0], 1) + std::rotl(lanes_[1], 7) + std::rotl(lanes_[2], 12) +
           std::rotl(lanes_[3], 18);
    for (const uint64_t lane : lanes_) hash = merge(hash, lane);
  }
  hash += size_;
  const std::byte* at = pending_.data();
  const std::byte* const end = at + pending_size_;
  for (; end - at >= 8; at += 8) {
    hash = std::rotl(hash ^ mix(0, read<uint64_t>(at)), 27) * kPrime1 + kPrime4;
  }
  if (end - at >= 4) {
    hash = std::rotl(hash ^ read<uint32_t>(at) * kPrime1, 23) * kPrime2 + kPrime3;
    at += 4;
  }
  for (; at != end; ++at) hash = std::rotl(hash ^ std::to_integer<uint64_t>(*at) * kPrime5, 11) * kPrime1;
  hash = (hash ^ hash >> 33) * kPrime2;
  hash = (hash ^ hash >> 29) * kPrime3;
  return hash ^ hash >> 32;
}

std::string Digest::hex() const { return fmt::format("{:016x}", value()); }

}  // namespace salient
