#if defined(__GNUC__) && !defined(__clang__)
// See kernels_avx512.cc.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <cstdint>

#include "backend/cpu/panels.h"
#include "backend/cpu/tile_registers.h"

// See kernels_avx2.cc for the reason of the target region.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#endif

namespace salient {
namespace {

// 32 rows x 2 panels at a time. Two panels are unpacked once for all rows, to bytes in the order in which
// TDPBSUD wants its right operand: a line of low nibbles is columns 0 to 3 of 16 rows, one row of a tile, a
// line of high ones the next; codes of 8 bits lie so, and are copied to where every block begins a tile.
// Activations are tiles as they stand. A product of 16 x 16 x 64 takes 16 cycles; a block of 128 columns has
// two, and its scaling costs more than they do: 16 conversions, 32 multiply-adds and as many loads and stores
// a tile. So this is bound by vector operations, at 5 times what VNNI reaches.

constexpr int64_t kTileRows = 16;
constexpr int64_t kTileBytes = 1024;
constexpr int64_t kTileLines = 8;
constexpr int64_t kTileColumns = kTileLines * kLineColumns;
constexpr int64_t kStepRows = 2 * kTileRows;

#define SALIENT_TILE_MULTIPLY_BYTES(sum, left, right) \
  __asm__ volatile("tdpbsud %%tmm" #right ", %%tmm" #left ", %%tmm" #sum ::)

/// Blocks of a row and their tiles.
struct Blocks {
  explicit Blocks(const Panels& weights)
      : lines(weights.group_lines < kMostBlockLines ? weights.group_lines : kMostBlockLines),
        tiles((lines + kTileLines - 1) / kTileLines) {}
  int64_t lines;
  int64_t tiles;
};

void unpack_nibbles(const uint8_t* lines, int64_t count, int64_t tiles, uint8_t* out) {
  const __m512i nibble = _mm512_set1_epi8(15);
  for (int64_t line = 0; line < tiles * kTileLines; ++line, out += 2 * kQuadBytes) {
    const __m512i both = line < count ? _mm512_load_si512(lines + line * kQuadBytes) : _mm512_setzero_si512();
    _mm512_store_si512(out, _mm512_and_si512(both, nibble));
    _mm512_store_si512(out + kQuadBytes, _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble));
  }
}

void copy_bytes(const uint8_t* lines, int64_t count, int64_t tiles, uint8_t* out) {
  const int64_t quads = 2 * count;
  for (int64_t quad = 0; quad < 2 * tiles * kTileLines; ++quad) {
    const __m512i codes =
        quad < quads ? _mm512_load_si512(lines + quad * kQuadBytes) : _mm512_setzero_si512();
    _mm512_store_si512(out + quad * kQuadBytes, codes);
  }
}

/// Calls body(block, group, first line, lines) for the blocks of a row.
template <typename Body>
inline __attribute__((always_inline)) void for_each_block(const Panels& weights, const Body& body) {
  int64_t block = 0;
  for (int64_t group = 0; group < weights.groups; ++group) {
    int64_t line = group * weights.group_lines;
    const int64_t next = line + weights.group_lines;
    const int64_t end = next < weights.lines ? next : weights.lines;
    for (; line < end; line += kMostBlockLines, ++block)
      body(block, group, line, end - line < kMostBlockLines ? end - line : kMostBlockLines);
  }
}

void unpack_panel(const Panels& weights, int64_t panel, uint8_t* out) {
  const Blocks blocks(weights);
  const uint8_t* codes = weights.codes + panel * weights.panel_bytes;
  const auto unpack = weights.code == PanelCode::nibble ? unpack_nibbles : copy_bytes;
  for_each_block(weights, [&](int64_t block, int64_t, int64_t line, int64_t lines) {
    unpack(codes + line * line_bytes(weights.code), lines, blocks.tiles,
           out + block * blocks.tiles * kTileBytes);
  });
}

/// Sums of a block: [plane][row of 32][output of 2 x 16].
struct alignas(64) StepSums {
  int32_t at[2][kStepRows][2 * kTileRows];
};

/// Two panels of which one lies `right_stride` behind the other, 32 rows of one plane.
void multiply_block(const int8_t* left, int64_t row_bytes, const uint8_t* right, int64_t right_stride,
                    int64_t tiles, int32_t (&out)[kStepRows][2 * kTileRows]) {
  SALIENT_TILE_ZERO(0);
  SALIENT_TILE_ZERO(1);
  SALIENT_TILE_ZERO(2);
  SALIENT_TILE_ZERO(3);
  const int8_t* below = left + kTileRows * row_bytes;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    SALIENT_TILE_LOAD(4, left + tile * kTileColumns, row_bytes);
    SALIENT_TILE_LOAD(6, right + tile * kTileBytes, kQuadBytes);
    SALIENT_TILE_MULTIPLY_BYTES(0, 4, 6);
    SALIENT_TILE_LOAD(7, right + right_stride + tile * kTileBytes, kQuadBytes);
    SALIENT_TILE_MULTIPLY_BYTES(1, 4, 7);
    SALIENT_TILE_LOAD(5, below + tile * kTileColumns, row_bytes);
    SALIENT_TILE_MULTIPLY_BYTES(2, 5, 6);
    SALIENT_TILE_MULTIPLY_BYTES(3, 5, 7);
  }
  constexpr int64_t kOutBytes = sizeof(out[0]);
  SALIENT_TILE_STORE(0, &out[0][0], kOutBytes);
  SALIENT_TILE_STORE(1, &out[0][kTileRows], kOutBytes);
  SALIENT_TILE_STORE(2, &out[kTileRows][0], kOutBytes);
  SALIENT_TILE_STORE(3, &out[kTileRows][kTileRows], kOutBytes);
}

/// Of the 16 rows of a panel in one group.
__m512 load_scale(const Panels& weights, int64_t panel, int64_t group) {
  const uint8_t* scales = weights.scales + panel * weights.panel_bytes;
  if (weights.scale_type == PanelScale::f32) return _mm512_loadu_ps(scales + group * kPanelRows * 4);
  const auto* words = reinterpret_cast<const __m256i*>(scales + group * kPanelRows * 2);
  if (weights.scale_type == PanelScale::f16) return _mm512_cvtph_ps(_mm256_loadu_si256(words));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(words)), 16));
}

