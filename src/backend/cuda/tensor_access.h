#pragma once

#include <memory>
#include <mutex>
#include <span>

#include "backend/cuda/cuda_memory.h"
#include "backend/cuda/device_buffer.h"
#include "backend/cuda/elementwise.h"
#include "tensor/tensor.h"

namespace salient::cuda {

/// How operations get at tensors and the device. Addresses are taken first: a tensor that has to be brought
/// to the device takes it itself. Then launches have it to themselves.
class TensorAccess {
 public:
  explicit TensorAccess(std::unique_ptr<Device> device)
      : memory_(std::make_shared<CudaMemory>(std::move(device))) {}

  const float* read(const Tensor& tensor) const {
    return static_cast<const float*>(tensor.device_read(memory_));
  }
  float* update(Tensor& tensor) const { return static_cast<float*>(tensor.device_update(memory_)); }
  float* write(Tensor& tensor) const { return static_cast<float*>(tensor.device_write(memory_)); }
  const std::shared_ptr<CudaMemory>& memory() const { return memory_; }
  const DeviceProperties& properties() const { return memory_->device().properties(); }

  /// body(device) while no other thread uses it.
  template <typename Body>
  auto run(const Body& body) const {
    const std::lock_guard lock(memory_->mutex());
    return body(memory_->device());
  }

 private:
  std::shared_ptr<CudaMemory> memory_;
};

/// A copy of `values` for launches that follow. Behind them its memory may be given back.
template <typename T>
DeviceBuffer sent(Device& device, std::span<const T> values) {
  if (values.empty()) return {};
  DeviceBuffer buffer(device, values.size_bytes());
  constexpr size_t kMostByLaunches = size_t{2} * kWriteBytes;
  if (values.size_bytes() <= kMostByLaunches) {
    write_bytes(device, std::as_bytes(values), buffer.address());
  } else {
    device.copy_in(buffer.address(), values.data(), values.size_bytes());
  }
  return buffer;
}

}  // namespace salient::cuda
