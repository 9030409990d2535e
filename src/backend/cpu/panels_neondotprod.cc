#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "backend/cpu/panels.h"

// See kernels_avx2.cc for the reason of the target region.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("arch=armv8.2-a+dotprod"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif

namespace salient {
namespace {

#include "backend/cpu/panels_128.inc"

/// Adds 4 products to each sum.
constexpr bool kAddsProducts = true;
SALIENT_INLINE Ints add_products(Ints sums, Ints weights, Ints x) {
  return vdotq_s32(sums, vreinterpretq_s8_s32(weights), vreinterpretq_s8_s32(x));
}
/// SDOT takes signed bytes only (USDOT is an extension of its own): nibbles are the same either way, codes of
/// 8 bits are multiplied as code - 128, their zeros less as much.
SALIENT_INLINE Ints whole_codes(Ints codes) {
  return vreinterpretq_s32_u8(veorq_u8(vreinterpretq_u8_s32(codes), vdupq_n_u8(0x80)));
}
constexpr int kByteOffset = 128;
/// 4 rows have 16 sums, a line of codes takes 8 registers more.
constexpr int kMostRows = 4;

#include "backend/cpu/panels_vector.inc"

}  // namespace

const PanelKernels kNeonDotprodPanels = kTable;

}  // namespace salient

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
