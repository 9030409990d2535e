#pragma once

#include <utility>

#include "backend/cuda/device.h"

namespace salient::cuda {

/// An allocation of a device, given back when this goes. The device must outlive it.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(Device& device, size_t bytes)
      : device_(&device), address_(device.allocate(bytes)), bytes_(bytes) {}
  DeviceBuffer(DeviceBuffer&& other) noexcept { swap(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~DeviceBuffer() {
    if (device_ != nullptr) device_->release(address_);
  }

  /// Holding a copy of `values`.
  template <typename T>
  static DeviceBuffer of(Device& device, std::span<const T> values) {
    DeviceBuffer memory(device, values.size_bytes());
    device.copy_in(memory.address_, values.data(), values.size_bytes());
    return memory;
  }

  bool defined() const { return device_ != nullptr; }
  size_t byte_size() const { return bytes_; }
  void* address() const { return address_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(address_);
  }
  /// At least so many bytes; what was there is lost when it grows.
  void reserve(Device& device, size_t bytes) {
    if (bytes > bytes_) *this = DeviceBuffer(device, bytes);
  }

 private:
  void swap(DeviceBuffer& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(address_, other.address_);
    std::swap(bytes_, other.bytes_);
  }

  Device* device_ = nullptr;
  void* address_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace salient::cuda
