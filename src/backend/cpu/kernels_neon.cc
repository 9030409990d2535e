#include <arm_neon.h>

#include <cstdint>

#include "backend/cpu/kernels.h"

// NEON is part of every aarch64 processor: nothing here needs a target region.

namespace salient {
namespace {

constexpr Isa kIsa = Isa::neon;
constexpr int64_t kLanes = 4;
using Floats = float32x4_t;

Floats zero() { return vdupq_n_f32(0); }
Floats broadcast(float value) { return vdupq_n_f32(value); }
Floats load(const float* data) { return vld1q_f32(data); }
void store(float* data, Floats value) { vst1q_f32(data, value); }

/// There are no masks: lane by lane, which only the ends of rows see.
Floats load_first(const float* data, int64_t count) {
  if (count >= kLanes) return load(data);
  Floats value = zero();
  if (count > 0) value = vld1q_lane_f32(data, value, 0);
  if (count > 1) value = vld1q_lane_f32(data + 1, value, 1);
  if (count > 2) value = vld1q_lane_f32(data + 2, value, 2);
  return value;
}
void store_first(float* data, Floats value, int64_t count) {
  if (count >= kLanes) return store(data, value);
  if (count > 0) vst1q_lane_f32(data, value, 0);
  if (count > 1) vst1q_lane_f32(data + 1, value, 1);
  if (count > 2) vst1q_lane_f32(data + 2, value, 2);
}

Floats load_f16(const uint16_t* data) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(data))); }
Floats load_bf16(const uint16_t* data) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(data), 16)); }

/// As in kernels_avx2.cc.
void store_bf16(uint16_t* data, Floats value) {
  const uint32x4_t bits = vreinterpretq_u32_f32(value);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint32x4_t sum = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
  const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
  vst1_u16(data, vshrn_n_u32(vbslq_u32(vceqq_f32(value, value), sum, quiet), 16));
}

void store_f16(uint16_t* data, Floats value) { vst1_u16(data, vreinterpret_u16_f16(vcvt_f16_f32(value))); }

/// Four bytes in the lower half of a register.
uint8x8_t load_four(const void* data) {
  uint32_t four;
  __builtin_memcpy(&four, data, sizeof four);
  return vreinterpret_u8_u32(vdup_n_u32(four));
}
Floats load_int8(const int8_t* data) {
  const int16x8_t words = vmovl_s8(vreinterpret_s8_u8(load_four(data)));
  return vcvtq_f32_s32(vmovl_s16(vget_low_s16(words)));
}
/// The nearest integers, ties to even.
void store_int8(int8_t* data, Floats value) {
  const int16x4_t words = vqmovn_s32(vcvtnq_s32_f32(value));
  const int32_t four = vget_lane_s32(vreinterpret_s32_s8(vqmovn_s16(vcombine_s16(words, words))), 0);
  __builtin_memcpy(data, &four, sizeof four);
}

Floats multiply_add(Floats a, Floats b, Floats c) { return vfmaq_f32(c, a, b); }
/// Both keep a NaN in the second operand, and none in the first, as those of x86 do; FMIN and FMAX would keep
/// either.
Floats minimum(Floats a, Floats b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
Floats maximum(Floats a, Floats b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
Floats round_to_integer(Floats a) { return vrndnq_f32(a); }

/// value * 2^exponent in two factors, see kernels_avx2.cc.
Floats times_power_of_two(Floats value, Floats exponent) {
  const int32x4_t whole = vcvtnq_s32_f32(exponent);
  const int32x4_t half = vshrq_n_s32(whole, 1);
  const int32x4_t bias = vdupq_n_s32(127);
  const int32x4_t first = vshlq_n_s32(vaddq_s32(half, bias), 23);
  const int32x4_t second = vshlq_n_s32(vaddq_s32(vsubq_s32(whole, half), bias), 23);
  return value * vreinterpretq_f32_s32(first) * vreinterpretq_f32_s32(second);
}

/// Lane n: the sum of sums[n].
Floats sum_each(const Floats (&sums)[4]) {
  return vpaddq_f32(vpaddq_f32(sums[0], sums[1]), vpaddq_f32(sums[2], sums[3]));
}

float sum(Floats value) { return vaddvq_f32(value); }
float maximum_lane(Floats value) { return vmaxvq_f32(value); }

struct Doubles {
  float64x2_t low;
  float64x2_t high;
};

Doubles zero_doubles() { return {vdupq_n_f64(0), vdupq_n_f64(0)}; }
Doubles widen_to_doubles(Floats value) {
  return {vcvt_f64_f32(vget_low_f32(value)), vcvt_high_f64_f32(value)};
}
Doubles add_values(Doubles total, Floats value) {
  const Doubles wide = widen_to_doubles(value);
  return {vaddq_f64(total.low, wide.low), vaddq_f64(total.high, wide.high)};
}
Doubles add_squares(Doubles total, Floats value) {
  const Doubles wide = widen_to_doubles(value);
  return {vfmaq_f64(total.low, wide.low, wide.low), vfmaq_f64(total.high, wide.high, wide.high)};
}
double sum(Doubles total) { return vaddvq_f64(vaddq_f64(total.low, total.high)); }

/// A zero in every lane: what is subtracted from codes of either width.
struct IntegerGrid {
  int16x8_t zero;
};

/// Bytes as code - zero, exact.
void decode_eight(uint8x8_t codes, const IntegerGrid& grid, Floats* out) {
  const int16x8_t words = vsubq_s16(vreinterpretq_s16_u16(vmovl_u8(codes)), grid.zero);
  out[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(words)));
  out[1] = vcvtq_f32_s32(vmovl_high_s16(words));
}

struct W4Codes {
  static constexpr int kBits = 4;
  using Grid = IntegerGrid;
  static Grid make_grid(int zero) { return {vdupq_n_s16(static_cast<int16_t>(zero))}; }

  /// 16 codes of 8 bytes: those of the even columns are the low nibbles.
  static void unpack_eight(uint8x8_t packed, const Grid& grid, Floats* out) {
    const uint8x8x2_t codes = vzip_u8(vand_u8(packed, vdup_n_u8(15)), vshr_n_u8(packed, 4));
    decode_eight(codes.val[0], grid, out);
    decode_eight(codes.val[1], grid, out + 2);
  }
  template <int kVectors>
  static void unpack(const uint8_t* bytes, const Grid& grid, Floats (&out)[kVectors]) {
    for (int v = 0; v < kVectors; v += 4) unpack_eight(vld1_u8(bytes + v * kLanes / 2), grid, out + v);
  }
};

struct W8Codes {
  static constexpr int kBits = 8;
  using Grid = IntegerGrid;
  static Grid make_grid(int zero) { return {vdupq_n_s16(static_cast<int16_t>(zero))}; }

  template <int kVectors>
  static void unpack(const uint8_t* bytes, const Grid& grid, Floats (&out)[kVectors]) {
    for (int v = 0; v < kVectors; v += 2) decode_eight(vld1_u8(bytes + v * kLanes), grid, out + v);
  }
};

#include "backend/cpu/kernels_vector.inc"

}  // namespace

const CpuKernels kNeonKernels = kTable;

}  // namespace salient
