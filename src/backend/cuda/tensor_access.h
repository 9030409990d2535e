#pragma once

#include <memory>
#include <mutex>
#include <span>

#include "backend/cuda/cuda_memory.h"
#include "backend/cuda/device_buffer.h"
#include "backend/cuda/elementwise.h"
#include "base/error.h"
#include "tensor/tensor.h"

namespace salient::cuda {

/// How operations get at tensors and the device. Addresses are taken first: a tensor that has to be brought
/// to the device takes it itself. Then launches have it to themselves (`run`). Whose address was taken stays
/// on the device until this thread has launched, or until it could not take another.
class TensorAccess {
 public:
  explicit TensorAccess(std::unique_ptr<Device> device)
      : memory_(std::make_shared<CudaMemory>(std::move(device))) {}

  // Errors: internal for tensors of another type.
  const float* read(const Tensor& tensor) const {
    return held([&] {
      require_floats(tensor);
      return static_cast<const float*>(tensor.device_read(memory_));
    });
  }
  float* update(Tensor& tensor) const {
    return held([&] {
      require_floats(tensor);
      return static_cast<float*>(tensor.device_update(memory_));
    });
  }
  float* write(Tensor& tensor) const {
    return held([&] {
      require_floats(tensor);
      return static_cast<float*>(tensor.device_write(memory_));
    });
  }
  const void* read_bytes(const Tensor& tensor) const {
    return held([&] { return tensor.device_read(memory_); });
  }
  void* update_bytes(Tensor& tensor) const {
    return held([&] { return tensor.device_update(memory_); });
  }
  void* write_bytes(Tensor& tensor) const {
    return held([&] { return tensor.device_write(memory_); });
  }
  const std::shared_ptr<CudaMemory>& memory() const { return memory_; }
  const DeviceProperties& properties() const { return memory_->device().properties(); }

  /// body(device) while no other thread uses it.
  template <typename Body>
  auto run(const Body& body) const {
    return memory_->run(body);
  }

  /// What `take` returns. If it fails, this thread holds nothing any more. For whole operations too, which
  /// may fail between addresses and `run`.
  template <typename Take>
  auto held(const Take& take) const -> decltype(take()) {
    try {
      return take();
    } catch (...) {
      memory_->let_go();
      throw;
    }
  }

 private:
  static void require_floats(const Tensor& tensor) {
    if (tensor.defined() && tensor.dtype() == DType::f32) return;
    fail(ErrorKind::internal, "cuda: a tensor {} {} where F32 was expected",
         salient::to_string(tensor.dtype()), salient::to_string(tensor.shape()));
  }

  std::shared_ptr<CudaMemory> memory_;
};

/// What `body` returns; false where its tensors are more than the device can hold at once, with all else
/// gone.
template <typename Body>
bool done_where_there_is_room(const Body& body) {
  try {
    return body();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::out_of_memory) throw;
    return false;
  }
}

/// A copy of `values` for launches that follow. Behind them its memory may be given back.
template <typename T>
DeviceBuffer sent(Device& device, std::span<const T> values) {
  if (values.empty()) return {};
  DeviceBuffer buffer(device, values.size_bytes());
  send_bytes(device, std::as_bytes(values), buffer.address());
  return buffer;
}

}  // namespace salient::cuda
