#include <algorithm>
#include <array>
#include <cstring>

#include "base/error.h"
#include "base/parallel.h"
#include "quant/packing_formats.h"

// AutoAWQ "gemm", N = out, K = in, G = groups:
//   qweight  i32 [K, N/8]  nibble i of word j of row k is the code of output 8j + kOrder[i], column k
//   qzeros   i32 [G, N/8]  zeros in the same order
//   scales   f16 [G, N]
// The kernels subtract zeros always, so a symmetric weight is written with zeros of 8 under "zero_point":
// true, which every loader accepts; "zero_point": false is refused by most of them.
// The format knows neither codes of 8 bits nor one scale for a matrix.
namespace salient {
namespace {

constexpr int64_t kOutputsPerWord = 8;
constexpr std::array<size_t, 8> kOrder{0, 2, 4, 6, 1, 3, 5, 7};

using NibbleBlock = std::array<uint32_t, 8>;

/// Exchanges the bits of `mask << shift` in `low` with those of `mask` in `high`.
inline void exchange(uint32_t& low, uint32_t& high, uint32_t mask, int shift) {
  const uint32_t difference = ((low >> shift) ^ high) & mask;
  high ^= difference;
  low ^= difference << shift;
}

/// Transposes 8x8 nibbles: nibble j of word i becomes nibble i of word j. Three rounds, each halving the
/// blocks that change places.
inline void transpose(NibbleBlock& words) {
  for (size_t i = 0; i < 4; ++i) exchange(words[i], words[i + 4], 0x0000ffffu, 16);
  for (const size_t i : {0, 1, 4, 5}) exchange(words[i], words[i + 2], 0x00ff00ffu, 8);
  for (const size_t i : {0, 2, 4, 6}) exchange(words[i], words[i + 1], 0x0f0f0f0fu, 4);
}

/// The two matrices of words: codes [N, K/8] of our rows and qweight [K, N/8].
struct Words {
  int64_t out_features;
  int64_t in_features;

