#pragma once

#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "backend/cuda/device.h"
#include "tensor/tensor_memory.h"

namespace salient::cuda {

/// A device as tensors know it. The device belongs to one thread at a time: `mutex` is held for each of its
/// calls, here and by whoever launches.
class CudaMemory final : public DeviceMemory {
 public:
  explicit CudaMemory(std::unique_ptr<Device> device) : device_(std::move(device)) {}

  void* allocate(size_t bytes) override;
  void release(void* address) noexcept override;
  void upload(void* to, const std::byte* from, size_t bytes) override;
  void download(std::byte* to, const void* from, size_t bytes) override;
  void copy(void* to, const void* from, size_t bytes) override;

  std::mutex& mutex() { return mutex_; }
  Device& device() { return *device_; }

 private:
  std::mutex mutex_;
  std::unique_ptr<Device> device_;
};

}  // namespace salient::cuda
