#pragma once

#include <algorithm>
#include <random>

#include "quant/quantized_weight.h"

namespace salient {

/// f32 [rows, columns] of normal values with the standard deviation of a trained linear.
inline Tensor random_matrix(int64_t rows, int64_t columns, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 0.05f);
  Tensor result = Tensor::empty(DType::f32, {rows, columns});
  for (float& value : result.mutable_values<float>()) value = normal(random);
  return result;
}

struct RandomWeight {
  QuantizationScheme scheme;
  int64_t out_features;
  int64_t in_features;
  DType scale_dtype = DType::f16;
  uint32_t seed = 1;
};

/// Every code and zero is equally likely, so that no order of codes in a word goes unnoticed. The rows of a
/// whole matrix share the first row's scale and zero.
inline QuantizedWeight random_quantized_weight(const RandomWeight& spec) {
  std::mt19937 random(spec.seed);
  const auto codes = static_cast<uint32_t>(max_code(spec.scheme)) + 1;
  auto weight = allocate_quantized_weight(spec.scheme, spec.out_features, spec.in_features, spec.scale_dtype);
  for (int64_t row = 0; row < spec.out_features; ++row) {
    for (int64_t column = 0; column < spec.in_features; ++column) {
      weight.set_code(row, column, static_cast<int>(random() % codes));
    }
  }
  const bool one_grid = spec.scheme.group_size == QuantizationScheme::kWholeMatrix;
  if (weight.zeros.defined()) {
    const auto zeros = weight.zeros.mutable_values<uint8_t>();
    for (uint8_t& zero : zeros) zero = static_cast<uint8_t>(random() % codes);
    if (one_grid) std::fill(zeros.begin(), zeros.end(), zeros.front());
  }
  std::vector<float> scales(static_cast<size_t>(weight.scales.element_count()));
  for (float& scale : scales) scale = 0.001f + static_cast<float>(random() % 1000) * 1e-5f;
  if (one_grid) std::fill(scales.begin(), scales.end(), scales.front());
  convert_from_float(scales, spec.scale_dtype, weight.scales.mutable_bytes());
  return weight;
}

}  // namespace salient
