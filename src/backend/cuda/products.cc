#include "backend/cuda/products.h"

#include "backend/backend.h"
#include "backend/cuda/launch.h"

namespace salient::cuda {
namespace {

bool on(const void* address, uintptr_t bytes) { return reinterpret_cast<uintptr_t>(address) % bytes == 0; }

/// Whether rows of `columns` elements may be read by 16 bytes.
bool by_16_bytes(const ProductOperand& operand, int64_t columns) {
  return on(operand.data, 16) && operand.stride % 4 == 0 && columns % 4 == 0;
}

/// Whether the tensor cores' kernels take it.
bool is_regular(const DenseProduct& p) {
  return by_16_bytes(p.a, p.a_layout == Layout::plain ? p.k : p.m) &&
         by_16_bytes(p.b, p.b_layout == Layout::plain ? p.n : p.k) && on(p.c, 8) && p.c_stride % 2 == 0 &&
         p.n % 2 == 0;
}

void multiply_plain(Device& device, const DenseProduct& p) {
  const bool a_plain = p.a_layout == Layout::plain;
  const bool b_plain = p.b_layout == Layout::plain;
  const PlainProductArguments arguments{.a = p.a.data,
                                        .a_row = a_plain ? p.a.stride : 1,
                                        .a_depth = a_plain ? 1 : p.a.stride,
                                        .b = p.b.data,
                                        .b_depth = b_plain ? p.b.stride : 1,
                                        .b_column = b_plain ? 1 : p.b.stride,
                                        .c = p.c,
                                        .c_stride = p.c_stride,
                                        .m = static_cast<int>(p.m),
                                        .n = static_cast<int>(p.n),
                                        .k = static_cast<int>(p.k),
                                        .use = p.use,
                                        .part = p.part};
  launch(device, kPlainProduct, {.x = blocks_for(p.m * p.n, kProductThreads)}, arguments);
}

const Kernel& kernel_for(const DenseProduct& p, MatmulPrecision precision) {
  const bool rounded = precision == MatmulPrecision::bf16;
  if (p.a_layout == Layout::transposed) return rounded ? kRoundedProductOfColumns : kProductOfColumns;
  return p.b_layout == Layout::plain ? kProductOfRowsAndColumns : kProductOfRows;
}

void multiply_in(MatmulPrecision precision, Device& device, const DenseProduct& p) {
  if (p.m == 0 || p.n == 0) return;
  const bool both_transposed = p.a_layout == Layout::transposed && p.b_layout == Layout::transposed;
  if (both_transposed || !is_regular(p)) return multiply_plain(device, p);
  const ProductArguments arguments{.a = p.a,
                                   .b = p.b,
                                   .c = p.c,
                                   .c_stride = p.c_stride,
                                   .m = static_cast<int>(p.m),
                                   .n = static_cast<int>(p.n),
                                   .k = static_cast<int>(p.k),
                                   .use = p.use,
                                   .part = p.part};
  const Grid grid{.x = blocks_for(p.n, kProductTile), .y = blocks_for(p.m, kProductTile)};
  launch(device, kernel_for(p, precision), grid, arguments,
         product_shared_bytes(precision == MatmulPrecision::bf16 ? 1 : kExactPlanes));
}

void accumulate(Device& device, const ProductSum& problem, ProductPart part) {
  multiply_in(problem.precision, device,
              {.a = {problem.a, problem.a_columns},
               .a_layout = Layout::transposed,
               .b = {problem.b, problem.b_columns},
               .c = problem.result,
               .c_stride = problem.b_columns,
               .m = problem.a_columns,
               .n = problem.b_columns,
               .k = problem.rows,
               .use = ProductUse::add,
               .part = part});
}

void form_plain(Device& device, const QuadraticForm& problem, int64_t groups) {
  const PlainFormArguments arguments{.x = problem.x,
                                     .symmetric = problem.symmetric,
                                     .result = problem.result,
                                     .columns = static_cast<int>(problem.columns),
                                     .group_width = static_cast<int>(problem.group_width),
                                     .groups = static_cast<int>(groups)};
  launch(device, kPlainForm, {.x = blocks_for(problem.rows * groups, 1)}, arguments,
         kProductThreads * sizeof(double));
}

bool is_power_of_two(int64_t value) { return value > 0 && (value & (value - 1)) == 0; }

bool is_regular(const QuadraticForm& problem) {
  return by_16_bytes({problem.x, problem.columns}, problem.columns) && on(problem.symmetric, 16) &&
         (problem.group_width >= problem.columns ||
          (problem.group_width >= kSegment && is_power_of_two(problem.group_width)));
}

int64_t segments_of(int64_t columns) { return (columns + kSegment - 1) / kSegment; }

}  // namespace

void multiply(Device& device, const DenseProduct& problem) {
  multiply_in(MatmulPrecision::f32, device, problem);
}

void accumulate_gram(Device& device, const GramSum& problem) {
  accumulate(device,
             {.a = problem.x,
              .b = problem.x,
              .rows = problem.rows,
              .a_columns = problem.k,
              .b_columns = problem.k,
              .precision = problem.precision,
              .result = problem.gram},
             ProductPart::mirrored);
}

void accumulate_product(Device& device, const ProductSum& problem) {
  accumulate(device, problem, ProductPart::all);
}

size_t form_workspace_bytes(int64_t rows, int64_t columns) {
  return static_cast<size_t>(rows * segments_of(columns)) * sizeof(float);
}

void quadratic_form(Device& device, const QuadraticForm& problem) {
  if (problem.rows == 0) return;
  const int64_t groups = (problem.columns + problem.group_width - 1) / problem.group_width;
  if (!is_regular(problem)) return form_plain(device, problem, groups);
  const bool rounded = problem.precision == MatmulPrecision::bf16;
  const auto segments = static_cast<int>(segments_of(problem.columns));
  const FormArguments arguments{.x = problem.x,
                                .symmetric = problem.symmetric,
                                .sums = problem.workspace,
                                .rows = static_cast<int>(problem.rows),
                                .columns = static_cast<int>(problem.columns),
                                .group_width = static_cast<int>(problem.group_width),
                                .segments = segments};
  const Grid grid{.x = blocks_for(problem.columns, kProductTile),
                  .y = blocks_for(problem.rows, kProductTile)};
  launch(device, rounded ? kRoundedForm : kForm, grid, arguments,
         product_shared_bytes(rounded ? 1 : kExactPlanes));
  const SumArguments sums{
      .sums = problem.workspace,
      .result = problem.result,
      .rows = problem.rows,
      .groups = static_cast<int>(groups),
      .segments = segments,
      .segments_per_group = groups == 1 ? segments : static_cast<int>(problem.group_width / kSegment)};
  launch(device, kSumSegments, {.x = blocks_for(problem.rows, kProductThreads / 32)}, sums,
         kProductThreads * sizeof(double));
}

}  // namespace salient::cuda
