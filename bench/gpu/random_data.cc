#include "gpu/random_data.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "backend/cuda/linear_layout.h"
#include "base/parallel.h"
#include "base/random.h"

namespace salient::gpu {
namespace {

constexpr size_t kGrain = size_t{1} << 16;

/// Runs body(i) for every i below `count`, by all threads.
template <typename Body>
void for_each_index(size_t count, const Body& body) {
  parallel_for(count, kGrain, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) body(i);
  });
}

float even(uint64_t bits) { return static_cast<float>(bits >> 40) * 0x1p-23f - 1.0f; }

uint32_t random_word(uint64_t seed, size_t index) {
  return static_cast<uint32_t>(random_bits(seed, index) >> 32);
}

uint16_t random_half(uint64_t seed, size_t index) { return to_half(even(random_bits(seed, index))).bits; }

}  // namespace

Tensor random_floats(Shape shape, uint64_t seed, float deviation) {
  Tensor result = Tensor::empty(DType::f32, std::move(shape));
  const auto values = result.mutable_values<float>();
  const float factor = deviation * std::sqrt(3.0f);
  for_each_index(values.size(), [&](size_t i) { values[i] = factor * even(random_bits(seed, i)); });
  return result;
}

Tensor random_halves(Shape shape, DType dtype, uint64_t seed, float deviation) {
  Tensor result = Tensor::empty(dtype, std::move(shape));
  const float factor = deviation * std::sqrt(3.0f);
  std::vector<uint16_t> table(size_t{1} << 16);  // of all that 16 bits may mean
  for (size_t bits = 0; bits < table.size(); ++bits) {
    const float value = factor * even(uint64_t{bits} << 48);
    table[bits] = dtype == DType::f16 ? to_half(value).bits : to_bfloat16(value).bits;
  }
  auto* halves = reinterpret_cast<uint16_t*>(result.mutable_bytes());
  const auto count = static_cast<size_t>(result.element_count());
  for_each_index((count + 3) / 4, [&](size_t i) {
    uint64_t bits = random_bits(seed, i);
    for (size_t at = 4 * i; at < std::min(count, 4 * i + 4); ++at, bits >>= 16)
      halves[at] = table[bits & 0xffff];
  });
  return result;
}

namespace {

void fill_codes(QuantizedWeight& weight, uint64_t seed) {
  const auto codes = weight.codes.mutable_values<uint8_t>();
  const auto columns = static_cast<size_t>(weight.in_features);
  if (weight.scheme.num_bits == 4 && columns % 16 == 0) {  // all bits are codes
    for_each_index(codes.size() / 8, [&](size_t i) {
      const uint64_t bits = random_bits(seed, i);
      std::memcpy(&codes[8 * i], &bits, sizeof bits);
    });
    return;
  }
  const auto mask = static_cast<uint8_t>(max_code(weight.scheme));
  const auto row_bytes = static_cast<size_t>(weight.row_bytes());
  const bool nibbles = weight.code_bits() == 4;
  for_each_index(codes.size(), [&](size_t i) {
    const auto bits = static_cast<uint8_t>(random_bits(seed, i) >> 56);
    const size_t at = i % row_bytes * (nibbles ? 2 : 1);
    const auto low = static_cast<uint8_t>(at < columns ? bits & mask : 0);
    const auto high = static_cast<uint8_t>(nibbles && at + 1 < columns ? bits >> 4 & mask : 0);
    codes[i] = static_cast<uint8_t>(low | (nibbles ? high << 4 : 0));
  });
}

void fill_zeros(QuantizedWeight& weight, uint64_t seed) {
  const auto zeros = weight.zeros.mutable_values<uint8_t>();
  const auto middle = static_cast<uint64_t>(max_code(weight.scheme) + 1) / 4;
  for_each_index(zeros.size(), [&](size_t i) {
    zeros[i] = static_cast<uint8_t>(middle + random_bits(seed, i) % (2 * middle));
  });
}

void fill_scales(QuantizedWeight& weight, uint64_t seed, float deviation) {
  // Even codes of n values deviate by n / sqrt(12).
  const double unit = deviation * std::sqrt(12.0) / (max_code(weight.scheme) + 1);
  auto* scales = reinterpret_cast<uint16_t*>(weight.scales.mutable_bytes());
  for_each_index(static_cast<size_t>(weight.scales.element_count()), [&](size_t i) {
    const double factor = std::exp2(2 * random_uniform(seed, i) - 1);
    scales[i] = to_half(static_cast<float>(unit * factor)).bits;
  });
}

}  // namespace

QuantizedWeight random_weight(const QuantizationScheme& scheme, int64_t out, int64_t in, uint64_t seed,
                              float deviation) {
  QuantizedWeight weight = allocate_quantized_weight(scheme, out, in, DType::f16);
  fill_codes(weight, seed);
  if (weight.zeros.defined()) fill_zeros(weight, seed + 1);
  fill_scales(weight, seed + 2, deviation);
  return weight;
}

cuda::PackedProduct random_packed(int64_t out, int64_t in, int bits, uint64_t seed) {
  cuda::PackedProduct packed{.out = static_cast<int>(out),
                             .in = static_cast<int>(in),
                             .row_blocks = cuda::divided_up(static_cast<int>(out), cuda::kTileRows),
                             .tiles = cuda::tiles_of_row(static_cast<int>(in), bits == 4)};
  const auto tiles = static_cast<size_t>(packed.row_blocks) * static_cast<size_t>(packed.tiles);
  packed.weight.resize(tiles * simt::kWarp * (bits == 4 ? 1 : cuda::kTileSteps));
  for_each_index(packed.weight.size(), [&](size_t i) {
    for (size_t w = 0; w < 4; ++w) {
      const size_t at = 4 * i + w;
      const uint32_t word = random_word(seed, at);
      // Halves from 1/4 to 1/2 of either sign.
      packed.weight[i].word[w] = bits == 4 ? word : (word & 0x83ff83ffu) | 0x34003400u;
    }
  });
  if (bits != 4) return packed;
  packed.columns_per_group = 128;
  packed.groups = cuda::divided_up(packed.tiles * cuda::kTileColumns, packed.columns_per_group);
  packed.factors.resize(static_cast<size_t>(packed.row_blocks) * static_cast<size_t>(packed.groups) *
                        cuda::kTileRows);
  for_each_index(packed.factors.size(), [&](size_t i) {
    const float scale = 0.005f + 0.01f * static_cast<float>(random_uniform(seed + 1, i));
    packed.factors[i] = (std::bit_cast<uint32_t>(to_float(to_half(scale))) & cuda::kScaleBits) | (4 + i % 8);
  });
  return packed;
}

cuda::DeviceBuffer random_device_halves(cuda::Device& device, size_t count, uint64_t seed) {
  // A prime number of them, so that what repeats never stands at the same place of a row.
  constexpr size_t kPattern = 1999993;
  std::vector<uint16_t> pattern(std::min(count, kPattern));
  for_each_index(pattern.size(), [&](size_t i) { pattern[i] = random_half(seed, i); });
  cuda::DeviceBuffer memory(device, count * sizeof(uint16_t));
  for (size_t begin = 0; begin < count; begin += pattern.size()) {
    const size_t piece = std::min(pattern.size(), count - begin);
    device.copy_in(memory.as<uint16_t>() + begin, pattern.data(), piece * sizeof(uint16_t));
  }
  return memory;
}

}  // namespace salient::gpu