  int64_t row_words() const { return (in_features + 7) / 8; }
  int64_t blocks() const { return out_features / kOutputsPerWord; }
};

/// Visits every 8x8 block of nibbles in tiles of 16x16 blocks, so that both matrices are touched by whole
/// cache lines, in parallel over columns.
template <typename Body>
void for_each_block(const Words& words, Body body) {
  constexpr size_t kTile = 16;
  parallel_for(static_cast<size_t>(words.row_words()), kTile, [&](size_t begin, size_t end) {
    for (int64_t first = 0; first < words.blocks(); first += kTile) {
      const int64_t last = std::min<int64_t>(words.blocks(), first + kTile);
      for (auto column = static_cast<int64_t>(begin); column < static_cast<int64_t>(end); ++column) {
        for (int64_t block = first; block < last; ++block) body(block, column);
      }
    }
  });
}

/// Eight codes. Codes are bytes, so a view into a file need not begin at a multiple of four.
uint32_t code_word(const Tensor& codes, int64_t index) {
  uint32_t word;
  std::memcpy(&word, codes.bytes() + static_cast<size_t>(index) * sizeof(word), sizeof(word));
  return word;
}

void pack_codes(const QuantizedWeight& weight, Tensor& qweight) {
  const Words words{weight.out_features, weight.in_features};
  auto* packed = reinterpret_cast<uint32_t*>(qweight.mutable_bytes());
  for_each_block(words, [&](int64_t block, int64_t column) {
    NibbleBlock nibbles;
    const int64_t source = block * kOutputsPerWord * words.row_words() + column;
    for (size_t i = 0; i < 8; ++i)
      nibbles[i] = code_word(weight.codes, source + static_cast<int64_t>(kOrder[i]) * words.row_words());
    transpose(nibbles);
    const int64_t count = std::min<int64_t>(8, words.in_features - 8 * column);
    for (int64_t i = 0; i < count; ++i)
      packed[(8 * column + i) * words.blocks() + block] = nibbles[static_cast<size_t>(i)];
  });
}

void unpack_codes(const Tensor& qweight, QuantizedWeight& weight) {
  const Words words{weight.out_features, weight.in_features};
  const auto* packed = reinterpret_cast<const uint32_t*>(qweight.bytes());
  auto* codes = reinterpret_cast<uint32_t*>(weight.codes.mutable_bytes());
  for_each_block(words, [&](int64_t block, int64_t column) {
    NibbleBlock nibbles{};
    const int64_t count = std::min<int64_t>(8, words.in_features - 8 * column);
    for (int64_t i = 0; i < count; ++i)
      nibbles[static_cast<size_t>(i)] = packed[(8 * column + i) * words.blocks() + block];
    transpose(nibbles);
    uint32_t* target = codes + block * kOutputsPerWord * words.row_words() + column;
    for (size_t i = 0; i < 8; ++i) target[static_cast<int64_t>(kOrder[i]) * words.row_words()] = nibbles[i];
  });
}

Tensor pack_zeros(const QuantizedWeight& weight) {
  const int64_t groups = weight.groups();
  const int64_t blocks = weight.out_features / kOutputsPerWord;
  Tensor qzeros = Tensor::zeros(DType::i32, {groups, blocks});
  auto* packed = reinterpret_cast<uint32_t*>(qzeros.mutable_bytes());
  for (int64_t group = 0; group < groups; ++group) {
    for (int64_t block = 0; block < blocks; ++block) {
      for (size_t i = 0; i < 8; ++i) {
        const int zero = weight.zero(block * kOutputsPerWord + static_cast<int64_t>(kOrder[i]), group);
        packed[group * blocks + block] |= static_cast<uint32_t>(zero) << (4 * i);
      }
    }
  }
  return qzeros;
}

/// Calls `body(row, group, zero)` for every zero.
template <typename Body>
void for_each_zero(const Tensor& qzeros, Body body) {
  const int64_t blocks = qzeros.dim(1);
  const auto packed = qzeros.values<int32_t>();
  for (int64_t group = 0; group < qzeros.dim(0); ++group) {
    for (int64_t block = 0; block < blocks; ++block) {
      const auto word = static_cast<uint32_t>(packed[static_cast<size_t>(group * blocks + block)]);
      for (size_t i = 0; i < 8; ++i) {
        body(block * kOutputsPerWord + static_cast<int64_t>(kOrder[i]), group,
             static_cast<int>(word >> (4 * i) & 15));
      }
    }
  }
}

void unpack_zeros(const Tensor& qzeros, QuantizedWeight& weight) {
  if (!weight.scheme.symmetric) {
    const auto zeros = weight.zeros.mutable_values<uint8_t>();
    for_each_zero(qzeros, [&](int64_t row, int64_t group, int zero) {
      zeros[static_cast<size_t>(row * weight.groups() + group)] = static_cast<uint8_t>(zero);
    });
    return;
  }
  for_each_zero(qzeros, [&](int64_t row, int64_t group, int zero) {
    if (zero == symmetric_zero(weight.scheme)) return;
    fail(ErrorKind::bad_format, "qzeros holds {} for output {}, group {}, where the symmetric scheme has {}",
         zero, row, group, symmetric_zero(weight.scheme));
  });
}

Tensor pack_scales(const QuantizedWeight& weight) {
  const int64_t groups = weight.groups();
  Tensor scales = Tensor::empty(DType::f16, {groups, weight.out_features});
  const auto values = scales.mutable_values<Half>();
  const Tensor floats = weight.scales.to(DType::f32);
  for (int64_t row = 0; row < weight.out_features; ++row) {
    for (int64_t group = 0; group < groups; ++group) {
      const float scale = floats.values<float>()[static_cast<size_t>(row * groups + group)];
      const Half half = to_half(scale);
      if (to_float(half) != scale) {
        fail(ErrorKind::unsupported,
             "autoawq-gemm: the scale {} of output {}, group {} has no exact F16 value", scale, row, group);
      }
      values[static_cast<size_t>(group * weight.out_features + row)] = half;
    }
  }
  return scales;
}

/// [G, N] of any element of two or four bytes to [N, G].
template <typename T>
void transpose_scales(const Tensor& scales, Tensor& result) {
  const int64_t groups = scales.dim(0);
  const int64_t rows = scales.dim(1);
  const auto from = scales.values<T>();
  const auto to = result.mutable_values<T>();
  for (int64_t group = 0; group < groups; ++group) {
    for (int64_t row = 0; row < rows; ++row) {
      to[static_cast<size_t>(row * groups + group)] = from[static_cast<size_t>(group * rows + row)];
    }
  }
}

void unpack_scales(const Tensor& scales, QuantizedWeight& weight) {
  switch (scales.dtype()) {
    case DType::f16:
      return transpose_scales<Half>(scales, weight.scales);
    case DType::bf16:
      return transpose_scales<BFloat16>(scales, weight.scales);
    default:
      return transpose_scales<float>(scales, weight.scales);
  }
}

void require_expressible(const QuantizationScheme& scheme) {
  if (scheme.num_bits != 4) {
    fail(ErrorKind::unsupported, "autoawq-gemm holds 4-bit codes only; the scheme is {}", describe(scheme));
  }
  if (scheme.group_size == QuantizationScheme::kWholeMatrix) {
    fail(ErrorKind::unsupported, "autoawq-gemm holds scales of groups and rows only; the scheme is {}",
         describe(scheme));
  }
}

std::vector<PackedTensorLayout> layout(const QuantizationScheme& scheme, int64_t out, int64_t in) {
  require_expressible(scheme);
  const int64_t groups = group_count(scheme, in);
  const int64_t blocks = out / kOutputsPerWord;
  return {{"qweight", DType::i32, {in, blocks}},
          {"scales", DType::f16, {groups, out}},
          // Files with "zero_point": false leave the zeros out.
          {"qzeros", DType::i32, {groups, blocks}, scheme.symmetric}};
}

PackedTensors pack(const QuantizedWeight& weight) {
  require_expressible(weight.scheme);
  const int64_t rows = weight.out_features;
  const int64_t columns = weight.in_features;
  if (rows % kOutputsPerWord != 0) {
    fail(ErrorKind::unsupported, "autoawq-gemm: {} outputs are no multiple of {}", rows, kOutputsPerWord);
  }
  if (columns % group_width(weight.scheme, columns) != 0) {
    fail(ErrorKind::unsupported, "autoawq-gemm: {} columns are no multiple of the group size {}", columns,
         weight.scheme.group_size);
  }
  PackedTensors result;
  Tensor qweight = Tensor::empty(DType::i32, {columns, rows / kOutputsPerWord});
  pack_codes(weight, qweight);
  result["qweight"] = qweight;
  result["qzeros"] = pack_zeros(weight);
  result["scales"] = pack_scales(weight);
  return result;
}

QuantizedWeight unpack(const PackedTensors& tensors, const QuantizationScheme& scheme) {
  require_expressible(scheme);
  const Tensor& qweight = require_tensor(tensors, "qweight", 2, {DType::i32});
  const Tensor& scales = require_tensor(tensors, "scales", 2, {DType::f16, DType::bf16, DType::f32});
  const int64_t columns = qweight.dim(0);
  const int64_t rows = qweight.dim(1) * kOutputsPerWord;
  if (columns == 0 || rows == 0 || columns % group_width(scheme, columns) != 0) {
    fail(ErrorKind::bad_format, "qweight has shape {}, whose {} columns are no multiple of the group size {}",
         to_string(qweight.shape()), columns, scheme.group_size);
  }
  const int64_t groups = group_count(scheme, columns);
  require_shape(scales, "scales", {groups, rows}, "qweight and group_size");
  auto weight = allocate_quantized_weight(scheme, rows, columns, scales.dtype());
  unpack_codes(qweight, weight);
  unpack_scales(scales, weight);
  if (scheme.symmetric && !tensors.contains("qzeros")) return weight;
  const Tensor& qzeros = require_tensor(tensors, "qzeros", 2, {DType::i32});
  require_shape(qzeros, "qzeros", {groups, qweight.dim(1)}, "qweight and group_size");
  unpack_zeros(qzeros, weight);
  return weight;
}

}  // namespace

Packing autoawq_gemm_packing() {
  return {.format = Format::autoawq_gemm,
          .suffixes = {"qweight", "qzeros", "scales"},
          .layout = layout,
          .pack = pack,
          .unpack = unpack};
}

}  // namespace salient
