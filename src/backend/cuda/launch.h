#pragma once

#include "backend/cuda/device.h"
#include "base/error.h"

// What host functions share that launch kernels.

namespace salient::cuda {

/// Blocks of `each` that hold `count`. Errors: internal for more than a grid has along x.
inline int blocks_for(int64_t count, int64_t each) {
  const int64_t blocks = (count + each - 1) / each;
  if (blocks > 0x7fffffff) fail(ErrorKind::internal, "cuda: a grid of {} blocks", blocks);
  return static_cast<int>(blocks);
}

template <typename Arguments>
void launch(Device& device, const Kernel& kernel, const Grid& grid, const Arguments& arguments,
            size_t shared_bytes = 0) {
  device.launch(
      {.kernel = kernel, .grid = grid, .shared_bytes = shared_bytes, .arguments = bytes_of(arguments)});
}

}  // namespace salient::cuda
