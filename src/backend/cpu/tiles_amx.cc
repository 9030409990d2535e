#if defined(__GNUC__) && !defined(__clang__)
// See kernels_avx512.cc.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <cstdint>

#include "backend/cpu/tile_registers.h"
#include "backend/cpu/tiles.h"

// See kernels_avx2.cc for the reason of the target region.
#if defined(__clang__)
#pragma clang attribute push(                                                               \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")
#endif

namespace salient {
namespace {

constexpr int64_t kLanes = 16;

// ---- packing

__mmask16 first_lanes(int64_t count) {
  if (count <= 0) return 0;
  return count >= kLanes ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << count) - 1u);
}

__m512 load_first(const float* data, int64_t count) {
  return _mm512_maskz_loadu_ps(first_lanes(count), data);
}

/// 32 floats rounded to nearest even.
__m512i round_both(__m512 low, __m512 high) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

void store_line(uint16_t* out, __m512i line) { _mm512_storeu_si512(out, line); }

/// One row of a panel: a cache line in each tile.
void pack_row(const float* x, int64_t columns, uint16_t* out) {
  int64_t k = 0;
  for (; k + kTileDepth <= columns; k += kTileDepth, out += kTileElements) {
    store_line(out, round_both(_mm512_loadu_ps(x + k), _mm512_loadu_ps(x + k + kLanes)));
  }
  if (k == columns) return;
  const int64_t rest = columns - k;
  store_line(out, round_both(load_first(x + k, rest), load_first(x + k + kLanes, rest - kLanes)));
}

void clear_row(int64_t tiles, uint16_t* out) {
  for (int64_t tile = 0; tile < tiles; ++tile) store_line(out + tile * kTileElements, _mm512_setzero_si512());
}

void pack_left(const PackProblem& problem) {
  const int64_t padded = tile_panels(problem.rows) * kTileRows;
  for (int64_t row = 0; row < padded; ++row) {
    uint16_t* out = problem.out + row / kTileRows * problem.panel_stride + row % kTileRows * kTileDepth;
    if (row < problem.rows) {
      pack_row(problem.x + row * problem.stride, problem.columns, out);
    } else {
      clear_row(depth_tiles(problem.columns), out);
    }
  }
}

/// Two rows become pairs: 0 16 1 17 ...
__m512i interleave(__m512i both) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7,
                                         22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, both);
}

/// 16 columns of 32 rows, fewer at the edges.
void pack_right_tile(const PackProblem& problem, int64_t row, int64_t column, uint16_t* out) {
  const float* x = problem.x + row * problem.stride + column;
  const int64_t rows = problem.rows - row;
  const __mmask16 inside = first_lanes(problem.columns - column);
  for (int64_t k = 0; k < kTileDepth; k += 2, x += 2 * problem.stride, out += kTileDepth) {
    const __m512 even = k < rows ? _mm512_maskz_loadu_ps(inside, x) : _mm512_setzero_ps();
    const __m512 odd = k + 1 < rows ? _mm512_maskz_loadu_ps(inside, x + problem.stride) : _mm512_setzero_ps();
    store_line(out, interleave(round_both(even, odd)));
  }
}

void pack_right(const PackProblem& problem) {
  for (int64_t row = 0; row < problem.rows; row += kTileDepth) {
    uint16_t* out = problem.out + row / kTileDepth * kTileElements;
    for (int64_t column = 0; column < problem.columns; column += kTileRows) {
      pack_right_tile(problem, row, column, out);
      out += problem.panel_stride;
    }
  }
}

/// In four rounds, each of which swaps the blocks off the diagonal: of 1, 2, 4 and 8 pairs.
void transpose_tile(const uint16_t* in, uint16_t* out) {
  __m512i a[16];
  __m512i b[16];
  for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(in + i * kTileDepth);
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
    a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
    a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
    a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
  }
  // Now a[4 j + i], 128 bits at a time, has columns i, 4 + i, 8 + i and 12 + i of rows 4 j to 4 j + 3.
  for (int i = 0; i < 4; ++i) {
    const __m512i low = _mm512_shuffle_i32x4(a[i], a[i + 4], 0x88);
    const __m512i high = _mm512_shuffle_i32x4(a[i], a[i + 4], 0xdd);
    const __m512i low_below = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0x88);
    const __m512i high_below = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0xdd);
    store_line(out + i * kTileDepth, _mm512_shuffle_i32x4(low, low_below, 0x88));
    store_line(out + (i + 4) * kTileDepth, _mm512_shuffle_i32x4(high, high_below, 0x88));
    store_line(out + (i + 8) * kTileDepth, _mm512_shuffle_i32x4(low, low_below, 0xdd));
    store_line(out + (i + 12) * kTileDepth, _mm512_shuffle_i32x4(high, high_below, 0xdd));
  }
}

