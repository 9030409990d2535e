#include "backend/cpu/rounding_loss.h"

#include <limits>

#include "backend/cpu/scratch.h"
#include "backend/cpu/tile_product.h"
#include "base/parallel.h"
#include "quant/scheme.h"

namespace salient {
namespace {

// Rows at a time: f32 products multiply half of the symmetric G in narrow blocks, which bf16 products are too
// quick for.
constexpr int64_t kExactRows = 96;
constexpr int64_t kRoundedRows = 256;
constexpr int64_t kRoundedColumns = 512;
/// Values rounded to bf16 at a time by one thread.
constexpr size_t kGrain = size_t{1} << 16;

/// Makes rows of D = Q(W s) / s - W.
class ErrorRows {
 public:
  ErrorRows(const CpuKernels& kernels, const RoundingLossProblem& problem)
      : kernels_(kernels),
        problem_(problem),
        columns_(problem.weight.dim(1)),
        width_(group_width(problem.rule.scheme, columns_)),
        top_(static_cast<float>(max_code(problem.rule.scheme))) {}

  /// `row` counts among those that count; out: [in].
  void make(int64_t row, float* out) const {
    const int64_t at = row * problem_.row_step;
    const float* weight = problem_.weight.values<float>().data() + at * columns_;
    const float* scales = problem_.column_scales.data();
    const float* source = weight;
    if (!problem_.column_scales.empty()) {
      kernels_.multiply(weight, scales, columns_, out);
      source = out;
    }
    const int64_t groups = (columns_ + width_ - 1) / width_;
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t begin = group * width_;
      round_group(source + begin, std::min(width_, columns_ - begin), bound_of(at * groups + group),
                  out + begin);
    }
    if (!problem_.column_scales.empty()) return kernels_.scaled_difference(scales, weight, columns_, out);
    for (int64_t c = 0; c < columns_; ++c) out[c] -= weight[c];
  }

 private:
  float bound_of(int64_t group) const {
    if (!problem_.clip.defined()) return std::numeric_limits<float>::infinity();
    return problem_.clip.values<float>()[static_cast<size_t>(group)];
  }

  void round_group(const float* x, int64_t count, float bound, float* out) const {
    const GroupGrid grid = grid_of(x, count, bound);
    kernels_.round_to_grid({.x = x,
                            .count = count,
                            .scale = grid.scale,
                            .zero = static_cast<float>(grid.zero),
                            .top = top_,
                            .bound = bound,
                            .out = out});
  }

  GroupGrid grid_of(const float* x, int64_t count, float bound) const {
    if (problem_.rule.grid) return *problem_.rule.grid;
    float least = 0;
    float largest = 0;
    kernels_.extremes(x, count, &least, &largest);
    return make_group_grid(problem_.rule.scheme, problem_.rule.scale_dtype, std::max(least, -bound),
                           std::min(largest, bound));
  }

