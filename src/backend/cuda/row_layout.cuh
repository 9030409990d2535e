#pragma once

#include "backend/cuda/kv_rows.h"
#include "backend/cuda/simt.h"

namespace salient::cuda {

/// Where row 0 of a page stands, in blocks of a sequence or, without any, in the layout's rows.
SALIENT_DEVICE std::byte* head_of_page(const RowLayout& layout, std::byte* const* blocks, int page,
                                       int head) {
  const int64_t behind = layout.offset + head * layout.head_stride;
  if (blocks != nullptr) return blocks[page] + behind;
  return const_cast<std::byte*>(layout.rows) + (behind + page * kPageRows * layout.row_stride);
}

SALIENT_DEVICE std::byte* row_of_page(const RowLayout& layout, std::byte* head, int row) {
  return head + row * layout.row_stride;
}

/// Of int8.
SALIENT_DEVICE float* scales_of_page(const RowLayout& layout, std::byte* head) {
  return reinterpret_cast<float*>(head + kPageRows * layout.row_stride);
}

/// Eight codes as floats. A code plus 128 in the last bits of 2^23, or in the 8 before them, is a float that
/// needs no conversion.
SALIENT_DEVICE void widen_codes(const simt::Words2& codes, float (&to)[8]) {
  constexpr uint32_t kTwo23 = 0x4b000000u;
  SALIENT_UNROLL for (int i = 0; i < 8; i += 2) {
    const uint32_t pair = (codes.word[i / 4] ^ 0x80808080u) >> (i % 4 * 8);
    to[i] = simt::float_of_bits(simt::masked_or<0xffu, kTwo23>(pair)) - 8388736.0f;
    to[i + 1] = simt::float_of_bits(simt::masked_or<0xff00u, kTwo23>(pair)) * (1.0f / 256) - 32896.0f;
  }
}

/// Eight floats as halves, what they cannot hold as their largest number.
SALIENT_DEVICE simt::Words4 halves_of(const float (&x)[8]) {
  simt::Words4 halves;
  SALIENT_UNROLL for (int i = 0; i < 4; ++i) halves.word[i] =
      simt::pack_clamped<simt::F16>(x[2 * i], x[2 * i + 1]);
  return halves;
}

/// The same of codes, where it is enough that the largest code stays inside. A scale of NaN stays.
SALIENT_DEVICE simt::Words4 halves_of(const simt::Words2& codes, float scale) {
  constexpr float kLargestScale = simt::F16::kLargest / 127;
  if (scale > kLargestScale) scale = kLargestScale;
  float x[8];
  widen_codes(codes, x);
  simt::Words4 halves;
  SALIENT_UNROLL for (int i = 0; i < 4; ++i) halves.word[i] =
      simt::pack_f16(x[2 * i] * scale, x[2 * i + 1] * scale);
  return halves;
}

}  // namespace salient::cuda