void transpose(const uint16_t* in, int64_t count, uint16_t* out) {
  for (int64_t i = 0; i < count; ++i) transpose_tile(in + i * kTileElements, out + i * kTileElements);
}

// ---- products

// Tile registers 0 to 3 hold sums of 2 x 2 tiles, 4 and 5 two tiles of the left, 6 and 7 two of the right:
// four loads for four products, which take twice as long (16 cycles each; a load from the first-level cache
// 8).

#define SALIENT_TILE_MULTIPLY(sum, left, right) \
  __asm__ volatile("tdpbf16ps %%tmm" #right ", %%tmm" #left ", %%tmm" #sum ::)

struct PanelProduct {
  const uint16_t* left;
  int64_t left_stride;
  const uint16_t* right;
  int64_t right_stride;
  int64_t tiles;
};

constexpr int64_t kLineBytes = 64;

/// Adds the products of kRows x kColumns panels (1 or 2 each) to the sums.
template <int kRows, int kColumns>
void add_products(const PanelProduct& problem) {
  const uint16_t* left = problem.left;
  const uint16_t* right = problem.right;
  for (int64_t tile = 0; tile < problem.tiles; ++tile, left += kTileElements, right += kTileElements) {
    SALIENT_TILE_LOAD(4, left, kLineBytes);
    SALIENT_TILE_LOAD(6, right, kLineBytes);
    SALIENT_TILE_MULTIPLY(0, 4, 6);
    if constexpr (kColumns == 2) {
      SALIENT_TILE_LOAD(7, right + problem.right_stride, kLineBytes);
      SALIENT_TILE_MULTIPLY(1, 4, 7);
    }
    if constexpr (kRows == 2) {
      SALIENT_TILE_LOAD(5, left + problem.left_stride, kLineBytes);
      SALIENT_TILE_MULTIPLY(2, 5, 6);
      if constexpr (kColumns == 2) SALIENT_TILE_MULTIPLY(3, 5, 7);
    }
  }
}

void zero_sums() {
  SALIENT_TILE_ZERO(0);
  SALIENT_TILE_ZERO(1);
  SALIENT_TILE_ZERO(2);
  SALIENT_TILE_ZERO(3);
}

/// `out` holds kRows x kColumns whole tiles of floats.
template <int kRows, int kColumns>
void load_sums(const float* out, int64_t stride) {
  const int64_t bytes = stride * static_cast<int64_t>(sizeof(float));
  SALIENT_TILE_LOAD(0, out, bytes);
  if constexpr (kColumns == 2) SALIENT_TILE_LOAD(1, out + kTileRows, bytes);
  if constexpr (kRows == 2) SALIENT_TILE_LOAD(2, out + kTileRows * stride, bytes);
  if constexpr (kRows == 2 && kColumns == 2)
    SALIENT_TILE_LOAD(3, out + kTileRows * stride + kTileRows, bytes);
}

template <int kRows, int kColumns>
void store_sums(float* out, int64_t stride) {
  const int64_t bytes = stride * static_cast<int64_t>(sizeof(float));
  SALIENT_TILE_STORE(0, out, bytes);
  if constexpr (kColumns == 2) SALIENT_TILE_STORE(1, out + kTileRows, bytes);
  if constexpr (kRows == 2) SALIENT_TILE_STORE(2, out + kTileRows * stride, bytes);
  if constexpr (kRows == 2 && kColumns == 2)
    SALIENT_TILE_STORE(3, out + kTileRows * stride + kTileRows, bytes);
}

constexpr int64_t kEdgeStride = 2 * kTileRows;

struct Rectangle {
  const float* from;
  int64_t from_stride;
  float* to;
  int64_t to_stride;
  int64_t rows;
  int64_t columns;
};

void copy(const Rectangle& part) {
  for (int64_t row = 0; row < part.rows; ++row) {
    for (int64_t column = 0; column < part.columns; ++column)
      part.to[row * part.to_stride + column] = part.from[row * part.from_stride + column];
  }
}

/// Rows [row, row + 16 kRows) and columns [column, column + 16 kColumns), as far as they are inside.
template <int kRows, int kColumns>
void multiply_block(const TileProduct& problem, int64_t row, int64_t column) {
  float* out = problem.out + row * problem.out_stride + column;
  const PanelProduct panels{.left = problem.left + row / kTileRows * problem.left_stride,
                            .left_stride = problem.left_stride,
                            .right = problem.right + column / kTileRows * problem.right_stride,
                            .right_stride = problem.right_stride,
                            .tiles = problem.tiles};
  const int64_t rows = problem.rows - row;
  const int64_t columns = problem.columns - column;
  if (rows >= kRows * kTileRows && columns >= kColumns * kTileRows) {
    if (problem.accumulate != 0) {
      load_sums<kRows, kColumns>(out, problem.out_stride);
    } else {
      zero_sums();
    }
    add_products<kRows, kColumns>(panels);
    return store_sums<kRows, kColumns>(out, problem.out_stride);
  }
  // Sums as of whole tiles, in the same order, of which the part inside the result comes and goes.
  const int64_t own_rows = rows < kRows * kTileRows ? rows : kRows * kTileRows;
  const int64_t own_columns = columns < kColumns * kTileRows ? columns : kColumns * kTileRows;
  alignas(64) float sums[4 * kTileRows * kTileRows] = {};
  if (problem.accumulate != 0) copy({out, problem.out_stride, sums, kEdgeStride, own_rows, own_columns});
  load_sums<kRows, kColumns>(sums, kEdgeStride);
  add_products<kRows, kColumns>(panels);
  store_sums<kRows, kColumns>(sums, kEdgeStride);
  copy({sums, kEdgeStride, out, problem.out_stride, own_rows, own_columns});
}

template <int kColumns>
void multiply_columns(const TileProduct& problem, int64_t column) {
  int64_t row = 0;
  for (; row + kTileRows < problem.rows; row += 2 * kTileRows)
    multiply_block<2, kColumns>(problem, row, column);
  if (row < problem.rows) multiply_block<1, kColumns>(problem, row, column);
}

/// Two panels of the right of so many tiles, 40 KiB, stay in the first-level cache while the left streams by.
constexpr int64_t kMostTilesAtOnce = 20;

/// In pieces of like size: each costs a reading and a writing of the sums, which a short one would not be
/// worth.
int64_t tiles_at_once(int64_t tiles) {
  const int64_t pieces = (tiles + kMostTilesAtOnce - 1) / kMostTilesAtOnce;
  return pieces == 0 ? 1 : (tiles + pieces - 1) / pieces;
}

void multiply(const TileProduct& problem) {
  const TileScope scope;
  const int64_t at_once = tiles_at_once(problem.tiles);
  for (int64_t tile = 0; tile < problem.tiles; tile += at_once) {
    TileProduct part = problem;
    part.left += tile * kTileElements;
    part.right += tile * kTileElements;
    part.tiles = problem.tiles - tile < at_once ? problem.tiles - tile : at_once;
    if (tile > 0) part.accumulate = 1;
    int64_t column = 0;
    for (; column + kTileRows < part.columns; column += 2 * kTileRows) multiply_columns<2>(part, column);
    if (column < part.columns) multiply_columns<1>(part, column);
  }
}

// ---- attention

/// As in kernels_vector.inc, for x <= 0.
__m512 exp_of(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-104.0f), x);
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-0.693145751953125f), x);
  r = _mm512_fmadd_ps(n, _mm512_set1_ps(-1.42860682030941723212e-6f), r);
  // To r^5: off by 3e-6 at most, where the result is rounded to one part in 256.
  __m512 series = _mm512_set1_ps(1.0f / 120);
  series = _mm512_fmadd_ps(series, r, _mm512_set1_ps(1.0f / 24));
  series = _mm512_fmadd_ps(series, r, _mm512_set1_ps(1.0f / 6));
  series = _mm512_fmadd_ps(series, r, _mm512_set1_ps(0.5f));
  series = _mm512_fmadd_ps(series, r, _mm512_set1_ps(1.0f));
  series = _mm512_fmadd_ps(series, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(series, n);
}

