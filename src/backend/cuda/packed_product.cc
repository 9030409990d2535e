#include "backend/cuda/packed_product.h"

#include <algorithm>
#include <bit>

#include "backend/cuda/linear_layout.h"
#include "base/error.h"
#include "base/parallel.h"

namespace salient::cuda {
namespace {

constexpr int64_t kMostFeatures = int64_t{1} << 30;

PackedProduct sized(int64_t out, int64_t in, bool codes) {
  if (out < 1 || in < 1 || out > kMostFeatures || in > kMostFeatures)
    fail(ErrorKind::unsupported, "cuda: a weight [{}, {}]", out, in);
  PackedProduct packed{.out = static_cast<int>(out),
                       .in = static_cast<int>(in),
                       .row_blocks = divided_up(static_cast<int>(out), kTileRows),
                       .tiles = tiles_of_row(static_cast<int>(in), codes)};
  packed.weight.resize(static_cast<size_t>(packed.row_blocks) * static_cast<size_t>(packed.tiles) *
                       static_cast<size_t>(codes ? 1 : kTileSteps) * simt::kWarp);
  return packed;
}

template <typename Body>
void for_each_row_block(const PackedProduct& packed, const Body& body) {
  parallel_for(static_cast<size_t>(packed.row_blocks), 1, [&](size_t begin, size_t end) {
    for (size_t block = begin; block < end; ++block) body(static_cast<int>(block));
  });
}

/// Two codes of a row, those of `column` and the next; 0 where there is none.
uint32_t code_pair(const QuantizedWeight& weight, int64_t row, int64_t column) {
  const int64_t at = column / 2;
  if (row >= weight.out_features || column >= weight.in_features) return 0;
  return static_cast<uint32_t>(weight.codes.bytes()[row * weight.row_bytes() + at]);
}

/// Nibbles of code_place.
uint32_t code_word(const QuantizedWeight& weight, int64_t row, int64_t column) {
  uint32_t word = 0;
  for (int r = 0; r < 4; ++r) {
    const uint32_t pair = code_pair(weight, row + r % 2 * 8, column + r / 2 * 8);
    word |= (pair & 0xfu) << (4 * r) | (pair >> 4) << (16 + 4 * r);
  }
  return word;
}

uint32_t factor_of(const QuantizedWeight& weight, int64_t row, int64_t group) {
  if (row >= weight.out_features || group >= weight.groups()) return 0;
  // To the nearest of 24 bits: exact for f16 and bf16.
  const auto bits = std::bit_cast<uint32_t>(weight.scale(row, group)) + 0x80u;
  return (bits & kScaleBits) | static_cast<uint32_t>(weight.zero(row, group));
}

}  // namespace

int tiles_of_row(int columns, bool codes) {
  const int at_once = codes ? kChunkTilesOfCodes : 1;
  return divided_up(columns, at_once * kTileColumns) * at_once;
}

bool packs_codes(const QuantizationScheme& scheme) {
  if (scheme.num_bits > 4) return false;
  return has_one_group_per_row(scheme) || scheme.group_size == 32 || scheme.group_size % kTileColumns == 0;
}

PackedProduct pack_codes(const QuantizedWeight& weight) {
  if (!packs_codes(weight.scheme)) fail(ErrorKind::internal, "cuda: codes that kernels do not read");
  PackedProduct packed = sized(weight.out_features, weight.in_features, true);
  packed.columns_per_group = has_one_group_per_row(weight.scheme)
                                 ? packed.tiles * kTileColumns
                                 : static_cast<int>(weight.scheme.group_size);
  packed.groups = divided_up(packed.tiles * kTileColumns, packed.columns_per_group);
  packed.factors.resize(static_cast<size_t>(packed.row_blocks) * static_cast<size_t>(packed.groups) *
                        kTileRows);
  for_each_row_block(packed, [&](int block) {
    auto to = packed.weight.begin() + int64_t{block} * packed.tiles * simt::kWarp;
    for (int tile = 0; tile < packed.tiles; ++tile) {
      for (int lane = 0; lane < simt::kWarp; ++lane, ++to) {
        for (int step = 0; step < kTileSteps; ++step) {
          to->word[step] = code_word(weight, block * kTileRows + lane / 4,
                                     tile * kTileColumns + step * kStepColumns + lane % 4 * 2);
        }
      }
    }
    for (int group = 0; group < packed.groups; ++group) {
      for (int row = 0; row < kTileRows; ++row) {
        const size_t at =
            (static_cast<size_t>(block) * static_cast<size_t>(packed.groups) + static_cast<size_t>(group)) *
            kTileRows;
        packed.factors[at + static_cast<size_t>(factor_place(row))] =
            factor_of(weight, block * kTileRows + row, group);
      }
    }
  });
  return packed;
}

PackedProduct pack_halves(const Tensor& weight, HalfType type) {
  PackedProduct packed = sized(weight.dim(0), weight.dim(1), false);
  const Tensor values = weight.dtype() == DType::f32 ? weight : weight.to(DType::f32);
  const float* from = values.values<float>().data();
  const auto half = [&](int row, int column) -> uint32_t {
    if (row >= packed.out || column >= packed.in) return 0;
    const float value = from[int64_t{row} * packed.in + column];
    if (type == HalfType::bf16) return to_bfloat16(value).bits;
    return to_half(std::clamp(value, -simt::F16::kLargest, simt::F16::kLargest)).bits;
  };
  for_each_row_block(packed, [&](int block) {
    auto to = packed.weight.begin() + int64_t{block} * packed.tiles * kTileSteps * simt::kWarp;
    for (int step = 0; step < packed.tiles * kTileSteps; ++step) {
      for (int lane = 0; lane < simt::kWarp; ++lane, ++to) {
        for (int r = 0; r < 4; ++r) {
          const int row = block * kTileRows + lane / 4 + r % 2 * 8;
          const int column = step * kStepColumns + r / 2 * 8 + lane % 4 * 2;
          to->word[r] = half(row, column) | half(row, column + 1) << 16;
        }
      }
    }
  });
  return packed;
}

}  // namespace salient::cuda
