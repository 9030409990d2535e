#include "backend/cuda/factor.h"

#include <algorithm>

#include "backend/cuda/launch.h"
#include "backend/cuda/products.h"
#include "backend/cuda/workspace_parts.h"

namespace salient::cuda {
namespace {

constexpr int64_t kInverseElements = int64_t{kFactorBlock} * kFactorBlock;

/// Products are made for rows of a multiple of 4: others are padded with those of the unit matrix.
int64_t padded(int64_t k) { return (k + 3) / 4 * 4; }
int64_t blocks_of(int64_t k) { return (k + kFactorBlock - 1) / kFactorBlock; }

/// Blocks are multiplied in place, which only kernels for such operands may do.
void require_aligned(const void* matrix) {
  if (reinterpret_cast<uintptr_t>(matrix) % 16 != 0)
    fail(ErrorKind::internal, "cuda: a matrix for factoring does not stand on 16 bytes");
}

void copy_padded(Device& device, const PadArguments& arguments) {
  launch(device, kPadMatrix, {.x = blocks_for(arguments.rows * arguments.columns, kFactorThreads)},
         arguments);
}

/// The matrix itself, or its padded copy in `parts`.
float* padded_copy(Device& device, float* matrix, int64_t rows, int64_t k, int64_t padded_rows,
                   WorkspaceParts& parts) {
  if (k == padded(k)) return matrix;
  float* copy = parts.next<float>(padded_rows * padded(k));
  copy_padded(device, {.from = matrix,
                       .to = copy,
                       .from_stride = k,
                       .from_rows = rows,
                       .from_columns = k,
                       .rows = padded_rows,
                       .columns = padded(k)});
  return copy;
}

void copy_back(Device& device, const float* copy, int64_t rows, int64_t k, float* matrix) {
  if (copy == matrix) return;
  copy_padded(device, {.from = copy,
                       .to = matrix,
                       .from_stride = padded(k),
                       .from_rows = rows,
                       .from_columns = k,
                       .rows = rows,
                       .columns = k});
}

/// S = R R^T for S [k, k], k a multiple of 4, from the last column to the first: each block of columns is
/// final when it is reached, and what is before it loses its product with itself.
class Factor {
 public:
  /// Keeps the inverse of each diagonal block, or one that all use in turn. Takes its memory from `parts`.
  Factor(Device& device, float* symmetric, int64_t k, bool keeps_inverses, WorkspaceParts& parts)
      : device_(device),
        k_(padded(k)),
        keeps_inverses_(keeps_inverses),
        reciprocals_(parts.next<float>(k_)),
        inverses_(parts.next<float>((keeps_inverses ? blocks_of(k_) : 1) * kInverseElements)),
        failures_(parts.next<uint32_t>(1)),
        matrix_(padded_copy(device, symmetric, k, k, k_, parts)) {}

  bool run() {
    device_.fill_zero(failures_, sizeof(uint32_t));
    for (int64_t block = blocks_of(k_) - 1; block >= 0; --block) {
      const int64_t begin = block * kFactorBlock;
      const int64_t size = std::min<int64_t>(kFactorBlock, k_ - begin);
      factor_diagonal(begin, size);
      solve_above(begin, size);
      subtract_square(begin, size);
    }
    uint32_t failures = 0;
    device_.copy_out(&failures, failures_, sizeof(failures));
    return failures == 0;
  }
  const float* matrix() const { return matrix_; }
  void divide_by_diagonal() {
    launch(device_, kUnitTriangle, {.x = blocks_for(k_ * k_, kFactorThreads)},
           UnitArguments{.matrix = matrix_, .k = k_, .reciprocals = reciprocals_});
  }
  /// values [rows, k] := values S^-1, by X R^T = values and Y R = X.
  void solve(float* values, int64_t rows) {
    for (int64_t block = blocks_of(k_) - 1; block >= 0; --block) solve_transposed(values, rows, block);
    for (int64_t block = 0; block < blocks_of(k_); ++block) solve_plain(values, rows, block);
  }

 private:
  float* at(int64_t row, int64_t column) const { return matrix_ + row * k_ + column; }
  float* inverse_of(int64_t begin) const {
    return inverses_ + (keeps_inverses_ ? begin / kFactorBlock * kInverseElements : 0);
  }

