#pragma once

#include "backend/backend.h"
#include "backend/cuda/device.h"

namespace salient::cuda {

/// See Backend::largest; `x` is where the problem's lies on the device.
LargestValues largest_values(Device& device, const float* x, const LargestProblem& problem);

}  // namespace salient::cuda
