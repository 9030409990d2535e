#include "backend/cpu/tile_product.h"

#include <algorithm>

#include "backend/cpu/scratch.h"
#include "base/parallel.h"

namespace salient {
namespace {

/// Rows that are packed at a time.
constexpr int64_t kPackedRows = 4096;
/// Elements of a weight that are packed at a time, 4 MiB: all rows use them before the next ones come.
constexpr int64_t kPackedWeights = int64_t{1} << 21;
/// Of a weight, expanded to f32 at a time.
constexpr int64_t kExpandedColumns = 1024;

// A block of the result. 256 rows and 128 outputs of a depth of 1536 are 1.1 MiB in bf16, so that both
// operands stay in a second-level cache; more would leave less to share out between threads.
constexpr int64_t kRowBlock = 256;
constexpr int64_t kOutputBlock = 128;

/// Rows of activations in a Gram matrix that are packed at a time, once as left and once as right operand.
constexpr int64_t kGramRows = 1024;
constexpr int64_t kGramBlock = 256;

/// Runs body(begin, count) on pieces of [0, total).
template <typename Body>
void parallel_pieces(int64_t total, int64_t piece, const Body& body) {
  parallel_for(static_cast<size_t>(total), static_cast<size_t>(piece), [&](size_t begin, size_t end) {
    body(static_cast<int64_t>(begin), static_cast<int64_t>(end - begin));
  });
}

PackedMatrix pack_left_in_parallel(const TileKernels& kernels, const float* x, int64_t rows, int64_t columns,
                                   uint16_t* out) {
  const int64_t stride = depth_tiles(columns) * kTileElements;
  parallel_pieces(rows, 4 * kTileRows, [&](int64_t row, int64_t count) {
    kernels.pack_left({.x = x + row * columns,
                       .stride = columns,
                       .rows = count,
                       .columns = columns,
                       .out = out + row / kTileRows * stride,
                       .panel_stride = stride});
  });
  return {out, stride};
}

/// Outputs [begin, begin + 16) of a weight as a panel of a right operand.
void pack_weight_panel(const CpuContext& context, const WeightSource& weight, int64_t begin, uint16_t* out) {
  const int64_t depth = weight.depth();
  const int64_t rows = std::min(kTileRows, weight.outputs() - begin);
  for (int64_t column = 0; column < depth; column += kExpandedColumns) {
    const WeightRange range{
        .row = begin, .rows = rows, .column = column, .columns = std::min(kExpandedColumns, depth - column)};
    const GemmOperand<float> exact = weight.f32_block(context, range);
    uint16_t* tiles = out + column / kTileDepth * kTileElements;
    if (exact.transposed == Transposed::no) {
      context.tiles->pack_right({.x = exact.data,
                                 .stride = exact.stride,
                                 .rows = range.columns,
                                 .columns = rows,
                                 .out = tiles,
                                 .panel_stride = 0});
      continue;
    }
    context.tiles->pack_left({.x = exact.data,
                              .stride = exact.stride,
                              .rows = rows,
                              .columns = range.columns,
                              .out = tiles,
                              .panel_stride = 0});
    context.tiles->transpose(tiles, depth_tiles(range.columns), tiles);
  }
}

PackedMatrix pack_weights(const CpuContext& context, const WeightSource& weight, int64_t begin,
                          int64_t outputs, uint16_t* out) {
  const int64_t stride = depth_tiles(weight.depth()) * kTileElements;
  parallel_pieces(tile_panels(outputs), 1, [&](int64_t panel, int64_t) {
    pack_weight_panel(context, weight, begin + panel * kTileRows, out + panel * stride);
  });
  return {out, stride};
}

/// Rows of x, packed, times outputs [begin, begin + outputs), packed.
struct PackedProduct {
  PackedMatrix x;
  int64_t rows;
  PackedMatrix weights;
  int64_t begin;
  int64_t outputs;
  float* y;
};

void multiply_packed(const CpuContext& context, const Product& product, const PackedProduct& packed) {
  const int64_t y_stride = product.weight.outputs();
  const int64_t output_blocks = blocks_of(packed.outputs, kOutputBlock);
  parallel_pieces(blocks_of(packed.rows, kRowBlock) * output_blocks, 1, [&](int64_t i, int64_t) {
    const int64_t row = i / output_blocks * kRowBlock;
    const int64_t output = i % output_blocks * kOutputBlock;
    const int64_t rows = std::min(kRowBlock, packed.rows - row);
    const int64_t outputs = std::min(kOutputBlock, packed.outputs - output);
    float* y = packed.y + row * y_stride + packed.begin + output;
    context.tiles->multiply({.left = packed.x.at(row, 0),
                             .left_stride = packed.x.panel_stride,
                             .right = packed.weights.at(output, 0),
                             .right_stride = packed.weights.panel_stride,
                             .tiles = depth_tiles(product.weight.depth()),
                             .rows = rows,
                             .columns = outputs,
                             .out = y,
                             .out_stride = y_stride,
                             .accumulate = 0});
    if (product.bias.empty()) return;
    for (int64_t r = 0; r < rows; ++r)
      context.kernels.add(product.bias.data() + packed.begin + output, outputs, y + r * y_stride);
  });
}

/// A block [rows, columns] of a matrix that sums a^T b: a's columns from `row` on, b's from `column` on.
void add_gram_block(const TileKernels& kernels, const PackedMatrix& a, const PackedMatrix& b, int64_t row,
                    int64_t column, TileProduct block) {
  block.left = a.at(row, 0);
  block.left_stride = a.panel_stride;
  block.right = b.at(column, 0);
  block.right_stride = b.panel_stride;
  block.out += row * block.out_stride + column;
  block.accumulate = 1;
  kernels.multiply(block);
}

/// The columns of x [rows, columns] as rows of a left operand, from the right operand that x was packed to.
PackedMatrix transposed(const TileKernels& kernels, const PackedMatrix& right, int64_t columns,
                        uint16_t* out) {
  const int64_t tiles = right.panel_stride / kTileElements;
  parallel_pieces(tile_panels(columns), 2, [&](int64_t panel, int64_t count) {
    kernels.transpose(right.data + panel * right.panel_stride, count * tiles,
                      out + panel * right.panel_stride);
  });
  return {out, right.panel_stride};
}

}  // namespace

PackedMatrix pack_right_in_parallel(const TileKernels& kernels, const float* x, int64_t rows, int64_t columns,
                                    uint16_t* out) {
  const int64_t stride = depth_tiles(rows) * kTileElements;
  parallel_pieces(rows, kTileDepth, [&](int64_t row, int64_t count) {
    kernels.pack_right({.x = x + row * columns,
                        .stride = columns,
                        .rows = count,
                        .columns = columns,
                        .out = out + row / kTileDepth * kTileElements,
                        .panel_stride = stride});
  });
  return {out, stride};
}

void pack_weight(const CpuContext& context, const WeightSource& weight, uint16_t* out) {
  pack_weights(context, weight, 0, weight.outputs(), out);
}

void multiply_in_tiles(const CpuContext& context, const Product& product) {
  const int64_t depth = product.weight.depth();
  const int64_t outputs = product.weight.outputs();
  const int64_t panel = packed_elements(1, depth);
  const int64_t panels_at_once =
      product.packed != nullptr ? tile_panels(outputs) : std::max<int64_t>(1, kPackedWeights / panel);
  const int64_t outputs_at_once = std::min(tile_panels(outputs), panels_at_once) * kTileRows;
  uint16_t* weights = nullptr;
  if (product.packed == nullptr)
    weights = scratch<uint16_t>(ScratchUse::packed_weights, packed_elements(outputs_at_once, depth));
  auto* inputs =
      scratch<uint16_t>(ScratchUse::inputs, packed_elements(std::min(product.rows, kPackedRows), depth));
  for (int64_t row = 0; row < product.rows; row += kPackedRows) {
    PackedProduct packed{.rows = std::min(kPackedRows, product.rows - row), .y = product.y + row * outputs};
    packed.x = pack_left_in_parallel(*context.tiles, product.x + row * depth, packed.rows, depth, inputs);
    for (packed.begin = 0; packed.begin < outputs; packed.begin += outputs_at_once) {
      packed.outputs = std::min(outputs_at_once, outputs - packed.begin);
      packed.weights = product.packed != nullptr
                           ? PackedMatrix{product.packed, panel}
                           : pack_weights(context, product.weight, packed.begin, packed.outputs, weights);
      multiply_packed(context, product, packed);
    }
  }
}

void accumulate_gram_in_tiles(const TileKernels& kernels, const GramProblem& problem) {
  const int64_t most = packed_elements(problem.k, std::min(problem.rows, kGramRows));
  auto* packed = scratch<uint16_t>(ScratchUse::inputs, 2 * most);
  const int64_t blocks = blocks_of(problem.k, kGramBlock);
  for (int64_t from = 0; from < problem.rows; from += kGramRows) {
    const int64_t rows = std::min(kGramRows, problem.rows - from);
    const PackedMatrix right =
        pack_right_in_parallel(kernels, problem.x + from * problem.k, rows, problem.k, packed);
    const PackedMatrix left = transposed(kernels, right, problem.k, packed + most);
    parallel_pieces(blocks * (blocks + 1) / 2, 1, [&](int64_t i, int64_t) {
      const TriangleBlock block = triangle_block(i);
      const int64_t row = block.row * kGramBlock;
      const int64_t column = block.column * kGramBlock;
      add_gram_block(kernels, left, right, row, column,
                     {.tiles = depth_tiles(rows),
                      .rows = std::min(kGramBlock, problem.k - row),
                      .columns = std::min(kGramBlock, problem.k - column),
                      .out = problem.gram,
                      .out_stride = problem.k});
    });
  }
}

void accumulate_product_in_tiles(const TileKernels& kernels, const CrossProblem& problem) {
  const int64_t rows_at_once = std::min(problem.rows, kGramRows);
  const int64_t a_elements = packed_elements(problem.a_columns, rows_at_once);
  const int64_t b_elements = packed_elements(problem.b_columns, rows_at_once);
  auto* packed = scratch<uint16_t>(ScratchUse::inputs, a_elements + b_elements);
  const int64_t columns_of_blocks = blocks_of(problem.b_columns, kGramBlock);
  for (int64_t from = 0; from < problem.rows; from += kGramRows) {
    const int64_t rows = std::min(kGramRows, problem.rows - from);
    const PackedMatrix columns = pack_right_in_parallel(kernels, problem.a + from * problem.a_columns, rows,
                                                        problem.a_columns, packed);
    const PackedMatrix left = transposed(kernels, columns, problem.a_columns, packed);
    const PackedMatrix right = pack_right_in_parallel(kernels, problem.b + from * problem.b_columns, rows,
                                                      problem.b_columns, packed + a_elements);
    parallel_pieces(blocks_of(problem.a_columns, kGramBlock) * columns_of_blocks, 1, [&](int64_t i, int64_t) {
      const int64_t row = i / columns_of_blocks * kGramBlock;
      const int64_t column = i % columns_of_blocks * kGramBlock;
      add_gram_block(kernels, left, right, row, column,
                     {.tiles = depth_tiles(rows),
                      .rows = std::min(kGramBlock, problem.a_columns - row),
                      .columns = std::min(kGramBlock, problem.b_columns - column),
                      .out = problem.result,
                      .out_stride = problem.b_columns});
    });
  }
}

}  // namespace salient
