#pragma once

#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "backend/cuda/launch_queue.h"
#include "backend/cuda/spilling_device.h"

namespace salient::cuda {

/// A device as tensors know it. The device belongs to one thread at a time: `mutex` is held for each of its
/// calls, here and by whoever launches. Launches that repeat are held back and go as graphs. Where its memory
/// ends, copies that no thread holds make room.
class CudaMemory final : public DeviceMemory {
 public:
  explicit CudaMemory(std::unique_ptr<Device> device)
      : owned_(std::move(device)), beneath_(*owned_, copies_), queue_(beneath_), device_(queue_, copies_) {}

  void* allocate(size_t bytes) override;
  void release(void* address) noexcept override;
  void upload(void* to, const std::byte* from, size_t bytes) override;
  void download(std::byte* to, const void* from, size_t bytes) override;
  void copy(void* to, const void* from, size_t bytes) override;
  void hold(void* address, TensorMemory& owner) override;
  void hold_marked(const std::function<void(uint64_t use)>& visit) override;
  void let_go() noexcept override;

  /// Of copies that have made room for others so far.
  size_t taken_bytes();

  std::mutex& mutex() { return mutex_; }
  SpillingDevice& device() { return device_; }

  /// body(device) while no other thread uses it; behind it this thread lets go.
  template <typename Body>
  auto run(const Body& body) {
    const std::lock_guard lock(mutex_);
    struct LetGo {
      CudaMemory& memory;
      ~LetGo() { memory.end_operation(); }
    } const behind{*this};
    return body(device());
  }

 private:
  void end_operation() noexcept;

  std::mutex mutex_;
  DeviceCopies copies_;
  std::unique_ptr<Device> owned_;
  RetryingDevice beneath_;
  LaunchQueue queue_;
  SpillingDevice device_;
};

}  // namespace salient::cuda