float largest_of(const float* x, int64_t count) {
  __m512 lanes = _mm512_set1_ps(x[0]);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) lanes = _mm512_max_ps(lanes, _mm512_loadu_ps(x + i));
  lanes = _mm512_mask_max_ps(lanes, first_lanes(count - i), lanes, load_first(x + i, count - i));
  return _mm512_reduce_max_ps(lanes);
}

SoftmaxTotal attention_weights(const AttentionRow& row) {
  const float largest = largest_of(row.scores, row.count);
  const __m512 offset = _mm512_set1_ps(largest);
  const auto weights = [&](int64_t k) {
    const __mmask16 inside = first_lanes(row.count - k);
    const __m512 scores = _mm512_maskz_loadu_ps(inside, row.scores + k);
    return _mm512_maskz_mov_ps(inside, exp_of(_mm512_sub_ps(scores, offset)));
  };
  __m512 sums[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  uint16_t* out = row.out;
  int64_t tile = 0;
  for (; tile * kTileDepth < row.count; ++tile, out += kTileElements) {
    const __m512 low = weights(tile * kTileDepth);
    const __m512 high = weights(tile * kTileDepth + kLanes);
    sums[0] = _mm512_add_ps(sums[0], low);
    sums[1] = _mm512_add_ps(sums[1], high);
    store_line(out, round_both(low, high));
  }
  clear_row(row.out_tiles - tile, out);
  return {largest, _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]))};
}

}  // namespace

const TileKernels kAmxTileKernels{
    .pack_left = pack_left,
    .pack_right = pack_right,
    .transpose = transpose,
    .multiply = multiply,
    .attention_weights = attention_weights,
};

}  // namespace salient

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
