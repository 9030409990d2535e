#pragma once

// Included by the kernel files ahead of their target region: nothing here may bring in inline functions.
#include <cstdint>

namespace salient {

// Weights of 2 to 8 bits as the kernels of decoding and prefill read them. 16 output rows make a panel. A
// panel is a run of lines, a line being 16 rows x 8 columns. Codes of up to 4 bits lie in nibbles, 64 bytes
// to a line: bytes 4 r to 4 r + 3 belong to row r, their low nibbles are columns 0 to 3, their high nibbles 4
// to
// 7. Codes of more bits lie in bytes, 128 to a line: columns 0 to 3 in the first 64, so that 4 r to 4 r + 3
// belong to row r, and 4 to 7 in the others. One layout fits all:
//
//   8 or 16 lanes    byte products (VPMADDUBSW, VPDPBUSD) take 4 columns of each row with one broadcast of 4
//                    activations; unpacking is an AND, or a shift and an AND, with no shuffle
//   tiles (AMX)      8 lines unpack to 16 times 4 columns x 16 rows, a right operand of TDPBSUD
//   floats           nibble or byte i of all lanes is one column of 16 rows: no sum across lanes is ever
//   taken
//
// Before its lines a panel has its scales, then its zeros, 16 to a group, each part from a cache line on:
// with f16 scales and groups of 128 a weight takes 4.19 bits (8.19 in bytes), and a thread that works through
// panels reads one stream. (Scales and zeros of a whole matrix apart from its codes were streams of their own
// and cost 7 % of the bandwidth.) What rows or columns lack of whole lines is code 0: of rows it is never
// stored, of columns it meets activations that are 0.

inline constexpr int64_t kPanelRows = 16;
inline constexpr int64_t kLineColumns = 8;
/// 4 columns of 16 rows in bytes, 8 in nibbles.
inline constexpr int64_t kQuadBytes = 64;
/// Columns of activations that share a scale at most; a block never reaches into another group of weights.
inline constexpr int64_t kMostBlockLines = 16;
/// Activations are padded to whole tiles, and one more may be read behind the last block.
inline constexpr int64_t kInputAlignment = 64;

enum class PanelScale { f32, f16, bf16 };
enum class PanelCode { nibble, byte };

inline constexpr int64_t line_bytes(PanelCode code) {
  return code == PanelCode::nibble ? kQuadBytes : 2 * kQuadBytes;
}

/// value = (code - zero) * scale.
struct Panels {
  PanelCode code;
  const uint8_t* codes;   ///< of the first panel: [lines, line_bytes(code)]
  const uint8_t* scales;  ///< of the first panel: [groups, 16] of scale_type
  PanelScale scale_type;
  const uint8_t* zeros;  ///< of the first panel: [groups, 16], or null
  int64_t panel_bytes;   ///< from any part of a panel to that of the next
  int zero;              ///< of all groups where `zeros` is null; else the middle of the codes
  int64_t lines;
  int64_t groups;
  int64_t group_lines;  ///< the last group may have fewer
};

/// Activations as integers. With one plane x ~ scale * c0, with two x ~ scale * (256 c0 + c1).
struct IntegerInputs {
  const int8_t* codes;  ///< [rows, planes, plane_bytes], zero behind the last column
  const float* scales;  ///< [rows, blocks]
  const float* sums;    ///< [rows, planes, blocks]: of the codes of a block
  int64_t rows;
  int64_t planes;
  int64_t plane_bytes;
  int64_t blocks;
};

/// Rows of activations become integers: c = round(x 127 / m), or round(x 32639 / m) in two planes, m being
/// the largest |x| of the block, ties to even. A block that holds an infinity or NaN gets the scale NaN; one
/// whose m is below 1e-30 counts as zeros.
struct QuantizeProblem {
  const float* x;  ///< [rows, columns], rows `stride` apart
  int64_t stride;
  int64_t rows;
  int64_t columns;
  int64_t groups;
  int64_t group_lines;
  int64_t planes;
  int64_t plane_bytes;
  int64_t blocks;
  int8_t* codes;
  float* scales;
  float* sums;
};

/// Activations as the float kernel of the same table wants them for codes of one kind.
struct FloatInputs {
  const float* values;  ///< [rows, lines * 8]
  const float* sums;    ///< [rows, groups]
  int64_t rows;
};

struct FloatInputProblem {
  PanelCode code;
  const float* x;  ///< [rows, columns]
  int64_t rows;
  int64_t columns;
  int64_t lines;
  int64_t groups;
  int64_t group_lines;
  float* values;
  float* sums;
};

/// y[r, n] = x[r] . w[n] + bias[n] for the outputs of panels [begin, end).
template <typename Inputs>
struct PanelProduct {
  Panels weights;
  Inputs inputs;
  int64_t begin;
  int64_t end;
  int64_t outputs;    ///< of the whole weight: what the last panel has beyond them is not stored
  const float* bias;  ///< [outputs] or null
  float* y;           ///< [rows, outputs], rows y_stride apart
  int64_t y_stride;
  uint8_t* scratch;  ///< of multiply_in_tiles: 2 * unpacked_bytes, 64-byte aligned
};

/// Bytes of a panel of which every block begins a tile of 64 columns.
inline constexpr int64_t unpacked_bytes(int64_t blocks, int64_t block_lines) {
  return blocks * ((block_lines + 7) / 8) * 1024;
}

/// Columns [8 line, 8 (line + lines)) of a panel, expanded to f32: one column of 16 rows behind the other.
struct PanelExpandProblem {
  Panels weights;
  int64_t panel;
  int64_t line;
  int64_t lines;
  float* out;  ///< [8 lines, 16], rows `stride` apart
  int64_t stride;
};

/// One implementation of the products with panels. Nothing is validated; pointers need no alignment but codes
/// and scratch, which stand on cache lines.
///
/// Integer products give the same bytes in every table, for any number of rows: sums of a block are exact
/// (at most 255 * 128 * 128 for a plane, below 2^24), and what follows is one sequence of operations
/// everywhere:
///   f = sum - zero * sum of the inputs, exact; with two planes f = fma(256, f0, f1)
///   total = fma(weight scale * input scale, f, total), block by block; at last total + bias
struct PanelKernels {
  void (*quantize)(const QuantizeProblem& problem);
  void (*multiply_integers)(const PanelProduct<IntegerInputs>& problem);
  void (*prepare_floats)(const FloatInputProblem& problem);
  /// For few rows: products of codes in f32, sums over a group in an order of its own. No row depends on
  /// others. Zeros are subtracted code by code or once a group, so that what rounding leaves is relative to
  /// the sum of |x| (code + zero) |scale|.
  void (*multiply_floats)(const PanelProduct<FloatInputs>& problem);
  /// (code - zero) * scale, rounded once.
  void (*expand)(const PanelExpandProblem& problem);
  /// multiply_integers for many rows; inputs are readable up to a multiple of 32 rows. Null without tiles.
  void (*multiply_in_tiles)(const PanelProduct<IntegerInputs>& problem);
};

/// Plain C++, the reference of the others.
extern const PanelKernels kPortablePanels;
/// AVX2, FMA and F16C.
extern const PanelKernels kAvx2Panels;
/// Those and AVX-VNNI.
extern const PanelKernels kAvxVnniPanels;
/// AVX-512 F, BW, DQ and VL.
extern const PanelKernels kAvx512Panels;
/// Those and AVX512-VNNI.
extern const PanelKernels kAvx512VnniPanels;
/// What every aarch64 processor has.
extern const PanelKernels kNeonPanels;
/// That and SDOT.
extern const PanelKernels kNeonDotprodPanels;
/// For AMX-INT8 with AVX-512.
void multiply_panels_in_tiles(const PanelProduct<IntegerInputs>& problem);

}  // namespace salient
