#include "backend/cuda/device.h"

#include <algorithm>

namespace salient::cuda {
namespace {

/// What the system takes of each block's shared memory, on every chip from sm_80 on.
constexpr size_t kReservedBytes = 1024;

}  // namespace

int resident_blocks(const DeviceProperties& device, const Kernel& kernel, size_t shared_bytes) {
  const auto by_shared_memory =
      static_cast<int>(device.multiprocessor_shared_bytes / (shared_bytes + kReservedBytes));
  return std::clamp(by_shared_memory, 1, kernel.blocks);
}

}  // namespace salient::cuda
