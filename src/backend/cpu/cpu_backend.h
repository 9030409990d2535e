#pragma once

#include <memory>

#include "backend/backend.h"
#include "backend/cpu/isa.h"

namespace salient {

/// make_cpu_backend with a given instruction set, which the processor must have.
std::unique_ptr<Backend> make_cpu_backend_for(const IsaChoice& choice, const CpuBackendOptions& options);

}  // namespace salient
