#pragma once

#include <cmath>

#include "backend/cuda/elementwise.h"
#include "backend/cuda/floats.cuh"

// A thread has four values, so that memory gets 16 bytes a load; full multiprocessors keep 32 KiB a stream on
// their way. None of these waits for anything but memory.

namespace salient::cuda {

SALIENT_DEVICE int64_t first_value() {
  return (int64_t{simt::block_x()} * simt::block_threads() + simt::thread()) * 4;
}

SALIENT_DEVICE void add_to(const AddArguments& a) {
  const int64_t first = first_value();
  const bool aligned = on_16_bytes(a.x) && on_16_bytes(a.y);
  const Floats4 x = load_floats(a.x, first, a.count, aligned);
  Floats4 y = load_floats(a.y, first, a.count, aligned);
  SALIENT_UNROLL
  for (int e = 0; e < 4; ++e) y.value[e] += x.value[e];
  store_floats(y, a.y, first, a.count, aligned);
}

SALIENT_DEVICE void scale_or_cap(const ScaleArguments& a) {
  const int64_t first = first_value();
  const bool aligned = on_16_bytes(a.x);
  Floats4 x = load_floats(a.x, first, a.count, aligned);
  SALIENT_UNROLL
  for (int e = 0; e < 4; ++e) {
    float& value = x.value[e];
    value = a.cap > 0 ? a.cap * tanhf(value / a.cap) : value * a.factor;
  }
  store_floats(x, a.x, first, a.count, aligned);
}

/// Hendrycks & Gimpel 2016: x/2 (1 + tanh u) with u = sqrt(2/pi) (x + 0.044715 x^3), which is x / (1 +
/// e^-2u).
SALIENT_DEVICE float gelu_by_tanh(float x) {
  constexpr float kTwoRootTwoOverPi = 1.5957691216057308f;
  return x / (1.0f + expf(-kTwoRootTwoOverPi * (x + 0.044715f * x * x * x)));
}

SALIENT_DEVICE float activated(Activation activation, float x) {
  constexpr float kInverseRootTwo = 0.70710678118654752f;
  switch (activation) {
    case Activation::silu:
      return x / (1.0f + expf(-x));
    case Activation::gelu:
      return 0.5f * x * (1.0f + erff(x * kInverseRootTwo));
    case Activation::gelu_tanh:
      return gelu_by_tanh(x);
    case Activation::relu:
      return x < 0.0f ? 0.0f : x;
    case Activation::sigmoid:
      return 1.0f / (1.0f + expf(-x));
  }
  return x;
}

SALIENT_DEVICE void activate_values(const ActivateArguments& a) {
  const int64_t first = first_value();
  const bool aligned = on_16_bytes(a.gate) && on_16_bytes(a.up) && on_16_bytes(a.y);
  Floats4 up{{1.0f, 1.0f, 1.0f, 1.0f}};
  if (a.up != nullptr) up = load_floats(a.up, first, a.count, aligned);
  Floats4 y = load_floats(a.gate, first, a.count, aligned);
  SALIENT_UNROLL
  for (int e = 0; e < 4; ++e) y.value[e] = activated(a.activation, y.value[e]) * up.value[e];
  store_floats(y, a.y, first, a.count, aligned);
}

SALIENT_DEVICE void find_infinite_or_nan(const NotFiniteArguments& a) {
  const int64_t first = first_value();
  const Floats4 x = load_floats(a.x, first, a.count, on_16_bytes(a.x));
  uint32_t largest = 0;
  SALIENT_UNROLL
  for (int e = 0; e < 4; ++e) {
    const uint32_t magnitude = simt::bits_of_float(x.value[e]) & 0x7fffffffu;
    largest = magnitude > largest ? magnitude : largest;
  }
  const float found = simt::warp_max(largest >= 0x7f800000u ? 1.0f : 0.0f);
  if (simt::lane() == 0 && found > 0) simt::increment(a.flag);
}

SALIENT_DEVICE void write_run(const WriteArguments& a) {
  const auto words = static_cast<int>(a.count / 4);
  for (int i = simt::thread(); i < words; i += simt::block_threads()) {
    static_cast<uint32_t*>(a.to)[i] = a.words[i];
  }
  const int rest = static_cast<int>(a.count % 4);
  if (simt::thread() < rest) {
    static_cast<uint8_t*>(a.to)[words * 4 + simt::thread()] =
        static_cast<uint8_t>(a.words[words] >> (8 * simt::thread()));
  }
}

SALIENT_DEVICE void write_apart(const WriteWordsArguments& a) {
  const int i = simt::thread();
  if (i < a.count) *a.words[i].to = a.words[i].value;
}

#define SALIENT_ELEMENTWISE_KERNELS(X)                                 \
  X(add_values, AddArguments, 256, 1, add_to)                          \
  X(scale_values, ScaleArguments, 256, 1, scale_or_cap)                \
  X(activate, ActivateArguments, 256, 1, activate_values)              \
  X(find_not_finite, NotFiniteArguments, 256, 1, find_infinite_or_nan) \
  X(write_arguments, WriteArguments, 256, 1, write_run)                \
  X(write_words, WriteWordsArguments, 256, 1, write_apart)

}  // namespace salient::cuda
