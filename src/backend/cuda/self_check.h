#pragma once

#include <string>

#include "backend/backend.h"

namespace salient::cuda {

/// Runs a product of each family, of codes and of halves, a norm, a rotation and attention, with and without
/// a cache of pages, beside the CPU, in milliseconds. What is wrong, or nothing. Errors: those of the back
/// end.
std::string self_check(Backend& backend);

}  // namespace salient::cuda
