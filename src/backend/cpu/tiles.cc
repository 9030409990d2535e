#include "backend/cpu/tiles.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "backend/cpu/isa.h"
#include "tensor/dtype.h"

namespace salient {
namespace {

void pack_left(const PackProblem& problem) {
  const int64_t tiles = depth_tiles(problem.columns);
  for (int64_t row = 0; row < tile_panels(problem.rows) * kTileRows; ++row) {
    uint16_t* out = problem.out + row / kTileRows * problem.panel_stride + row % kTileRows * kTileDepth;
    for (int64_t k = 0; k < tiles * kTileDepth; ++k) {
      const bool inside = row < problem.rows && k < problem.columns;
      out[k / kTileDepth * kTileElements + k % kTileDepth] =
          inside ? to_bfloat16(problem.x[row * problem.stride + k]).bits : uint16_t{0};
    }
  }
}

void pack_right(const PackProblem& problem) {
  const int64_t depth = depth_tiles(problem.rows) * kTileDepth;
  for (int64_t column = 0; column < tile_panels(problem.columns) * kTileRows; ++column) {
    uint16_t* out = problem.out + column / kTileRows * problem.panel_stride + column % kTileRows * 2;
    for (int64_t k = 0; k < depth; ++k) {
      const bool inside = k < problem.rows && column < problem.columns;
      out[k / kTileDepth * kTileElements + k % kTileDepth / 2 * kTileDepth + k % 2] =
          inside ? to_bfloat16(problem.x[k * problem.stride + column]).bits : uint16_t{0};
    }
  }
}

void transpose(const uint16_t* in, int64_t count, uint16_t* out) {
  for (int64_t tile = 0; tile < count; ++tile, in += kTileElements, out += kTileElements) {
    uint16_t copy[kTileElements];
    std::copy_n(in, kTileElements, copy);
    for (int64_t i = 0; i < kTileElements; ++i) {
      const int64_t row = i / kTileDepth;
      const int64_t pair = i % kTileDepth / 2;
      out[pair * kTileDepth + row * 2 + i % 2] = copy[i];
    }
  }
}

float dot(const TileProduct& problem, int64_t row, int64_t column) {
  const uint16_t* left = problem.left + row / kTileRows * problem.left_stride + row % kTileRows * kTileDepth;
  const uint16_t* right = problem.right + column / kTileRows * problem.right_stride + column % kTileRows * 2;
  float sum = 0;
  for (int64_t k = 0; k < problem.tiles * kTileDepth; ++k) {
    const int64_t tile = k / kTileDepth * kTileElements;
    sum += to_float(BFloat16{left[tile + k % kTileDepth]}) *
           to_float(BFloat16{right[tile + k % kTileDepth / 2 * kTileDepth + k % 2]});
  }
  return sum;
}

void multiply(const TileProduct& problem) {
  for (int64_t row = 0; row < problem.rows; ++row) {
    for (int64_t column = 0; column < problem.columns; ++column) {
      float& out = problem.out[row * problem.out_stride + column];
      out = dot(problem, row, column) + (problem.accumulate != 0 ? out : 0.0f);
    }
  }
}

SoftmaxTotal attention_weights(const AttentionRow& row) {
  const float largest = *std::max_element(row.scores, row.scores + row.count);
  double sum = 0;
  for (int64_t k = 0; k < row.out_tiles * kTileDepth; ++k) {
    const float weight = k < row.count ? std::exp(row.scores[k] - largest) : 0.0f;
    sum += double{weight};
    row.out[k / kTileDepth * kTileElements + k % kTileDepth] = to_bfloat16(weight).bits;
  }
  return {largest, sum};
}

#if defined(__x86_64__)
bool has_fast_tiles() {
  if (!cpu_supports(Isa::avx512)) return false;
  const auto extensions = matrix_extensions(Isa::avx512);
  const auto has = [&](const char* name) { return std::ranges::find(extensions, name) != extensions.end(); };
  return has("avx512_bf16") && has("amx_bf16") && system_allows_tiles();
}
#endif

}  // namespace

// Linux hands out the tile registers to processes that ask (Documentation/arch/x86/xstate.rst).
bool system_allows_tiles() {
#if defined(__linux__) && defined(__x86_64__)
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILE_DATA
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

const TileKernels kPortableTileKernels{
    .pack_left = pack_left,
    .pack_right = pack_right,
    .transpose = transpose,
    .multiply = multiply,
    .attention_weights = attention_weights,
};

const TileKernels* fast_tile_kernels() {
#if defined(__x86_64__)
  static const bool fast = has_fast_tiles();
  return fast ? &kAmxTileKernels : nullptr;
#else
  return nullptr;
#endif
}

}  // namespace salient