  void factor_diagonal(int64_t begin, int64_t size) {
    launch(device_, kFactorDiagonal, {},
           FactorBlockArguments{.matrix = matrix_,
                                .k = k_,
                                .begin = static_cast<int>(begin),
                                .size = static_cast<int>(size),
                                .inverse = inverse_of(begin),
                                .reciprocals = reciprocals_,
                                .failures = failures_},
           kFactorSharedBytes);
  }
  /// Columns of a block in place: a block of the product reads all of its rows before it writes them.
  void multiply_in_place(float* values, int64_t rows, int64_t size, const ProductOperand& right,
                         Layout layout) {
    static_assert(kFactorBlock <= kProductTile);
    multiply(device_, {.a = {values, k_},
                       .b = right,
                       .b_layout = layout,
                       .c = values,
                       .c_stride = k_,
                       .m = rows,
                       .n = size,
                       .k = size});
  }
  void solve_above(int64_t begin, int64_t size) {
    multiply_in_place(at(0, begin), begin, size, {inverse_of(begin), kFactorBlock}, Layout::transposed);
  }
  void subtract_square(int64_t begin, int64_t size) {
    multiply(device_, {.a = {at(0, begin), k_},
                       .b = {at(0, begin), k_},
                       .b_layout = Layout::transposed,
                       .c = matrix_,
                       .c_stride = k_,
                       .m = begin,
                       .n = begin,
                       .k = size,
                       .use = ProductUse::subtract,
                       .part = ProductPart::upper});
  }
  void solve_transposed(float* values, int64_t rows, int64_t block) {
    const int64_t begin = block * kFactorBlock;
    const int64_t size = std::min<int64_t>(kFactorBlock, k_ - begin);
    multiply_in_place(values + begin, rows, size, {inverse_of(begin), kFactorBlock}, Layout::transposed);
    multiply(device_, {.a = {values + begin, k_},
                       .b = {at(0, begin), k_},
                       .b_layout = Layout::transposed,
                       .c = values,
                       .c_stride = k_,
                       .m = rows,
                       .n = begin,
                       .k = size,
                       .use = ProductUse::subtract});
  }
  void solve_plain(float* values, int64_t rows, int64_t block) {
    const int64_t begin = block * kFactorBlock;
    const int64_t size = std::min<int64_t>(kFactorBlock, k_ - begin);
    const int64_t end = begin + size;
    multiply_in_place(values + begin, rows, size, {inverse_of(begin), kFactorBlock}, Layout::plain);
    multiply(device_, {.a = {values + begin, k_},
                       .b = {at(begin, end), k_},
                       .c = values + end,
                       .c_stride = k_,
                       .m = rows,
                       .n = k_ - end,
                       .k = size,
                       .use = ProductUse::subtract});
  }

  Device& device_;
  int64_t k_;  // padded
  bool keeps_inverses_;
  float* reciprocals_;  // [k]
  float* inverses_;
  uint32_t* failures_;
  float* matrix_;
};

int64_t square_elements(int64_t k) { return k == padded(k) ? 0 : padded(k) * padded(k); }

}  // namespace

size_t factorization_bytes(int64_t k) {
  return static_cast<size_t>(padded(k) + kInverseElements + 4 + square_elements(k)) * sizeof(float);
}

bool factorize(Device& device, const Factorization& problem) {
  require_aligned(problem.symmetric);
  WorkspaceParts parts(problem.workspace);
  Factor factor(device, problem.symmetric, problem.k, false, parts);
  if (!factor.run()) return false;
  factor.divide_by_diagonal();
  copy_back(device, factor.matrix(), problem.k, problem.k, problem.symmetric);
  return true;
}

size_t solution_bytes(int64_t rows, int64_t k) {
  const int64_t values = k == padded(k) ? 0 : padded(rows * padded(k));
  return static_cast<size_t>(padded(k) + blocks_of(padded(k)) * kInverseElements + 4 + square_elements(k) +
                             values) *
         sizeof(float);
}

bool solve(Device& device, const Solution& problem) {
  require_aligned(problem.symmetric);
  require_aligned(problem.values);
  WorkspaceParts parts(problem.workspace);
  Factor factor(device, problem.symmetric, problem.k, true, parts);
  if (!factor.run()) return false;
  float* values = padded_copy(device, problem.values, problem.rows, problem.k, problem.rows, parts);
  factor.solve(values, problem.rows);
  copy_back(device, values, problem.rows, problem.k, problem.values);
  return true;
}

}  // namespace salient::cuda
