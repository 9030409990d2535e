#include "backend/cpu/product.h"

#include <algorithm>
#include <cstring>

#include "backend/cpu/scratch.h"
#include "backend/cpu/tile_product.h"
#include "base/parallel.h"

namespace salient {
namespace {

/// Up to here the kernels beat the library, which would first expand and pack the whole weight.
constexpr int64_t kFewRows = 8;
static_assert(kFewRows >= kRowsAsAlone);  // kernels sum in the same order for any number of rows

// Blocks of a product with many rows. Expanding a weight block costs about as much as multiplying it with 10
// rows, so 512 rows make it cheap; 128 x 1024 f32 weights are half a megabyte and stay in the second-level
// cache.
constexpr int64_t kRowBlock = 512;
constexpr int64_t kOutputBlock = 128;
constexpr int64_t kDepthBlock = 1024;
/// Rows that are rounded to bf16 at a time.
constexpr int64_t kRoundedRows = 4096;

constexpr int64_t kGramBlock = 256;

// A block of a quadratic form: the smaller the columns, the less of the upper triangle is multiplied in vain;
// the fewer the rows, the more a packed block of S costs beside its use.
constexpr int64_t kFormRows = 96;
constexpr int64_t kFormColumns = 96;

/// Runs body(i) for every i < count, one at a time.
template <typename Body>
void parallel_each(int64_t count, const Body& body) {
  parallel_for(static_cast<size_t>(count), 1, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) body(static_cast<int64_t>(i));
  });
}

/// Rounds [rows, columns] to bf16, in parallel.
void round_rows(const CpuKernels& kernels, const float* in, int64_t count, uint16_t* out) {
  constexpr size_t kGrain = size_t{1} << 16;
  parallel_for(static_cast<size_t>(count), kGrain, [&](size_t begin, size_t end) {
    kernels.narrow_bf16(in + begin, static_cast<int64_t>(end - begin), out + begin);
  });
}

GemmOperand<float> weight_block(const CpuContext& context, const WeightSource& weight,
                                const WeightRange& range, const float*) {
  return weight.f32_block(context, range);
}

GemmOperand<uint16_t> weight_block(const CpuContext& context, const WeightSource& weight,
                                   const WeightRange& range, const uint16_t*) {
  return weight.bf16_block(context, range);
}

/// One block of y: rows [row, row + rows), outputs [output, output + outputs).
struct OutputBlock {
  int64_t row;
  int64_t rows;
  int64_t output;
  int64_t outputs;
};

template <typename Element>
void multiply_block(const CpuContext& context, const Product& product, const Element* x,
                    const OutputBlock& block) {
  const int64_t depth = product.weight.depth();
  const int64_t y_stride = product.weight.outputs();
  const int64_t depth_block = product.weight.stored_as(product.precision) ? depth : kDepthBlock;
  float* y = product.y + block.row * y_stride + block.output;
  for (int64_t k = 0; k < depth; k += depth_block) {
    const WeightRange range{
        .row = block.output, .rows = block.outputs, .column = k, .columns = std::min(depth_block, depth - k)};
    context.gemm(GemmProblem<Element>{.m = block.rows,
                                      .n = block.outputs,
                                      .k = range.columns,
                                      .a = {x + block.row * depth + k, depth},
                                      .b = weight_block(context, product.weight, range, x),
                                      .c = y,
                                      .c_stride = y_stride,
                                      .accumulate = k == 0 ? Accumulate::no : Accumulate::yes});
  }
  if (product.bias.empty()) return;
  for (int64_t r = 0; r < block.rows; ++r) {
    context.kernels.add(product.bias.data() + block.output, block.outputs, y + r * y_stride);
  }
}

template <typename Element>
void multiply_many(const CpuContext& context, const Product& product, const Element* x) {
  const int64_t outputs = product.weight.outputs();
  const int64_t output_blocks = blocks_of(outputs, kOutputBlock);
  parallel_each(blocks_of(product.rows, kRowBlock) * output_blocks, [&](int64_t i) {
    const int64_t row = i / output_blocks * kRowBlock;
    const int64_t output = i % output_blocks * kOutputBlock;
    multiply_block(context, product, x,
                   {.row = row,
                    .rows = std::min(kRowBlock, product.rows - row),
                    .output = output,
                    .outputs = std::min(kOutputBlock, outputs - output)});
  });
}

void multiply_many_rounded(const CpuContext& context, const Product& product) {
  const int64_t depth = product.weight.depth();
  auto* rounded = scratch<uint16_t>(ScratchUse::inputs, std::min(product.rows, kRoundedRows) * depth);
  for (int64_t row = 0; row < product.rows; row += kRoundedRows) {
    Product part = product;
    part.x += row * depth;
    part.y += row * product.weight.outputs();
    part.rows = std::min(kRoundedRows, product.rows - row);
    round_rows(context.kernels, part.x, part.rows * depth, rounded);
    multiply_many(context, part, rounded);
  }
}

