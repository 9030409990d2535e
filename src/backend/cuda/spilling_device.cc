#include "backend/cuda/spilling_device.h"

#include "base/error.h"

namespace salient::cuda {

void* SpillingDevice::allocate(size_t bytes) {
  for (;;) {
    try {
      return device_.allocate(bytes);
    } catch (Error& error) {
      if (error.kind() != ErrorKind::out_of_memory) throw;
      if (copies_.take_away(bytes, device_) > 0) continue;
      constexpr double kMiB = 1 << 20;
      fail(ErrorKind::out_of_memory,
           "{}; of tensors there is only left what is being worked on ({:.1f} MiB), the rest are weights and "
           "working memory: take fewer tokens at a time, a smaller model or a GPU with more memory",
           error.what(), static_cast<double>(copies_.held_bytes()) / kMiB);
    }
  }
}

}  // namespace salient::cuda
