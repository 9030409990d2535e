#pragma once

#include "backend/cuda/few_rows.cuh"
#include "backend/cuda/many_rows.cuh"

namespace salient::cuda {

/// One lane a fragment: x is read once, and what it becomes is read by every block.
template <typename T>
SALIENT_DEVICE void to_fragments(const FragmentsArguments& a) {
  const int index = simt::block_x() * simt::block_threads() + simt::thread();
  const int pairs = kTileColumns / 2;
  if (index >= a.tiles * a.rows * pairs) return;
  const int tile = index / (a.rows * pairs);
  const int row = index / pairs % a.rows;
  const int column = tile * kTileColumns + index % pairs * 2;
  const float* from = a.x + int64_t{row} * a.columns + column;
  const float low = column < a.columns ? from[0] : 0.0f;
  const float high = column + 1 < a.columns ? from[1] : 0.0f;
  a.to[(tile * a.rows + row) * pairs + input_place(column % kTileColumns) / 2] =
      simt::pack_clamped<T>(low, high);
}

SALIENT_DEVICE void add_bias(const AddBiasArguments& a) {
  const int64_t index = int64_t{simt::block_x()} * simt::block_threads() + simt::thread();
  if (index < int64_t{a.rows} * a.out) a.y[index] += a.bias[index % a.out];
}

/// A warp a tile: halves out of the order of fragments.
template <typename T>
SALIENT_DEVICE void unpack_halves(const DequantizeArguments& a) {
  const int tile = simt::block_x();
  const int row_block = simt::block_y() * kLinearWarps + simt::warp();
  if (row_block * kTileRows >= a.out) return;
  const Words4* from = a.weight + (int64_t{row_block} * a.tiles + tile) * (kTileSteps * simt::kWarp);
  SALIENT_UNROLL
  for (int step = 0; step < kTileSteps; ++step) {
    const Words4 words = simt::load_stream(from + step * simt::kWarp + simt::lane());
    SALIENT_UNROLL
    for (int r = 0; r < 4; ++r) {
      const int row = row_block * kTileRows + simt::lane() / 4 + r % 2 * 8;
      const int column = tile * kTileColumns + step * kStepColumns + r / 2 * 8 + simt::lane() % 4 * 2;
      if (row < a.out && column < a.columns) a.to[(int64_t{row} * a.columns + column) / 2] = words.word[r];
    }
  }
}

/// A warp a tile: (code - zero) * scale, rounded to halves, as libraries want it.
template <typename T>
SALIENT_DEVICE void dequantize(const DequantizeArguments& a) {
  const int tile = simt::block_x();
  const int row_block = simt::block_y() * kLinearWarps + simt::warp();
  const int g = simt::lane() / 4;
  const int t = simt::lane() % 4;
  if (row_block * kTileRows >= a.out) return;
  const Words4 codes =
      simt::load_stream(a.weight + (int64_t{row_block} * a.tiles + tile) * simt::kWarp + simt::lane());
  SALIENT_UNROLL
  for (int step = 0; step < kTileSteps; ++step) {
    SALIENT_UNROLL
    for (int r = 0; r < 4; ++r) {
      const int row = row_block * kTileRows + g + r % 2 * 8;
      const int column = tile * kTileColumns + step * kStepColumns + r / 2 * 8 + 2 * t;
      if (row >= a.out || column >= a.columns) continue;
      const int group = column >> a.column_shift;
      const uint32_t factor = a.factors[(int64_t{row_block} * a.groups + group) * kTileRows + g * 2 + r % 2];
      const float scale = simt::float_of_bits(factor & kScaleBits);
      const auto weight = [&](int half) {
        const uint32_t code = codes.word[step] >> (4 * (r + 4 * half)) & 0xfu;
        return scale * (static_cast<float>(code) - static_cast<float>(factor & kZeroBits));
      };
      a.to[(int64_t{row} * a.columns + column) / 2] = simt::pack_clamped<T>(weight(0), weight(1));
    }
  }
}

#define SALIENT_LINEAR_MANY(X, name, ...)                                    \
  X(name##_16, LinearArguments, kLinearThreads, 2, Many16<__VA_ARGS__>::run) \
  X(name##_32, LinearArguments, kLinearThreads, 1, Many32<__VA_ARGS__>::run) \
  X(name##_64, LinearArguments, kLinearThreads, 1, Many64<__VA_ARGS__>::run)
#define SALIENT_LINEAR_KERNELS_OF(X, half, T)                                            \
  X(fragments_##half, FragmentsArguments, 256, 1, to_fragments<T>)                       \
  X(w4_dequantize_##half, DequantizeArguments, kLinearThreads, 1, dequantize<T>)         \
  X(w16_rows_##half, DequantizeArguments, kLinearThreads, 1, unpack_halves<T>)           \
  X(w4_gemv_##half, LinearArguments, kLinearThreads, 3, FewRows<FourBit<T, 1>>::run)     \
  X(w4_gemv_g32_##half, LinearArguments, kLinearThreads, 2, FewRows<FourBit<T, 2>>::run) \
  X(w16_gemv_##half, LinearArguments, kLinearThreads, 3, FewRows<SixteenBit<T>>::run)    \
  SALIENT_LINEAR_MANY(X, w4_gemm_##half, FourBit<T, 1>)                                  \
  SALIENT_LINEAR_MANY(X, w4_gemm_g32_##half, FourBit<T, 2>)                              \
  SALIENT_LINEAR_MANY(X, w16_gemm_##half, SixteenBit<T>)
#define SALIENT_LINEAR_F16_KERNELS(X) \
  SALIENT_LINEAR_KERNELS_OF(X, f16, F16) X(product_bias, AddBiasArguments, 256, 1, add_bias)
#define SALIENT_LINEAR_BF16_KERNELS(X) SALIENT_LINEAR_KERNELS_OF(X, bf16, BF16)

}  // namespace salient::cuda
