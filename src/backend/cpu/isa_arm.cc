#include <sys/auxv.h>

#include <array>

#include "backend/cpu/isa.h"
#include "base/error.h"

// What isa.h says of aarch64, where NEON is part of every processor.

namespace salient {
namespace {

constexpr std::array kIsas{Isa::portable, Isa::neon};

/// SDOT and UDOT, from Armv8.2 on where a processor has them.
bool has_dotprod() {
  constexpr unsigned long kDotprod = 1ul << 20;  // HWCAP_ASIMDDP (Documentation/arm64/elf_hwcaps.rst)
  return (getauxval(AT_HWCAP) & kDotprod) != 0;
}

}  // namespace

std::span<const Isa> built_isas() { return kIsas; }

bool cpu_supports(Isa isa) { return isa == Isa::portable || isa == Isa::neon; }

std::vector<std::string> matrix_extensions(const IsaChoice& choice) {
  if (choice.isa == Isa::neon && choice.dotprod && has_dotprod()) return {"asimddp"};
  return {};
}

PanelKernels panel_kernels_for(const IsaChoice& choice) {
  if (choice.isa == Isa::portable) return kPortablePanels;
  return matrix_extensions(choice).empty() ? kNeonPanels : kNeonDotprodPanels;
}

const CpuKernels& kernels_for(Isa isa) {
  if (isa == Isa::portable) return kPortableKernels;
  if (isa == Isa::neon) return kNeonKernels;
  fail(ErrorKind::internal, "no kernels for instruction set {}", to_string(isa));
}

}  // namespace salient