/// Blocks of 16 x 16 have as many cache lines on either side.
void mirror(const GramProblem& problem, TriangleBlock block) {
  constexpr int64_t kSide = 16;
  const int64_t row_end = std::min(problem.k, (block.row + 1) * kGramBlock);
  const int64_t column_end = std::min(problem.k, (block.column + 1) * kGramBlock);
  for (int64_t top = block.row * kGramBlock; top < row_end; top += kSide) {
    for (int64_t left = block.column * kGramBlock; left < std::min(top + kSide, column_end); left += kSide) {
      for (int64_t row = top; row < std::min(row_end, top + kSide); ++row) {
        for (int64_t column = left; column < std::min({row, column_end, left + kSide}); ++column) {
          problem.gram[column * problem.k + row] = problem.gram[row * problem.k + column];
        }
      }
    }
  }
}

/// Adds the products of `rows` rows to the lower triangle.
template <typename Element>
void accumulate_triangle(const CpuContext& context, const GramProblem& problem, const Element* x,
                         int64_t rows) {
  const int64_t blocks = blocks_of(problem.k, kGramBlock);
  parallel_each(blocks * (blocks + 1) / 2, [&](int64_t i) {
    const TriangleBlock block = triangle_block(i);
    const int64_t row = block.row * kGramBlock;
    const int64_t column = block.column * kGramBlock;
    context.gemm(GemmProblem<Element>{.m = std::min(kGramBlock, problem.k - row),
                                      .n = std::min(kGramBlock, problem.k - column),
                                      .k = rows,
                                      .a = {x + row, problem.k, Transposed::yes},
                                      .b = {x + column, problem.k},
                                      .c = problem.gram + row * problem.k + column,
                                      .c_stride = problem.k,
                                      .accumulate = Accumulate::yes});
  });
}

/// Adds the products of `rows` rows.
template <typename Element>
void accumulate_blocks(const CpuContext& context, const CrossProblem& problem, const Element* a,
                       const Element* b, int64_t rows) {
  const int64_t columns_of_blocks = blocks_of(problem.b_columns, kGramBlock);
  parallel_each(blocks_of(problem.a_columns, kGramBlock) * columns_of_blocks, [&](int64_t i) {
    const int64_t row = i / columns_of_blocks * kGramBlock;
    const int64_t column = i % columns_of_blocks * kGramBlock;
    context.gemm(GemmProblem<Element>{.m = std::min(kGramBlock, problem.a_columns - row),
                                      .n = std::min(kGramBlock, problem.b_columns - column),
                                      .k = rows,
                                      .a = {a + row, problem.a_columns, Transposed::yes},
                                      .b = {b + column, problem.b_columns},
                                      .c = problem.result + row * problem.b_columns + column,
                                      .c_stride = problem.b_columns,
                                      .accumulate = Accumulate::yes});
  });
}

}  // namespace

bool RowWeight::joins(const WeightSource& other) const {
  return dynamic_cast<const RowWeight*>(&other) != nullptr && other.depth() == depth();
}

void RowWeight::multiply_directly(const CpuContext& context, std::span<const Product> products) const {
  const auto weight_of = [&](size_t i) -> const RowWeight& {
    return static_cast<const RowWeight&>(products[i].weight);  // for they join
  };
  // Pieces of about 64 KiB of weights: a few microseconds of memory traffic.
  const auto outputs_of_piece = [](const RowWeight& weight) {
    const auto rows = static_cast<int64_t>((size_t{1} << 16) / std::max<size_t>(1, weight.row_bytes()));
    return std::max<int64_t>(4, rows / 4 * 4);
  };
  PieceCount pieces;
  for (size_t i = 0; i < products.size(); ++i)
    pieces.add(blocks_of(products[i].weight.outputs(), outputs_of_piece(weight_of(i))));
  parallel_each(pieces.all(), [&](int64_t index) {
    const auto [i, piece] = pieces.at(index);
    const Product& product = products[i];
    const RowWeight& weight = weight_of(i);
    const int64_t step = outputs_of_piece(weight);
    weight.multiply_few_rows(context.kernels, {.x = product.x,
                                               .rows = product.rows,
                                               .bias = product.bias.empty() ? nullptr : product.bias.data(),
                                               .y = product.y,
                                               .y_stride = weight.outputs(),
                                               .begin = piece * step,
                                               .end = std::min(weight.outputs(), (piece + 1) * step)});
  });
}

TriangleBlock triangle_block(int64_t index) {
  TriangleBlock block;
  while (index > block.row) index -= ++block.row;
  block.column = index;
  return block;
}

