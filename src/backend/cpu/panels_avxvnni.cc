#if defined(__GNUC__) && !defined(__clang__)
// See kernels_avx512.cc.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <cstdint>

#include "backend/cpu/panels.h"

// See kernels_avx2.cc for the reason of the target region.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avxvnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avxvnni")
#endif

namespace salient {
namespace {

#include "backend/cpu/panels_256.inc"

/// Adds 4 products to each sum.
constexpr bool kAddsProducts = true;
SALIENT_INLINE Ints add_products(Ints sums, Ints weights, Ints x) {
  return _mm256_dpbusd_avx_epi32(sums, weights, x);
}
constexpr int kMostRows = 4;

#include "backend/cpu/panels_vector.inc"

}  // namespace

const PanelKernels kAvxVnniPanels = kTable;

}  // namespace salient

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
