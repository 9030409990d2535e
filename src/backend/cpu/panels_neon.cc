#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "backend/cpu/panels.h"

namespace salient {
namespace {

#include "backend/cpu/panels_128.inc"

/// Byte products come in pairs of 16 bits, which are added up before they are widened.
constexpr bool kAddsProducts = false;
SALIENT_INLINE Ints add_products(Ints sums, Ints, Ints) { return sums; }
SALIENT_INLINE Ints whole_codes(Ints codes) { return codes; }
constexpr int kByteOffset = 0;
/// 4 rows have 16 sums of pairs, half of the registers.
constexpr int kMostRows = 4;

#include "backend/cpu/panels_vector.inc"

}  // namespace

const PanelKernels kNeonPanels = kTable;

}  // namespace salient
