#include "backend/cpu/factor.h"

#include <algorithm>
#include <cmath>

#include "backend/cpu/scratch.h"
#include "base/parallel.h"

namespace salient {
namespace {

constexpr int64_t kBlock = 64;
constexpr int64_t kRowsPerPiece = 128;

/// Factors S = U D U^T from the last column to the first: U is found block column by block column, each from
/// those on its right, which are final by then (Golub & Van Loan, section 4.2, the blocked Cholesky with the
/// order of the columns reversed). While a block column is at work it holds R = U sqrt(D).
class UpperFactor {
 public:
  UpperFactor(const CpuContext& context, int64_t k, float* matrix)
      : context_(context), k_(k), matrix_(matrix) {}

  bool run() {
    if (!factor()) return false;
    divide_by_diagonal();
    return true;
  }

  /// `values` [rows, k] := values S^-1.
  bool solve(int64_t rows, float* values) {
    if (!factor()) return false;
    for_rows(rows, [&](int64_t first, int64_t count) {
      float* piece = values + first * k_;
      for (int64_t end = k_; end > 0; end -= block_before(end)) {
        solve_transposed(piece, count, end - block_before(end), end);
      }
      for (int64_t begin = 0; begin < k_; begin += kBlock) {
        solve_plain(piece, count, begin, std::min(k_, begin + kBlock));
      }
    });
    return true;
  }

 private:
  /// Columns of the block that ends at `end`, when blocks are taken from the last column on.
  static int64_t block_before(int64_t end) { return std::min(kBlock, end); }

  /// S = R R^T.
  bool factor() {
    for (int64_t end = k_; end > 0; end -= std::min(kBlock, end)) {
      const int64_t begin = end - std::min(kBlock, end);
      subtract_right(begin, end);
      if (!factor_diagonal(begin, end)) return false;
      solve_above(begin, end);
    }
    return true;
  }

  /// X R^T = values for the columns [begin, end), those behind them being done.
  void solve_transposed(float* values, int64_t rows, int64_t begin, int64_t end) const {
    subtract_product({values + end, k_}, {at(begin, end), k_, Transposed::yes}, k_ - end, values + begin,
                     rows, end - begin);
    for (int64_t r = 0; r < rows; ++r) {
      float* row = values + r * k_;
      for (int64_t column = end - 1; column >= begin; --column) {
        const double known =
            context_.kernels.inner_product(row + column + 1, at(column, column + 1), end - column - 1);
        row[column] = static_cast<float>((double{row[column]} - known) / double{*at(column, column)});
      }
    }
  }

  /// X R = values for the columns [begin, end), those before them being done.
  void solve_plain(float* values, int64_t rows, int64_t begin, int64_t end) const {
    subtract_product({values, k_}, {at(0, begin), k_}, begin, values + begin, rows, end - begin);
    for (int64_t r = 0; r < rows; ++r) {
      float* row = values + r * k_;
      for (int64_t column = begin; column < end; ++column) {
        row[column] /= *at(column, column);
        const float* factors = at(column, 0);
        for (int64_t c = column + 1; c < end; ++c) row[c] -= row[column] * factors[c];
      }
    }
  }

  /// out [rows, columns], rows k apart, -= a b.
  void subtract_product(const GemmOperand<float>& a, const GemmOperand<float>& b, int64_t depth, float* out,
                        int64_t rows, int64_t columns) const {
    if (depth == 0) return;
    auto* product = scratch<float>(ScratchUse::mixed, rows * columns);
    context_.gemm(GemmProblem<float>{
        .m = rows, .n = columns, .k = depth, .a = a, .b = b, .c = product, .c_stride = columns});
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) out[r * k_ + c] -= product[r * columns + c];
    }
  }

  float* at(int64_t row, int64_t column) const { return matrix_ + row * k_ + column; }

  /// Runs body(first row, rows) over the rows [0, end).
  template <typename Body>
  void for_rows(int64_t end, const Body& body) const {
    parallel_for(static_cast<size_t>(end), kRowsPerPiece, [&](size_t from, size_t to) {
      body(static_cast<int64_t>(from), static_cast<int64_t>(to - from));
    });
  }

