#include <cpuid.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "backend/cpu/isa.h"
#include "backend/cpu/tiles.h"
#include "base/error.h"

// What isa.h says of x86-64.

namespace salient {
namespace {

constexpr std::array kIsas{Isa::portable, Isa::avx2, Isa::avx512};

struct CpuidLeaf {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
};

CpuidLeaf cpuid(unsigned leaf, unsigned subleaf) {
  CpuidLeaf result;
  __get_cpuid_count(leaf, subleaf, &result.eax, &result.ebx, &result.ecx, &result.edx);
  return result;
}

bool bit(unsigned word, int index) { return ((word >> index) & 1u) != 0; }

/// XCR0: the register files that the operating system saves. 0 without xgetbv.
uint64_t saved_registers() {
  if (!bit(cpuid(1, 0).ecx, 27)) return 0;
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}

bool saves(uint64_t mask) { return (saved_registers() & mask) == mask; }

// Bits of XCR0 (Intel SDM volume 1, 13.3): SSE, AVX; then opmask, upper halves of zmm0-15, zmm16-31; AMX
// tiles.
constexpr uint64_t kAvxState = 0x6;
constexpr uint64_t kAvx512State = 0xe6;
constexpr uint64_t kTileState = 0x60000;

bool has_avx2() {
  const CpuidLeaf one = cpuid(1, 0);
  const bool fma_and_f16c = bit(one.ecx, 12) && bit(one.ecx, 29);
  return saves(kAvxState) && fma_and_f16c && bit(cpuid(7, 0).ebx, 5);
}

bool has_avx512() {
  const unsigned ebx = cpuid(7, 0).ebx;
  const bool f_dq_bw_vl = bit(ebx, 16) && bit(ebx, 17) && bit(ebx, 30) && bit(ebx, 31);
  return has_avx2() && saves(kAvx512State) && f_dq_bw_vl;
}

}  // namespace

std::span<const Isa> built_isas() { return kIsas; }

bool cpu_supports(Isa isa) {
  if (isa == Isa::avx2) return has_avx2();
  if (isa == Isa::avx512) return has_avx512();
  return isa == Isa::portable;
}

std::vector<std::string> matrix_extensions(const IsaChoice& choice) {
  std::vector<std::string> result;
  const CpuidLeaf seven = cpuid(7, 0);
  const CpuidLeaf seven_one = cpuid(7, 1);
  if (choice.isa == Isa::avx2 && choice.vnni && bit(seven_one.eax, 4)) result.emplace_back("avx_vnni");
  if (choice.isa != Isa::avx512) return result;
  if (choice.vnni && bit(seven.ecx, 11)) result.emplace_back("avx512_vnni");
  if (bit(seven_one.eax, 5)) result.emplace_back("avx512_bf16");
  const bool tiles = choice.amx && saves(kTileState) && bit(seven.edx, 24);
  if (tiles && bit(seven.edx, 22)) result.emplace_back("amx_bf16");
  if (tiles && bit(seven.edx, 25)) result.emplace_back("amx_int8");
  return result;
}

PanelKernels panel_kernels_for(const IsaChoice& choice) {
  const std::vector<std::string> extensions = matrix_extensions(choice);
  const auto has = [&](const char* name) { return std::ranges::find(extensions, name) != extensions.end(); };
  if (choice.isa == Isa::portable) return kPortablePanels;
  if (choice.isa == Isa::avx2) return has("avx_vnni") ? kAvxVnniPanels : kAvx2Panels;
  PanelKernels kernels = has("avx512_vnni") ? kAvx512VnniPanels : kAvx512Panels;
  if (has("amx_int8") && system_allows_tiles()) kernels.multiply_in_tiles = multiply_panels_in_tiles;
  return kernels;
}

const CpuKernels& kernels_for(Isa isa) {
  if (isa == Isa::portable) return kPortableKernels;
  if (isa == Isa::avx2) return kAvx2Kernels;
  if (isa == Isa::avx512) return kAvx512Kernels;
  fail(ErrorKind::internal, "no kernels for instruction set {}", to_string(isa));
}

}  // namespace salient
