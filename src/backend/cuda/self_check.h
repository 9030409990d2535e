#pragma once

#include <string>

#include "backend/backend.h"

namespace salient::cuda {

/// Runs a product of each family, a norm and an attention of a few rows beside the CPU, in milliseconds. What
/// is wrong, or nothing. Errors: those of the back end.
std::string self_check(Backend& backend);

}  // namespace salient::cuda
