#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "backend/cpu/kernels.h"

namespace salient {

std::string_view to_string(Isa isa);

/// Whether this processor and its operating system run the kernels of `isa`.
bool cpu_supports(Isa isa);
/// The instruction sets of this processor that Salient has kernels for, slowest first.
std::vector<Isa> supported_isas();

/// The best supported instruction set, or the one that `name` (the value of SALIENT_ISA, may be empty)
/// forces. Errors: invalid_argument for an unknown name, unsupported for one that this processor lacks.
Isa choose_isa(std::string_view name);

/// Extensions beyond `isa` that speed up integer and bf16 products, as /proc/cpuinfo spells them.
std::vector<std::string> matrix_extensions(Isa isa);

const CpuKernels& kernels_for(Isa isa);

}  // namespace salient
