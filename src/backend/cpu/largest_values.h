#pragma once

#include "backend/backend.h"

namespace salient {

/// See Backend::largest.
LargestValues largest_values(const LargestProblem& problem);

}  // namespace salient