  /// S[0:end, begin:end) -= R[0:end, end:k) R[begin:end, end:k)^T
  void subtract_right(int64_t begin, int64_t end) const {
    if (end == k_) return;
    const int64_t columns = end - begin;
    for_rows(end, [&](int64_t row, int64_t rows) {
      subtract_product({at(row, end), k_}, {at(begin, end), k_, Transposed::yes}, k_ - end, at(row, begin),
                       rows, columns);
    });
  }

  /// The square block on the diagonal: R R^T of itself, sums in double.
  bool factor_diagonal(int64_t begin, int64_t end) const {
    for (int64_t column = end - 1; column >= begin; --column) {
      double pivot = double{*at(column, column)};
      for (int64_t j = column + 1; j < end; ++j) pivot -= double{*at(column, j)} * double{*at(column, j)};
      if (!(pivot > 0) || !std::isfinite(pivot)) return false;
      const double root = std::sqrt(pivot);
      *at(column, column) = static_cast<float>(root);
      for (int64_t row = begin; row < column; ++row) {
        double value = double{*at(row, column)};
        for (int64_t j = column + 1; j < end; ++j) value -= double{*at(row, j)} * double{*at(column, j)};
        *at(row, column) = static_cast<float>(value / root);
      }
    }
    return true;
  }

  /// The rows above the block, X R^T = S with R the block on the diagonal, through its inverse.
  void solve_above(int64_t begin, int64_t end) const {
    const int64_t columns = end - begin;
    const std::vector<float> inverse = inverse_of_block(begin, columns);
    for_rows(begin, [&](int64_t first, int64_t rows) {
      auto* right = scratch<float>(ScratchUse::mixed, rows * columns);
      for (int64_t row = 0; row < rows; ++row) {
        std::copy_n(at(first + row, begin), columns, right + row * columns);
      }
      context_.gemm(GemmProblem<float>{.m = rows,
                                       .n = columns,
                                       .k = columns,
                                       .a = {right, columns},
                                       .b = {inverse.data(), columns, Transposed::yes},
                                       .c = at(first, begin),
                                       .c_stride = k_});
    });
  }

  /// R^-1 [size, size] of the block that begins at (begin, begin), row by row from the last on, sums in
  /// double.
  std::vector<float> inverse_of_block(int64_t begin, int64_t size) const {
    std::vector<double> inverse(static_cast<size_t>(size * size), 0.0);
    const auto row_of = [&](int64_t row) { return inverse.data() + row * size; };
    for (int64_t row = size - 1; row >= 0; --row) {
      const float* factors = at(begin + row, begin);
      double* sums = row_of(row);
      for (int64_t j = row + 1; j < size; ++j) {
        for (int64_t c = j; c < size; ++c) sums[c] -= double{factors[j]} * row_of(j)[c];
      }
      const double pivot = double{factors[row]};
      for (int64_t c = row + 1; c < size; ++c) sums[c] /= pivot;
      sums[row] = 1 / pivot;
    }
    return {inverse.begin(), inverse.end()};
  }

  void divide_by_diagonal() const {
    std::vector<float> inverse(static_cast<size_t>(k_));
    for (int64_t i = 0; i < k_; ++i) inverse[static_cast<size_t>(i)] = 1.0f / *at(i, i);
    for_rows(k_, [&](int64_t first, int64_t rows) {
      for (int64_t row = first; row < first + rows; ++row) {
        *at(row, row) = 1.0f;
        for (int64_t column = row + 1; column < k_; ++column)
          *at(row, column) *= inverse[static_cast<size_t>(column)];
      }
    });
  }

  const CpuContext& context_;
  int64_t k_;
  float* matrix_;
};

}  // namespace

bool factorize(const CpuContext& context, int64_t k, float* matrix) {
  return UpperFactor(context, k, matrix).run();
}

bool solve(const CpuContext& context, int64_t k, float* matrix, int64_t rows, float* values) {
  return UpperFactor(context, k, matrix).solve(rows, values);
}

}  // namespace salient