  const CpuKernels& kernels_;
  const RoundingLossProblem& problem_;
  int64_t columns_;
  int64_t width_;
  float top_;
};

/// Runs body(first row, rows) on blocks of the rows that count.
template <typename Body>
void for_row_blocks(const RoundingLossProblem& problem, int64_t rows_per_block, const Body& body) {
  parallel_for(static_cast<size_t>(rows_that_count(problem)), static_cast<size_t>(rows_per_block),
               [&](size_t begin, size_t end) {
                 body(static_cast<int64_t>(begin), static_cast<int64_t>(end - begin));
               });
}

/// G in bf16, in the scratch memory of the calling thread.
const uint16_t* rounded_gram(const CpuContext& context, const Tensor& gram) {
  auto* rounded = scratch<uint16_t>(ScratchUse::inputs, gram.element_count());
  const float* values = gram.values<float>().data();
  parallel_for(static_cast<size_t>(gram.element_count()), kGrain, [&](size_t begin, size_t end) {
    context.kernels.narrow_bf16(values + begin, static_cast<int64_t>(end - begin), rounded + begin);
  });
  return rounded;
}

PackedMatrix packed_gram(const TileKernels& kernels, const Tensor& gram) {
  const int64_t k = gram.dim(0);
  auto* packed = scratch<uint16_t>(ScratchUse::inputs, packed_elements(k, k));
  return pack_right_in_parallel(kernels, gram.values<float>().data(), k, k, packed);
}

/// One block of rows against all of G: its blocks below the diagonal count twice.
void rounded_form(const CpuContext& context, const float* errors, int64_t rows, int64_t k,
                  const uint16_t* gram, double* result) {
  auto* rounded = scratch<uint16_t>(ScratchUse::rounded_weights, rows * k);
  context.kernels.narrow_bf16(errors, rows * k, rounded);
  auto* product = scratch<float>(ScratchUse::mixed, rows * kRoundedColumns);
  std::fill_n(result, rows, 0.0);
  for (int64_t column = 0; column < k; column += kRoundedColumns) {
    const int64_t columns = std::min(kRoundedColumns, k - column);
    const auto add = [&](int64_t from, int64_t depth, double times) {
      context.gemm(GemmProblem<uint16_t>{.m = rows,
                                         .n = columns,
                                         .k = depth,
                                         .a = {rounded + from, k},
                                         .b = {gram + from * k + column, k},
                                         .c = product,
                                         .c_stride = columns});
      for (int64_t r = 0; r < rows; ++r) {
        result[r] +=
            times * context.kernels.inner_product(product + r * columns, errors + r * k + column, columns);
      }
    };
    if (column > 0) add(0, column, 2);
    add(column, columns, 1);
  }
}

/// The same with G packed as a right operand.
void tiled_form(const CpuContext& context, const float* errors, int64_t rows, int64_t k,
                const PackedMatrix& gram, double* result) {
  const int64_t stride = depth_tiles(k) * kTileElements;
  auto* left = scratch<uint16_t>(ScratchUse::rounded_weights, packed_elements(rows, k));
  context.tiles->pack_left({errors, k, rows, k, left, stride});
  const PackedMatrix packed{left, stride};
  auto* product = scratch<float>(ScratchUse::mixed, rows * kRoundedColumns);
  std::fill_n(result, rows, 0.0);
  for (int64_t column = 0; column < k; column += kRoundedColumns) {
    const int64_t columns = std::min(kRoundedColumns, k - column);
    const auto add = [&](int64_t from, int64_t depth, double times) {
      context.tiles->multiply({.left = packed.at(0, from),
                               .left_stride = stride,
                               .right = gram.at(column, from),
                               .right_stride = gram.panel_stride,
                               .tiles = depth_tiles(depth),
                               .rows = rows,
                               .columns = columns,
                               .out = product,
                               .out_stride = columns,
                               .accumulate = 0});
      for (int64_t r = 0; r < rows; ++r) {
        result[r] +=
            times * context.kernels.inner_product(product + r * columns, errors + r * k + column, columns);
      }
    };
    if (column > 0) add(0, column, 2);
    add(column, columns, 1);
  }
}

}  // namespace

void rounding_loss(const CpuContext& context, const RoundingLossProblem& problem, std::span<double> result) {
  const ErrorRows error_rows(context.kernels, problem);
  const int64_t k = problem.weight.dim(1);
  const bool rounded = problem.precision == MatmulPrecision::bf16;
  const bool tiled = rounded && context.tiles != nullptr;
  const uint16_t* gram = rounded && !tiled ? rounded_gram(context, problem.gram) : nullptr;
  const PackedMatrix packed = tiled ? packed_gram(*context.tiles, problem.gram) : PackedMatrix{};
  for_row_blocks(problem, rounded ? kRoundedRows : kExactRows, [&](int64_t row, int64_t rows) {
    auto* errors = scratch<float>(ScratchUse::weights, rows * k);
    for (int64_t r = 0; r < rows; ++r) error_rows.make(row + r, errors + r * k);
    if (tiled) return tiled_form(context, errors, rows, k, packed, result.data() + row);
    if (rounded) return rounded_form(context, errors, rows, k, gram, result.data() + row);
    const QuadraticFormProblem form{.x = errors,
                                    .rows = rows,
                                    .k = k,
                                    .symmetric = problem.gram.values<float>().data(),
                                    .result = result.data() + row};
    quadratic_form_rows(context, form, 0, rows);
  });
}

void rounding_loss_by_group(const CpuContext& context, const RoundingLossProblem& problem,
                            std::span<double> result) {
  if (has_one_group_per_row(problem.rule.scheme)) {
    RoundingLossProblem exact = problem;
    exact.precision = MatmulPrecision::f32;
    return rounding_loss(context, exact, result);
  }
  const ErrorRows error_rows(context.kernels, problem);
  const int64_t k = problem.weight.dim(1);
  const int64_t width = group_width(problem.rule.scheme, k);
  const int64_t groups = group_count(problem.rule.scheme, k);
  const float* gram = problem.gram.values<float>().data();
  for_row_blocks(problem, kExactRows, [&](int64_t row, int64_t rows) {
    auto* errors = scratch<float>(ScratchUse::weights, rows * k);
    for (int64_t r = 0; r < rows; ++r) error_rows.make(row + r, errors + r * k);
    auto* product = scratch<float>(ScratchUse::mixed, rows * width);
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t begin = group * width;
      const int64_t columns = std::min(width, k - begin);
      context.gemm(GemmProblem<float>{.m = rows,
                                      .n = columns,
                                      .k = columns,
                                      .a = {errors + begin, k},
                                      .b = {gram + begin * k + begin, k},
                                      .c = product,
                                      .c_stride = columns});
      for (int64_t r = 0; r < rows; ++r) {
        result[static_cast<size_t>((row + r) * groups + group)] =
            context.kernels.inner_product(product + r * columns, errors + r * k + begin, columns);
      }
    }
  });
}

}  // namespace salient
