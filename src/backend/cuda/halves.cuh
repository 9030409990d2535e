#pragma once

#include "backend/cuda/halves.h"
#include "backend/cuda/simt.h"

namespace salient::cuda {

/// One pair a thread.
template <typename T>
SALIENT_DEVICE void to_halves(const HalvesArguments& a) {
  const int pairs = a.padded_columns / 2;
  const int64_t index = int64_t{simt::block_x()} * simt::block_threads() + simt::thread();
  if (index >= int64_t{a.padded_rows} * pairs) return;
  const auto row = static_cast<int>(index / pairs);
  const int column = static_cast<int>(index % pairs) * 2;
  const float* from = a.x + int64_t{row} * a.columns + column;
  const float low = row < a.rows && column < a.columns ? from[0] : 0.0f;
  const float high = row < a.rows && column + 1 < a.columns ? from[1] : 0.0f;
  a.to[index] = simt::pack_clamped<T>(low, high);
}

#define SALIENT_HALVES_KERNELS(X)                              \
  X(halves_f16, HalvesArguments, 256, 1, to_halves<simt::F16>) \
  X(halves_bf16, HalvesArguments, 256, 1, to_halves<simt::BF16>)

}  // namespace salient::cuda
