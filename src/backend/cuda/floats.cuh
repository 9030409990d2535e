#pragma once

#include "backend/cuda/simt.h"

// Rows of f32 in the hands of a block.

namespace salient::cuda {

struct alignas(16) Floats4 {
  float value[4];
};

SALIENT_DEVICE bool on_16_bytes(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % sizeof(Floats4) == 0;
}

/// Elements [index, index + 4) of x [count], zeros behind its end; at once where `aligned` says that they lie
/// on 16 bytes.
SALIENT_DEVICE Floats4 load_floats(const float* x, int64_t index, int64_t count, bool aligned) {
  if (aligned && index + 4 <= count) return *reinterpret_cast<const Floats4*>(x + index);
  Floats4 result;
  SALIENT_UNROLL
  for (int e = 0; e < 4; ++e) result.value[e] = index + e < count ? x[index + e] : 0.0f;
  return result;
}

SALIENT_DEVICE void store_floats(const Floats4& from, float* x, int64_t index, int64_t count, bool aligned) {
  if (aligned && index + 4 <= count) {
    *reinterpret_cast<Floats4*>(x + index) = from;
    return;
  }
  SALIENT_UNROLL
  for (int e = 0; e < 4; ++e)
    if (index + e < count) x[index + e] = from.value[e];
}

/// The sum over kWarps warps side by side, the same bits in each of their threads. `parts` is shared memory,
/// one float a warp of the block, which nothing else may use.
template <int kWarps>
SALIENT_DEVICE float sum_over_warps(float value, float* parts) {
  const float own = simt::warp_sum(value);
  if constexpr (kWarps == 1) return own;
  if (simt::lane() == 0) parts[simt::warp()] = own;
  simt::sync_block();
  float result = 0;
  const int first = simt::warp() / kWarps * kWarps;
  SALIENT_UNROLL
  for (int i = 0; i < kWarps; ++i) result += parts[first + i];
  return result;
}

}  // namespace salient::cuda
