#include <algorithm>

#include "backend/cpu/panel_weight.h"
#include "backend/cpu/scratch.h"
#include "base/parallel.h"

namespace salient {
namespace {

/// Rows whose activations are made integers at a time.
constexpr int64_t kRowsAtOnce = 1024;
/// From here on panels are read by several tiles of rows, and worth unpacking for AMX.
constexpr int64_t kStreamedRows = 16;
/// Of weights in a piece of streaming work, a few microseconds of memory traffic.
constexpr int64_t kStreamedBytes = int64_t{1} << 16;
/// Of activations that all panels of a piece run over: half of a small second-level cache.
constexpr int64_t kStripBytes = int64_t{1} << 19;
/// A multiple of the 12 rows of a VNNI tile and the 32 of an AMX step.
constexpr int64_t kStripRows = 96;
constexpr int64_t kPanelsOfPiece = 8;
/// An AMX step is 32 rows, all of which are loaded.
constexpr int64_t kRowPadding = 32;

size_t lines_of(size_t bytes) { return (bytes + 63) / 64 * 64; }

/// Activations of `rows` rows as integers, in the calling thread's scratch.
IntegerInputs quantize(const CpuContext& context, const PanelLayout& layout, const Product& product) {
  const int64_t planes = product.activations == ActivationMode::int16 ? 2 : 1;
  const int64_t depth = layout.lines() * kLineColumns;
  const int64_t plane_bytes = blocks_of(depth, kInputAlignment) * kInputAlignment;
  const int64_t row_bytes = planes * plane_bytes;
  const int64_t blocks = layout.blocks();
  // The last block of the last row may be read up to a tile further than it is long.
  const int64_t padded_rows = blocks_of(product.rows, kRowPadding) * kRowPadding;
  const size_t code_bytes = lines_of(static_cast<size_t>(padded_rows * row_bytes + kInputAlignment));
  const size_t scale_bytes = lines_of(static_cast<size_t>(product.rows * blocks) * sizeof(float));
  std::byte* memory =
      scratch_bytes(ScratchUse::inputs, code_bytes + scale_bytes * static_cast<size_t>(1 + planes));
  auto* codes = reinterpret_cast<int8_t*>(memory);
  auto* scales = reinterpret_cast<float*>(memory + code_bytes);
  auto* sums = reinterpret_cast<float*>(memory + code_bytes + scale_bytes);
  const auto grain = static_cast<size_t>(std::max<int64_t>(1, 16384 / layout.depth));
  parallel_for(static_cast<size_t>(product.rows), grain, [&](size_t begin, size_t end) {
    const auto row = static_cast<int64_t>(begin);
    context.panels.quantize({.x = product.x + row * layout.depth,
                             .stride = layout.depth,
                             .rows = static_cast<int64_t>(end - begin),
                             .columns = layout.depth,
                             .groups = layout.groups(),
                             .group_lines = layout.group_lines(),
                             .planes = planes,
                             .plane_bytes = plane_bytes,
                             .blocks = blocks,
                             .codes = codes + row * row_bytes,
                             .scales = scales + row * blocks,
                             .sums = sums + row * planes * blocks});
  });
  return {codes, scales, sums, product.rows, planes, plane_bytes, blocks};
}

template <typename Inputs>
PanelProduct<Inputs> whole_product(const PanelWeight& weight, const Product& product, const Inputs& inputs) {
  return {.weights = weight.view(),
          .inputs = inputs,
          .begin = 0,
          .end = weight.layout().panels(),
          .outputs = weight.outputs(),
          .bias = product.bias.empty() ? nullptr : product.bias.data(),
          .y = product.y,
          .y_stride = weight.outputs(),
          .scratch = nullptr};
}

/// Runs the kernel on pieces of a few panels: all rows, each weight read once.
template <typename Inputs>
void stream(void (*kernel)(const PanelProduct<Inputs>&), const PanelProduct<Inputs>& whole) {
  const auto grain = static_cast<size_t>(std::max<int64_t>(1, kStreamedBytes / whole.weights.panel_bytes));
  parallel_for(static_cast<size_t>(whole.end), grain, [&](size_t begin, size_t end) {
    PanelProduct<Inputs> piece = whole;
    piece.begin = static_cast<int64_t>(begin);
    piece.end = static_cast<int64_t>(end);
    kernel(piece);
  });
}

PanelProduct<IntegerInputs> rows_of(PanelProduct<IntegerInputs> product, int64_t row, int64_t rows) {
  IntegerInputs& inputs = product.inputs;
  inputs.codes += row * inputs.planes * inputs.plane_bytes;
  inputs.scales += row * inputs.blocks;
  inputs.sums += row * inputs.planes * inputs.blocks;
  inputs.rows = rows;
  product.y += row * product.y_stride;
  return product;
}

/// Pieces of some panels by as many rows as a second-level cache holds.
void multiply_blocks(const CpuContext& context, const PanelLayout& layout,
                     const PanelProduct<IntegerInputs>& whole) {
  const IntegerInputs& inputs = whole.inputs;
  // With shorter blocks tiles are mostly zeros.
  const bool in_tiles = context.panels.multiply_in_tiles != nullptr && layout.block_lines() >= 8;
  const auto kernel = in_tiles ? context.panels.multiply_in_tiles : context.panels.multiply_integers;
  const int64_t fitting = kStripBytes / (inputs.planes * inputs.plane_bytes);
  const int64_t strip = std::max<int64_t>(1, fitting / kStripRows) * kStripRows;
  const int64_t columns = blocks_of(whole.end, kPanelsOfPiece);
  const auto pieces = static_cast<size_t>(blocks_of(inputs.rows, strip) * columns);
  parallel_for(pieces, 1, [&](size_t begin, size_t end) {
    for (auto i = static_cast<int64_t>(begin); i < static_cast<int64_t>(end); ++i) {
      const int64_t row = i / columns * strip;
      PanelProduct<IntegerInputs> piece = rows_of(whole, row, std::min(strip, inputs.rows - row));
      piece.begin = i % columns * kPanelsOfPiece;
      piece.end = std::min(whole.end, piece.begin + kPanelsOfPiece);
      if (in_tiles) {
        const int64_t bytes = unpacked_bytes(inputs.blocks, layout.block_lines());
        piece.scratch = scratch<uint8_t>(ScratchUse::packed_weights, 2 * bytes);
      }
      kernel(piece);
    }
  });
}

void multiply_in_integers(const CpuContext& context, const PanelWeight& weight, const Product& product) {
  for (int64_t row = 0; row < product.rows; row += kRowsAtOnce) {
    Product part = product;
    part.x += row * weight.depth();
    part.y += row * weight.outputs();
    part.rows = std::min(kRowsAtOnce, product.rows - row);
    const IntegerInputs inputs = quantize(context, weight.layout(), part);
    const auto whole = whole_product(weight, part, inputs);
    if (part.rows < kStreamedRows) {
      stream(context.panels.multiply_integers, whole);
    } else {
      multiply_blocks(context, weight.layout(), whole);
    }
  }
}

void multiply_in_floats(const CpuContext& context, const PanelWeight& weight, const Product& product) {
  const PanelLayout& layout = weight.layout();
  const int64_t values = product.rows * layout.lines() * kLineColumns;
  auto* memory = scratch<float>(ScratchUse::inputs, values + product.rows * layout.groups());
  context.panels.prepare_floats({.x = product.x,
                                 .rows = product.rows,
                                 .columns = layout.depth,
                                 .lines = layout.lines(),
                                 .groups = layout.groups(),
                                 .group_lines = layout.group_lines(),
                                 .values = memory,
                                 .sums = memory + values});
  stream(context.panels.multiply_floats,
         whole_product(weight, product, FloatInputs{memory, memory + values, product.rows}));
}

}  // namespace

void PanelWeight::multiply_directly(const CpuContext& context, const Product& product) const {
  if (product.activations == ActivationMode::fp32) {
    multiply_in_floats(context, *this, product);
  } else {
    multiply_in_integers(context, *this, product);
  }
}

}  // namespace salient
