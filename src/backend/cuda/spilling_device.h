#pragma once

#include "backend/cuda/device_copies.h"
#include "backend/cuda/forwarding_device.h"

namespace salient::cuda {

/// What a queue of launches stands on: where the driver has no memory for a launch, a graph or a product,
/// copies of tensors go to the host that nobody holds and that no launch uses which the queue holds back, and
/// it is tried once more. Neither has queued anything then.
class RetryingDevice final : public ForwardingDevice {
 public:
  /// Modules, graphs and workspaces take so much.
  static constexpr size_t kBytesAtOnce = size_t{64} << 20;

  RetryingDevice(Device& device, DeviceCopies& copies) : ForwardingDevice(device), copies_(copies) {}
  void launch(const Launch& launch) override;
  bool multiplies() const override;
  void multiply(const HalfProduct& product) override;
  std::unique_ptr<LaunchGraph> capture(std::span<const Launch> launches) override;
  void run(LaunchGraph& graph, std::span<const Launch> launches) override;

 private:
  template <typename Body>
  auto with_room(const Body& body) const -> decltype(body());

  DeviceCopies& copies_;
};

/// A device whose memory is a cache of the host's: where there is no room for more, copies of tensors that
/// nobody holds go to the host.
class SpillingDevice final : public ForwardingDevice {
 public:
  SpillingDevice(Device& device, DeviceCopies& copies) : ForwardingDevice(device), copies_(copies) {}
  /// What is free and what would be when all copies that can go have gone.
  size_t room_bytes() { return free_bytes() + copies_.idle_bytes(); }
  /// Errors: out_of_memory, saying what is in the way, when all that can go has gone; where that would be too
  /// little, nothing goes.
  void* allocate(size_t bytes) override;

 private:
  bool may_make_room(size_t bytes);

  DeviceCopies& copies_;
};

}  // namespace salient::cuda
