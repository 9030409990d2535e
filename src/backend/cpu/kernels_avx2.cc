#include <immintrin.h>

#include <cstdint>

#include "backend/cpu/kernels.h"

// Everything below runs only on CPUs with these extensions. Per-file compiler flags would do the same to
// inline functions of headers, and the linker could keep such a copy for the baseline code.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

namespace salient {
namespace {

constexpr Isa kIsa = Isa::avx2;
constexpr int64_t kLanes = 8;
using Floats = __m256;

Floats zero() { return _mm256_setzero_ps(); }
Floats broadcast(float value) { return _mm256_set1_ps(value); }
Floats load(const float* data) { return _mm256_loadu_ps(data); }
void store(float* data, Floats value) { _mm256_storeu_ps(data, value); }

/// All bits set in the first `count` lanes.
__m256i first_lanes(int64_t count) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane);
}
Floats load_first(const float* data, int64_t count) { return _mm256_maskload_ps(data, first_lanes(count)); }
void store_first(float* data, Floats value, int64_t count) {
  _mm256_maskstore_ps(data, first_lanes(count), value);
}

Floats load_f16(const uint16_t* data) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(data)));
}
Floats load_bf16(const uint16_t* data) {
  const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(data)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
}

/// Nearest even by adding half of the last kept bit, less one when that bit is even; NaN keeps its top bits,
/// made quiet.
void store_bf16(uint16_t* data, Floats value) {
  const __m256i bits = _mm256_castps_si256(value);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i sum = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
  const __m256i words = _mm256_srli_epi32(_mm256_blendv_epi8(sum, quiet, is_nan), 16);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(words, words), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(data), _mm256_castsi256_si128(packed));
}

void store_f16(uint16_t* data, Floats value) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(data), _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
}

Floats load_int8(const int8_t* data) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(data))));
}
/// The nearest integers, ties to even.
void store_int8(int8_t* data, Floats value) {
  const __m256i whole = _mm256_cvtps_epi32(value);
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(data), _mm_packs_epi16(words, words));
}

Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
/// Both keep a NaN in the second operand.
Floats minimum(Floats a, Floats b) { return _mm256_min_ps(a, b); }
Floats maximum(Floats a, Floats b) { return _mm256_max_ps(a, b); }
Floats round_to_integer(Floats a) {
  return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/// value * 2^exponent in two factors, so that both stay normal numbers for exponents from -252 to 254.
Floats times_power_of_two(Floats value, Floats exponent) {
  const __m256i whole = _mm256_cvtps_epi32(exponent);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  const __m256i rest = _mm256_sub_epi32(whole, half);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i first = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const __m256i second = _mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23);
  return value * _mm256_castsi256_ps(first) * _mm256_castsi256_ps(second);
}

/// Lane n: the sum of sums[n].
Floats sum_each(const Floats (&sums)[8]) {
  const Floats low = _mm256_hadd_ps(_mm256_hadd_ps(sums[0], sums[1]), _mm256_hadd_ps(sums[2], sums[3]));
  const Floats high = _mm256_hadd_ps(_mm256_hadd_ps(sums[4], sums[5]), _mm256_hadd_ps(sums[6], sums[7]));
  return _mm256_permute2f128_ps(low, high, 0x20) + _mm256_permute2f128_ps(low, high, 0x31);
}

float sum(Floats value) {
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps(value, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

float maximum_lane(Floats value) {
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps(value, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

struct Doubles {
  __m256d low;
  __m256d high;
};

Doubles zero_doubles() { return {_mm256_setzero_pd(), _mm256_setzero_pd()}; }
Doubles widen_to_doubles(Floats value) {
  return {_mm256_cvtps_pd(_mm256_castps256_ps128(value)), _mm256_cvtps_pd(_mm256_extractf128_ps(value, 1))};
}
Doubles add_values(Doubles total, Floats value) {
  const Doubles wide = widen_to_doubles(value);
  return {_mm256_add_pd(total.low, wide.low), _mm256_add_pd(total.high, wide.high)};
}
Doubles add_squares(Doubles total, Floats value) {
  const Doubles wide = widen_to_doubles(value);
  return {_mm256_fmadd_pd(wide.low, wide.low, total.low), _mm256_fmadd_pd(wide.high, wide.high, total.high)};
}
double sum(Doubles total) {
  const __m256d four = _mm256_add_pd(total.low, total.high);
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
  return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

/// A zero in every lane: what is subtracted from codes of either width.
struct IntegerGrid {
  __m256i zero;
};

/// The eight lowest bytes as code - zero, exact.
Floats decode_eight(__m128i codes, const IntegerGrid& grid) {
  return _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_cvtepu8_epi32(codes), grid.zero));
}

struct W4Codes {
  static constexpr int kBits = 4;
  using Grid = IntegerGrid;
  static Grid make_grid(int zero) { return {_mm256_set1_epi32(zero)}; }

  /// The codes of the even columns, and those of the odd ones, one a byte.
  static __m128i even(__m128i packed) { return _mm_and_si128(packed, _mm_set1_epi8(15)); }
  static __m128i odd(__m128i packed) { return even(_mm_srli_epi16(packed, 4)); }

  static void unpack(const uint8_t* bytes, const Grid& grid, Floats (&out)[4]) {
    const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
    const __m128i first = _mm_unpacklo_epi8(even(packed), odd(packed));
    const __m128i second = _mm_unpackhi_epi8(even(packed), odd(packed));
    out[0] = decode_eight(first, grid);
    out[1] = decode_eight(_mm_srli_si128(first, 8), grid);
    out[2] = decode_eight(second, grid);
    out[3] = decode_eight(_mm_srli_si128(second, 8), grid);
  }
  static void unpack(const uint8_t* bytes, const Grid& grid, Floats (&out)[2]) {
    const __m128i packed = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes));
    const __m128i codes = _mm_unpacklo_epi8(even(packed), odd(packed));
    out[0] = decode_eight(codes, grid);
    out[1] = decode_eight(_mm_srli_si128(codes, 8), grid);
  }
};

struct W8Codes {
  static constexpr int kBits = 8;
  using Grid = IntegerGrid;
  static Grid make_grid(int zero) { return {_mm256_set1_epi32(zero)}; }

  template <int kVectors>
  static void unpack(const uint8_t* bytes, const Grid& grid, Floats (&out)[kVectors]) {
    for (int v = 0; v < kVectors; ++v) {
      out[v] = decode_eight(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes + v * kLanes)), grid);
    }
  }
};

#include "backend/cpu/kernels_vector.inc"

}  // namespace

const CpuKernels kAvx2Kernels = kTable;

}  // namespace salient

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