namespace {

/// Whether a product goes to the kernels.
bool is_direct(const Product& product) {
  const bool in_integers = product.activations != ActivationMode::fp32 && product.weight.takes_integers();
  // Few rows of a packed weight are the rest of a batch in slices, of which they must not show.
  return in_integers || (product.rows <= kFewRows && product.packed == nullptr);
}

bool is_one_product(const Product& first, const Product& next) {
  return is_direct(first) && is_direct(next) && next.weight.outputs() > 0 && first.weight.joins(next.weight);
}

}  // namespace

void multiply_together(const CpuContext& context, std::span<const Product> products) {
  for (size_t begin = 0; begin < products.size();) {
    size_t end = begin + 1;
    while (end < products.size() && is_one_product(products[begin], products[end])) ++end;
    if (end == begin + 1) {
      multiply(context, products[begin]);
    } else if (products[begin].rows > 0) {
      products[begin].weight.multiply_directly(context, products.subspan(begin, end - begin));
    }
    begin = end;
  }
}

void multiply(const CpuContext& context, const Product& product) {
  if (product.rows == 0 || product.weight.outputs() == 0) return;
  if (is_direct(product)) return product.weight.multiply_directly(context, {&product, 1});
  if (product.precision == MatmulPrecision::f32) return multiply_many(context, product, product.x);
  if (context.tiles != nullptr) return multiply_in_tiles(context, product);
  multiply_many_rounded(context, product);
}

void accumulate_product(const CpuContext& context, const CrossProblem& problem) {
  if (problem.rows == 0) return;
  if (problem.precision == MatmulPrecision::f32) {
    return accumulate_blocks(context, problem, problem.a, problem.b, problem.rows);
  }
  if (context.tiles != nullptr) return accumulate_product_in_tiles(*context.tiles, problem);
  const int64_t most = std::min(problem.rows, kRoundedRows);
  auto* a = scratch<uint16_t>(ScratchUse::inputs, most * (problem.a_columns + problem.b_columns));
  auto* b = a + most * problem.a_columns;
  for (int64_t row = 0; row < problem.rows; row += kRoundedRows) {
    const int64_t rows = std::min(kRoundedRows, problem.rows - row);
    round_rows(context.kernels, problem.a + row * problem.a_columns, rows * problem.a_columns, a);
    round_rows(context.kernels, problem.b + row * problem.b_columns, rows * problem.b_columns, b);
    accumulate_blocks(context, problem, a, b, rows);
  }
}

void accumulate_gram(const CpuContext& context, const GramProblem& problem) {
  if (problem.rows == 0) return;
  if (problem.precision == MatmulPrecision::f32) {
    accumulate_triangle(context, problem, problem.x, problem.rows);
  } else if (context.tiles != nullptr) {
    accumulate_gram_in_tiles(*context.tiles, problem);
  } else {
    auto* rounded = scratch<uint16_t>(ScratchUse::inputs, std::min(problem.rows, kRoundedRows) * problem.k);
    for (int64_t row = 0; row < problem.rows; row += kRoundedRows) {
      const int64_t rows = std::min(kRoundedRows, problem.rows - row);
      round_rows(context.kernels, problem.x + row * problem.k, rows * problem.k, rounded);
      accumulate_triangle(context, problem, rounded, rows);
    }
  }
  const int64_t blocks = blocks_of(problem.k, kGramBlock);
  parallel_each(blocks * (blocks + 1) / 2, [&](int64_t i) { mirror(problem, triangle_block(i)); });
}

// The blocks of S below the diagonal count twice, those on it once.
void quadratic_form_rows(const CpuContext& context, const QuadraticFormProblem& problem, int64_t row,
                         int64_t rows) {
  const int64_t k = problem.k;
  const float* x = problem.x + row * k;
  double* result = problem.result + row;
  std::fill_n(result, rows, 0.0);
  auto* product = scratch<float>(ScratchUse::mixed, rows * kFormColumns);
  for (int64_t column = 0; column < k; column += kFormColumns) {
    const int64_t columns = std::min(kFormColumns, k - column);
    const auto add = [&](int64_t from, int64_t depth, double times) {
      context.gemm(GemmProblem<float>{.m = rows,
                                      .n = columns,
                                      .k = depth,
                                      .a = {x + from, k},
                                      .b = {problem.symmetric + column * k + from, k, Transposed::yes},
                                      .c = product,
                                      .c_stride = columns});
      for (int64_t r = 0; r < rows; ++r) {
        result[r] +=
            times * context.kernels.inner_product(product + r * columns, x + r * k + column, columns);
      }
    };
    if (column > 0) add(0, column, 2);
    add(column, columns, 1);
  }
}

void quadratic_form(const CpuContext& context, const QuadraticFormProblem& problem) {
  parallel_each(blocks_of(problem.rows, kFormRows), [&](int64_t i) {
    const int64_t row = i * kFormRows;
    quadratic_form_rows(context, problem, row, std::min(kFormRows, problem.rows - row));
  });
}

}  // namespace salient
