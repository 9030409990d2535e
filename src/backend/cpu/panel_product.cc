#include <algorithm>
#include <span>
#include <vector>

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

const PanelWeight& weight_of(const Product& product) {
  return static_cast<const PanelWeight&>(product.weight);  // for they join
}

/// The products of all weights with the same inputs.
template <typename Inputs>
std::vector<PanelProduct<Inputs>> whole_products(std::span<const Product> products, const Inputs& inputs) {
  std::vector<PanelProduct<Inputs>> result;
  for (const Product& product : products) {
    const PanelWeight& weight = weight_of(product);
    result.push_back({.weights = weight.view(),
                      .inputs = inputs,
                      .begin = 0,
                      .end = weight.layout().panels(),
                      .outputs = weight.outputs(),
                      .bias = product.bias.empty() ? nullptr : product.bias.data(),
                      .y = product.y,
                      .y_stride = weight.outputs(),
                      .scratch = nullptr});
  }
  return result;
}

/// Runs the kernel on pieces of a few panels: all rows, each weight read once.
template <typename Inputs>
void stream(void (*kernel)(const PanelProduct<Inputs>&), std::span<const PanelProduct<Inputs>> wholes) {
  const auto panels_of_piece = [](const PanelProduct<Inputs>& whole) {
    return std::max<int64_t>(1, kStreamedBytes / whole.weights.panel_bytes);
  };
  PieceCount pieces;
  for (const PanelProduct<Inputs>& whole : wholes) pieces.add(blocks_of(whole.end, panels_of_piece(whole)));
  parallel_for(static_cast<size_t>(pieces.all()), 1, [&](size_t begin, size_t end) {
    for (size_t index = begin; index < end; ++index) {
      const auto [i, at] = pieces.at(static_cast<int64_t>(index));
      PanelProduct<Inputs> piece = wholes[i];
      const int64_t step = panels_of_piece(piece);
      piece.begin = at * step;
      piece.end = std::min(piece.end, piece.begin + step);
      kernel(piece);
    }
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
void multiply_blocks(const CpuContext& context, int64_t block_lines,
                     std::span<const PanelProduct<IntegerInputs>> wholes) {
  const IntegerInputs& inputs = wholes.front().inputs;
  // With shorter blocks tiles are mostly zeros.
  const bool in_tiles = context.panels.multiply_in_tiles != nullptr && block_lines >= 8;
  const auto kernel = in_tiles ? context.panels.multiply_in_tiles : context.panels.multiply_integers;
  const int64_t fitting = kStripBytes / (inputs.planes * inputs.plane_bytes);
  const int64_t strip = std::max<int64_t>(1, fitting / kStripRows) * kStripRows;
  PieceCount columns;
  for (const PanelProduct<IntegerInputs>& whole : wholes) columns.add(blocks_of(whole.end, kPanelsOfPiece));
  const auto pieces = static_cast<size_t>(blocks_of(inputs.rows, strip) * columns.all());
  parallel_for(pieces, 1, [&](size_t begin, size_t end) {
    for (auto index = static_cast<int64_t>(begin); index < static_cast<int64_t>(end); ++index) {
      const int64_t row = index / columns.all() * strip;
      const auto [i, column] = columns.at(index % columns.all());
      PanelProduct<IntegerInputs> piece = rows_of(wholes[i], row, std::min(strip, inputs.rows - row));
      piece.begin = column * kPanelsOfPiece;
      piece.end = std::min(piece.end, piece.begin + kPanelsOfPiece);
      if (in_tiles) {
        const int64_t bytes = unpacked_bytes(inputs.blocks, block_lines);
        piece.scratch = scratch<uint8_t>(ScratchUse::packed_weights, 2 * bytes);
      }
      kernel(piece);
    }
  });
}

void multiply_in_integers(const CpuContext& context, std::span<const Product> products) {
  const PanelLayout& layout = weight_of(products.front()).layout();
  std::vector<Product> parts;
  for (int64_t row = 0; row < products.front().rows; row += kRowsAtOnce) {
    parts.clear();
    for (const Product& product : products) {
      Product part = product;
      part.x += row * layout.depth;
      part.y += row * product.weight.outputs();
      part.rows = std::min(kRowsAtOnce, product.rows - row);
      parts.push_back(part);
    }
    const auto wholes = whole_products(parts, quantize(context, layout, parts.front()));
    if (parts.front().rows < kStreamedRows) {
      stream<IntegerInputs>(context.panels.multiply_integers, wholes);
    } else {
      multiply_blocks(context, layout.block_lines(), wholes);
    }
  }
}

void multiply_in_floats(const CpuContext& context, std::span<const Product> products) {
  const PanelLayout& layout = weight_of(products.front()).layout();
  const int64_t rows = products.front().rows;
  const int64_t values = rows * layout.lines() * kLineColumns;
  auto* memory = scratch<float>(ScratchUse::inputs, values + rows * layout.groups());
  context.panels.prepare_floats({.code = layout.code,
                                 .x = products.front().x,
                                 .rows = rows,
                                 .columns = layout.depth,
                                 .lines = layout.lines(),
                                 .groups = layout.groups(),
                                 .group_lines = layout.group_lines(),
                                 .values = memory,
                                 .sums = memory + values});
  stream<FloatInputs>(context.panels.multiply_floats,
                      whole_products(products, FloatInputs{memory, memory + values, rows}));
}

}  // namespace

bool PanelWeight::joins(const WeightSource& other) const {
  const auto* panels = dynamic_cast<const PanelWeight*>(&other);
  return panels != nullptr && panels->layout_.depth == layout_.depth &&
         panels->layout_.code == layout_.code && panels->layout_.group_width == layout_.group_width;
}

void PanelWeight::multiply_directly(const CpuContext& context, std::span<const Product> products) const {
  if (products.front().activations == ActivationMode::fp32) {
    multiply_in_floats(context, products);
  } else {
    multiply_in_integers(context, products);
  }
}

}  // namespace salient
