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
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

namespace salient {
namespace {

#include "backend/cpu/panels_256.inc"

/// Byte products come in pairs of 16 bits, which are added up before they are widened.
constexpr bool kAddsProducts = false;
SALIENT_INLINE Ints add_products(Ints sums, Ints, Ints) { return sums; }
/// 4 rows have 8 sums of pairs: with 16 registers there is room for no more.
constexpr int kMostRows = 4;

#include "backend/cpu/panels_vector.inc"

}  // namespace

const PanelKernels kAvx2Panels = kTable;

}  // namespace salient

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
