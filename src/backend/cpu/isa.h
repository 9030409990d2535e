#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/cpu/kernels.h"
#include "backend/cpu/panels.h"

namespace salient {

std::string_view to_string(Isa isa);

/// The instruction sets of the kernels that are compiled in, which are those of one kind of processor:
/// slowest first.
std::span<const Isa> built_isas();
/// Whether this processor and its operating system run the kernels of `isa`.
bool cpu_supports(Isa isa);
/// The instruction sets of this processor that Salient has kernels for, slowest first.
std::vector<Isa> supported_isas();

/// What a back end may use: a table of kernels, and extensions beyond it as far as the processor has them.
struct IsaChoice {
  IsaChoice(Isa table) : isa(table) {}  // an instruction set alone means all that goes with it

  Isa isa;
  bool vnni = true;     ///< products of bytes: AVX-VNNI, AVX512-VNNI
  bool amx = true;      ///< tiles, of bf16 and of bytes
  bool dotprod = true;  ///< products of bytes beside NEON
};

/// The best that this processor has, or what `text` (the value of SALIENT_ISA, may be empty) leaves of it:
/// the name of an instruction set, no-vnni, no-amx and no-dotprod, each at most once and all optional, with
/// commas between. Errors: invalid_argument for anything else, unsupported for a set that this processor
/// lacks.
IsaChoice choose_isa(std::string_view text);

/// Extensions beyond the table that speed up integer and bf16 products, as /proc/cpuinfo spells them.
std::vector<std::string> matrix_extensions(const IsaChoice& choice);

/// The products with panels that a choice stands for, as far as this processor runs them.
PanelKernels panel_kernels_for(const IsaChoice& choice);

const CpuKernels& kernels_for(Isa isa);

}  // namespace salient
