#pragma once

#include <random>

#include "tensor/tensor.h"

namespace salient {

/// Normal numbers, the same on every machine that has the same standard library.
inline Tensor random_tensor(Shape shape, uint32_t seed, float deviation = 1.0f) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0f, deviation);
  Tensor result = Tensor::empty(DType::f32, std::move(shape));
  for (float& value : result.mutable_values<float>()) value = normal(generator);
  return result;
}

}  // namespace salient