__m512 load_zero(const Panels& weights, int64_t panel, int64_t group) {
  if (weights.zeros == nullptr) return _mm512_set1_ps(static_cast<float>(weights.zero));
  const __m128i bytes = _mm_loadu_si128(
      reinterpret_cast<const __m128i*>(weights.zeros + panel * weights.panel_bytes + group * kPanelRows));
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
}

struct StepTotals {
  __m512 at[kStepRows][2];
};

/// One block of one panel (0 or 1 of the step) for rows [row, row + rows). As in panels_vector.inc.
template <int kPlanes>
void scale_block(const PanelProduct<IntegerInputs>& problem, int64_t panel, int64_t half, int64_t group,
                 int64_t block, int64_t row, int64_t rows, const StepSums& sums, StepTotals& totals) {
  const IntegerInputs& inputs = problem.inputs;
  const __m512 scale = load_scale(problem.weights, panel + half, group);
  const __m512 zero = load_zero(problem.weights, panel + half, group);
  for (int64_t r = 0; r < rows; ++r) {
    const float* input_sums = inputs.sums + (row + r) * kPlanes * inputs.blocks + block;
    const auto plane = [&](int64_t p) {
      const __m512 sum = _mm512_cvtepi32_ps(_mm512_load_si512(&sums.at[p][r][half * kTileRows]));
      return _mm512_fnmadd_ps(zero, _mm512_set1_ps(input_sums[p * inputs.blocks]), sum);
    };
    __m512 sum = plane(0);
    if constexpr (kPlanes == 2) sum = _mm512_fmadd_ps(_mm512_set1_ps(256.0f), sum, plane(1));
    const __m512 factor =
        _mm512_mul_ps(scale, _mm512_set1_ps(inputs.scales[(row + r) * inputs.blocks + block]));
    totals.at[r][half] = _mm512_fmadd_ps(factor, sum, totals.at[r][half]);
  }
}

void store_totals(const PanelProduct<IntegerInputs>& problem, int64_t panel, int64_t half, int64_t row,
                  int64_t rows, const StepTotals& totals) {
  const int64_t output = (panel + half) * kPanelRows;
  const int64_t count = problem.outputs - output;
  if (count <= 0) return;
  const auto inside =
      count >= kPanelRows ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << count) - 1u);
  const __m512 bias =
      problem.bias == nullptr ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(inside, problem.bias + output);
  for (int64_t r = 0; r < rows; ++r) {
    const __m512 total =
        problem.bias == nullptr ? totals.at[r][half] : _mm512_add_ps(totals.at[r][half], bias);
    _mm512_mask_storeu_ps(problem.y + (row + r) * problem.y_stride + output, inside, total);
  }
}

/// Rows [row, row + 32), as far as there are, times `panels` (1 or 2) panels that are unpacked in scratch.
template <int kPlanes>
void multiply_step(const PanelProduct<IntegerInputs>& problem, int64_t panel, int64_t panels, int64_t row) {
  const Panels& weights = problem.weights;
  const IntegerInputs& inputs = problem.inputs;
  const Blocks blocks(weights);
  const int64_t row_bytes = kPlanes * inputs.plane_bytes;
  const int8_t* left = inputs.codes + row * row_bytes;
  const int64_t rows = inputs.rows - row < kStepRows ? inputs.rows - row : kStepRows;
  StepTotals totals;
  for (auto& halves : totals.at) halves[0] = halves[1] = _mm512_setzero_ps();
  StepSums sums;
  for_each_block(weights, [&](int64_t block, int64_t group, int64_t line, int64_t lines) {
    // The last block may have fewer tiles: what stands behind it in a row of activations is not its own.
    const int64_t tiles = (lines + kTileLines - 1) / kTileLines;
    const uint8_t* right = problem.scratch + block * blocks.tiles * kTileBytes;
    for (int p = 0; p < kPlanes; ++p) {
      multiply_block(left + p * inputs.plane_bytes + line * kLineColumns, row_bytes, right,
                     (panels - 1) * unpacked_bytes(inputs.blocks, blocks.lines), tiles, sums.at[p]);
    }
    for (int64_t half = 0; half < panels; ++half) {
      scale_block<kPlanes>(problem, panel, half, group, block, row, rows, sums, totals);
    }
  });
  for (int64_t half = 0; half < panels; ++half) store_totals(problem, panel, half, row, rows, totals);
}

}  // namespace

void multiply_panels_in_tiles(const PanelProduct<IntegerInputs>& problem) {
  const TileScope scope;
  const int64_t bytes = unpacked_bytes(problem.inputs.blocks, Blocks(problem.weights).lines);
  for (int64_t panel = problem.begin; panel < problem.end; panel += 2) {
    const int64_t panels = problem.end - panel < 2 ? problem.end - panel : 2;
    for (int64_t i = 0; i < panels; ++i)
      unpack_panel(problem.weights, panel + i, problem.scratch + i * bytes);
    for (int64_t row = 0; row < problem.inputs.rows; row += kStepRows) {
      if (problem.inputs.planes == 1) {
        multiply_step<1>(problem, panel, panels, row);
      } else {
        multiply_step<2>(problem, panel, panels, row);
      }
    }
  }
}

}  // namespace salient

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
