#pragma once

#include "backend/cuda/device_copies.h"
#include "backend/cuda/forwarding_device.h"

namespace salient::cuda {

/// A device whose memory is a cache of the host's: where there is no room for more, copies of tensors that
/// nobody holds go to the host.
class SpillingDevice final : public ForwardingDevice {
 public:
  SpillingDevice(Device& device, DeviceCopies& copies) : ForwardingDevice(device), copies_(copies) {}
  /// With what would make room.
  size_t free_bytes() override { return device_.free_bytes() + copies_.idle_bytes(); }
  /// Errors: out_of_memory, saying what is in the way, when all that can go has gone.
  void* allocate(size_t bytes) override;

 private:
  DeviceCopies& copies_;
};

}  // namespace salient::cuda
