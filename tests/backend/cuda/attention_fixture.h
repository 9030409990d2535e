#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/attention.h"
#include "backend/cuda/simulator.h"
#include "support/random.h"

namespace salient::test {

/// Memory of a device with what a vector of the host has.
class DeviceCopy {
 public:
  template <typename T>
  DeviceCopy(SimulatedDevice& device, std::span<const T> values) : DeviceCopy(device, values.size_bytes()) {
    device.copy_in(memory_, values.data(), values.size_bytes());
  }
  DeviceCopy(SimulatedDevice& device, size_t bytes) : device_(&device), memory_(device.allocate(bytes)) {}
  DeviceCopy(DeviceCopy&& other) noexcept
      : device_(other.device_), memory_(std::exchange(other.memory_, nullptr)) {}
  DeviceCopy& operator=(DeviceCopy&&) = delete;
  ~DeviceCopy() { device_->release(memory_); }

  template <typename T>
  T* as() const {
    return static_cast<T*>(memory_);
  }

 private:
  SimulatedDevice* device_;
  void* memory_;
};

/// Pages of one layer on the device and on the host, filled by the same rows.
class TwoCaches {
 public:
  TwoCaches(SimulatedDevice& device, KvFormat keys, KvFormat values, int64_t positions)
      : device_(device), keys_(keys), values_(values) {
    const size_t bytes = kOffset + keys.page_bytes() + values.page_bytes();
    std::vector<std::byte*> addresses;
    for (int64_t page = 0; page * kPageRows < positions; ++page) {
      host_blocks_.push_back(
          std::make_shared<Tensor>(Tensor::zeros(DType::u8, {static_cast<int64_t>(bytes)})));
      device_memory_.emplace_back(device, bytes);
      addresses.push_back(device_memory_.back().as<std::byte>());
    }
    table_ = std::make_unique<DeviceCopy>(device, std::span<std::byte* const>(addresses));
  }

  KvView host() const {
    return {.keys = {keys_, host_blocks_, kOffset}, .values = {values_, host_blocks_, values_at()}};
  }
  cuda::DeviceRows device_keys() const {
    return {.format = keys_, .blocks = table_->as<std::byte*>(), .offset = kOffset};
  }
  cuda::DeviceRows device_values() const {
    return {.format = values_, .blocks = table_->as<std::byte*>(), .offset = values_at()};
  }

  static size_t keys_at() { return kOffset; }
  size_t values_at() const { return kOffset + keys_.page_bytes(); }

  void fill(Backend& cpu, const Tensor& keys, const Tensor& values, int64_t first) {
    const RowsForCache rows{.count = keys.dim(0), .first = first, .pages = host()};
    cpu.rope_and_store({.keys = keys, .values = values, .caches = {&rows, 1}});
    const DeviceCopy new_keys(device_, keys.values<float>());
    const DeviceCopy new_values(device_, values.values<float>());
    cuda::rope_and_store(device_, {}, {},
                         {.count = keys.dim(0),
                          .keys = new_keys.as<float>(),
                          .values = new_values.as<float>(),
                          .to_keys = device_keys(),
                          .to_values = device_values(),
                          .first = first});
  }

  /// Row `position` of a head as the device keeps it: elements, and the scale.
  struct Row {
    std::vector<std::byte> elements;
    float scale = 0;
    bool operator==(const Row& other) const {
      const bool same_scale = scale == other.scale || (std::isnan(scale) && std::isnan(other.scale));
      return same_scale && elements == other.elements;
    }
  };
  Row device_row(const KvFormat& format, size_t offset, int64_t head, int64_t position) const {
    return row(device_memory_[static_cast<size_t>(position / kPageRows)].as<std::byte>() + offset, format,
               head, position);
  }
  Row host_row(const KvFormat& format, size_t offset, int64_t head, int64_t position) const {
    return row(host_blocks_[static_cast<size_t>(position / kPageRows)]->bytes() + offset, format, head,
               position);
  }

 private:
  static constexpr size_t kOffset = 128;

  static Row row(const std::byte* page, const KvFormat& format, int64_t head, int64_t position) {
    const std::byte* begin = page + static_cast<size_t>(head) * format.head_bytes();
    const size_t bytes = static_cast<size_t>(format.dim) * format.element_bytes();
    const std::byte* at = begin + static_cast<size_t>(position % kPageRows) * bytes;
    Row result{.elements = {at, at + bytes}};
    if (format.type != KvType::int8) return result;
    std::memcpy(&result.scale,
                begin + kPageRows * bytes + static_cast<size_t>(position % kPageRows) * sizeof(float),
                sizeof(float));
    return result;
  }

  SimulatedDevice& device_;
  KvFormat keys_;
  KvFormat values_;
  std::vector<KvBlock> host_blocks_;
  std::vector<DeviceCopy> device_memory_;
  std::unique_ptr<DeviceCopy> table_;
};

inline Tensor to_host(SimulatedDevice& device, const void* from, Shape shape) {
  Tensor result = Tensor::empty(DType::f32, std::move(shape));
  device.copy_out(result.mutable_bytes(), from, result.byte_size());
  return result;
}

/// Largest |a - b|; a NaN on one side alone is infinitely far.
inline double distance(const Tensor& a, const Tensor& b) {
  double worst = 0;
  const auto left = a.values<float>();
  const auto right = b.values<float>();
  for (size_t i = 0; i < left.size(); ++i) {
    if (std::isnan(left[i]) && std::isnan(right[i])) continue;
    const double off = std::abs(double{left[i]} - double{right[i]});
    worst = off <= worst ? worst : std::isnan(off) ? INFINITY : off;
  }
  return worst;
}

}  // namespace salient::test
