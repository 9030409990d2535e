#pragma once

#include <memory>

#include "backend/backend.h"
#include "backend/cpu/isa.h"

namespace salient {

/// Has the dense library keep to an instruction set, as far as this process has not used it yet.
void limit_dense_library(const IsaChoice& choice);

/// make_cpu_backend with a given instruction set, which the processor must have.
std::unique_ptr<Backend> make_cpu_backend_for(const IsaChoice& choice, const CpuBackendOptions& options);

}  // namespace salient
