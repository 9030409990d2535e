#pragma once

#include "backend/cuda/device.h"

namespace salient::cuda {

/// Another device, which others own: for those that change a part of it, or lend it to whoever wants to own
/// one.
class ForwardingDevice : public Device {
 public:
  explicit ForwardingDevice(Device& device) : device_(device) {}

  const DeviceProperties& properties() const override { return device_.properties(); }
  size_t free_bytes() override { return device_.free_bytes(); }
  void* allocate(size_t bytes) override { return device_.allocate(bytes); }
  void release(void* memory) noexcept override { device_.release(memory); }
  void copy_in(void* to, const void* from, size_t bytes) override { device_.copy_in(to, from, bytes); }
  void copy_out(void* to, const void* from, size_t bytes) override { device_.copy_out(to, from, bytes); }
  void copy(void* to, const void* from, size_t bytes) override { device_.copy(to, from, bytes); }
  void fill_zero(void* to, size_t bytes) override { device_.fill_zero(to, bytes); }
  void launch(const Launch& launch) override { device_.launch(launch); }
  void synchronize() override { device_.synchronize(); }
  double seconds_of(const std::function<void()>& work) override { return device_.seconds_of(work); }
  bool multiplies() const override { return device_.multiplies(); }
  void multiply(const HalfProduct& product) override { device_.multiply(product); }
  std::unique_ptr<LaunchGraph> capture(std::span<const Launch> launches) override {
    return device_.capture(launches);
  }
  void run(LaunchGraph& graph, std::span<const Launch> launches) override { device_.run(graph, launches); }

 protected:
  Device& device_;
};

}  // namespace salient::cuda
