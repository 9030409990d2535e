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
#pragma clang attribute push(                                                               \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")
#endif

namespace salient {
namespace {

#include "backend/cpu/panels_512.inc"

/// Adds 4 products to each sum.
constexpr bool kAddsProducts = true;
SALIENT_INLINE Ints add_products(Ints sums, Ints weights, Ints x) {
  return _mm512_dpbusd_epi32(sums, weights, x);
}
/// 12 sums and 12 totals in 32 registers.
constexpr int kMostRows = 12;

#include "backend/cpu/panels_vector.inc"

}  // namespace

const PanelKernels kAvx512VnniPanels = kTable;

}  // namespace salient

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
