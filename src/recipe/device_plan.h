#pragma once

#include "recipe/plan.h"

namespace salient {

/// What the calibration must have at once in a device's own memory, in bytes. All else can wait on the host:
/// hidden states, and statistics and weights that are not worked on.
struct DeviceNeed {
  int64_t layer = 0;     ///< that needs most
  uint64_t linears = 0;  ///< of it, as products read them
  uint64_t gram = 0;     ///< one Gram matrix, the largest
  uint64_t rows = 0;     ///< what one batch shows it
  uint64_t total() const { return linears + gram + rows; }
};

/// Nothing without calibration.
DeviceNeed device_need(const Job& job, const MemoryPlan& plan);

/// Errors: out_of_memory with these numbers, where the job's back end has a memory of its own and less than
/// that is free.
void check_device_memory(const Job& job, const MemoryPlan& plan);

}  // namespace salient
