#if defined(__GNUC__) && !defined(__clang__)
// GCC 12's AVX-512 intrinsics pass an undefined vector for lanes that no mask selects, and its warning
// believes them used.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <cstdint>

#include "backend/cpu/kernels.h"

// See kernels_avx2.cc for the reason of the target region.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#endif

namespace salient {
namespace {

constexpr Isa kIsa = Isa::avx512;
constexpr int64_t kLanes = 16;
using Floats = __m512;

Floats zero() { return _mm512_setzero_ps(); }
Floats broadcast(float value) { return _mm512_set1_ps(value); }
Floats load(const float* data) { return _mm512_loadu_ps(data); }
void store(float* data, Floats value) { _mm512_storeu_ps(data, value); }

__mmask16 first_lanes(int64_t count) { return static_cast<__mmask16>((1u << count) - 1u); }
Floats load_first(const float* data, int64_t count) {
  return _mm512_maskz_loadu_ps(first_lanes(count), data);
}
void store_first(float* data, Floats value, int64_t count) {
  _mm512_mask_storeu_ps(data, first_lanes(count), value);
}

Floats load_f16(const uint16_t* data) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(data)));
}
Floats load_bf16(const uint16_t* data) {
  const __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(data)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
}

/// As in kernels_avx2.cc. VCVTNEPS2BF16 would flush subnormal numbers to zero.
void store_bf16(uint16_t* data, Floats value) {
  const __m512i bits = _mm512_castps_si512(value);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i sum = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 is_nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
  const __m512i rounded = _mm512_mask_or_epi32(sum, is_nan, bits, _mm512_set1_epi32(0x400000));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(data),
                      _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
}

void store_f16(uint16_t* data, Floats value) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(data), _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
}

Floats load_int8(const int8_t* data) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(data))));
}
/// The nearest integers, ties to even.
void store_int8(int8_t* data, Floats value) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(data), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(value)));
}

Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
/// Both keep a NaN in the second operand.
Floats minimum(Floats a, Floats b) { return _mm512_min_ps(a, b); }
Floats maximum(Floats a, Floats b) { return _mm512_max_ps(a, b); }
Floats round_to_integer(Floats a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
Floats times_power_of_two(Floats value, Floats exponent) { return _mm512_scalef_ps(value, exponent); }

/// The quarters of a, then those of b, added in pairs.
Floats add_quarters(Floats a, Floats b) {
  return _mm512_shuffle_f32x4(a, b, 0x88) + _mm512_shuffle_f32x4(a, b, 0xdd);
}

/// Lane n: the sum of sums[n]. Each step adds neighbours and halves the number of vectors.
Floats sum_each(const Floats (&sums)[16]) {
  Floats fours[4];
  for (int i = 0; i < 4; ++i) {
    const Floats* v = sums + 4 * i;
    const Floats low = _mm512_unpacklo_ps(v[0], v[1]) + _mm512_unpackhi_ps(v[0], v[1]);
    const Floats high = _mm512_unpacklo_ps(v[2], v[3]) + _mm512_unpackhi_ps(v[2], v[3]);
    const __m512d a = _mm512_castps_pd(low);
    const __m512d b = _mm512_castps_pd(high);
    fours[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b)) + _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
  }
  return add_quarters(add_quarters(fours[0], fours[1]), add_quarters(fours[2], fours[3]));
}

float sum(Floats value) { return _mm512_reduce_add_ps(value); }
float maximum_lane(Floats value) { return _mm512_reduce_max_ps(value); }

struct Doubles {
  __m512d low;
  __m512d high;
};

Doubles zero_doubles() { return {_mm512_setzero_pd(), _mm512_setzero_pd()}; }
Doubles widen_to_doubles(Floats value) {
  return {_mm512_cvtps_pd(_mm512_castps512_ps256(value)), _mm512_cvtps_pd(_mm512_extractf32x8_ps(value, 1))};
}
Doubles add_values(Doubles total, Floats value) {
  const Doubles wide = widen_to_doubles(value);
  return {_mm512_add_pd(total.low, wide.low), _mm512_add_pd(total.high, wide.high)};
}
Doubles add_squares(Doubles total, Floats value) {
  const Doubles wide = widen_to_doubles(value);
  return {_mm512_fmadd_pd(wide.low, wide.low, total.low), _mm512_fmadd_pd(wide.high, wide.high, total.high)};
}
double sum(Doubles total) { return _mm512_reduce_add_pd(_mm512_add_pd(total.low, total.high)); }

struct W4Codes {
  static constexpr int kBits = 4;
  /// code - zero for every code: one permutation decodes 16 weights.
  struct Grid {
    __m512 table;
  };
  static Grid make_grid(int zero) {
    const __m512 codes = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return {_mm512_sub_ps(codes, _mm512_set1_ps(static_cast<float>(zero)))};
  }

  /// VPERMPS looks at the low four bits of an index only, so a neighbour's nibble above them does no harm.
  static Floats decode(__m128i bytes, const Grid& grid) {
    return _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(bytes), grid.table);
  }
  static void unpack(const uint8_t* bytes, const Grid& grid, Floats (&out)[2]) {
    const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
    const __m128i odd = _mm_srli_epi16(packed, 4);
    out[0] = decode(_mm_unpacklo_epi8(packed, odd), grid);
    out[1] = decode(_mm_unpackhi_epi8(packed, odd), grid);
  }
  static void unpack(const uint8_t* bytes, const Grid& grid, Floats (&out)[1]) {
    const __m128i packed = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes));
    out[0] = decode(_mm_unpacklo_epi8(packed, _mm_srli_epi16(packed, 4)), grid);
  }
};

struct W8Codes {
  static constexpr int kBits = 8;
  struct Grid {
    __m512i zero;
  };
  static Grid make_grid(int zero) { return {_mm512_set1_epi32(zero)}; }

  template <int kVectors>
  static void unpack(const uint8_t* bytes, const Grid& grid, Floats (&out)[kVectors]) {
    for (int v = 0; v < kVectors; ++v) {
      const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + v * kLanes));
      out[v] = _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_cvtepu8_epi32(codes), grid.zero));
    }
  }
};

#include "backend/cpu/kernels_vector.inc"

}  // namespace

const CpuKernels kAvx512Kernels = kTable;

}  // namespace salient

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
