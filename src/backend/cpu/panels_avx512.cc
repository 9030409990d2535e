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
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#endif

namespace salient {
namespace {

#include "backend/cpu/panels_512.inc"

/// See panels_avx2.cc.
constexpr bool kAddsProducts = false;
SALIENT_INLINE Ints add_products(Ints sums, Ints, Ints) { return sums; }
constexpr int kMostRows = 8;

#include "backend/cpu/panels_vector.inc"

}  // namespace

const PanelKernels kAvx512Panels = kTable;

}  // namespace salient

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
