#pragma once

#include <gtest/gtest.h>

#include <random>
#include <span>
#include <vector>

#include "backend/cuda/simulator.h"
#include "tensor/tensor.h"

namespace salient::test {

/// Arrays of the simulated device that live as long as a test; their guards are looked at in the end.
class DeviceArrays : public testing::Test {
 protected:
  void TearDown() override {
    for (void* memory : memory_) device.release(memory);
    EXPECT_TRUE(device.guards_held());
    EXPECT_EQ(device.used_bytes(), 0u);
  }

  template <typename T>
  T* room(size_t count) {
    memory_.push_back(device.allocate(count * sizeof(T)));
    return static_cast<T*>(memory_.back());
  }
  template <typename T>
  T* put(std::span<const T> values) {
    T* memory = room<T>(values.size());
    device.copy_in(memory, values.data(), values.size_bytes());
    return memory;
  }
  template <typename T>
  T* put(const std::vector<T>& values) {
    return put(std::span<const T>(values));
  }
  float* put(const Tensor& tensor) { return put(tensor.values<float>()); }
  /// Its first value stands 4 bytes behind where 16 bytes could be read at once.
  float* put_unaligned(std::span<const float> values) {
    auto* memory = room<float>(values.size() + 1);
    device.copy_in(memory + 1, values.data(), values.size_bytes());
    return memory + 1;
  }
  template <typename T>
  std::vector<T> get(const T* from, size_t count) {
    std::vector<T> result(count);
    device.copy_out(result.data(), from, count * sizeof(T));
    return result;
  }
  Tensor get(const float* from, Shape shape) {
    Tensor result = Tensor::empty(DType::f32, std::move(shape));
    device.copy_out(result.mutable_bytes(), from, result.byte_size());
    return result;
  }
  Tensor random(Shape shape, float scale = 1.0f) {
    std::normal_distribution<float> normal(0.0f, scale);
    Tensor result = Tensor::empty(DType::f32, std::move(shape));
    for (float& value : result.mutable_values<float>()) value = normal(generator);
    return result;
  }

  SimulatedDevice device;
  std::mt19937 generator{42};

 private:
  std::vector<void*> memory_;
};

/// Largest |a - b| over the largest |b|.
inline double relative_distance(std::span<const float> a, std::span<const float> b) {
  double worst = a.size() == b.size() ? 0 : INFINITY;
  double size = 1e-30;
  for (size_t i = 0; i < b.size(); ++i) {
    const double distance = std::abs(double{a[i]} - double{b[i]});
    if (!(distance <= worst)) worst = distance;
    size = std::max(size, std::abs(double{b[i]}));
  }
  return worst / size;
}

}  // namespace salient::test
