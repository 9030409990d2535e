#pragma once

#include <span>
#include <vector>

#include "backend/backend.h"
#include "tensor/columns.h"

namespace salient {

/// How a linear might be rounded, see Backend::rounding_loss.
struct RoundingTrial {
  const RoundingRule& rule;                ///< for kWholeMatrix with its grid
  const Tensor& weight;                    ///< f32 [out, in]
  std::span<const float> column_scales{};  ///< s [in], or empty for ones
  Tensor clip{};                           ///< f32 [out, groups] or undefined
  MatmulPrecision precision = MatmulPrecision::f32;
  int64_t row_step = 1;  ///< only rows 0, row_step, 2 row_step, ... count
};

/// G = x^T x of the inputs x of a linear, f32 [in, in]; or, to take less memory, nothing of it but square
/// blocks on its diagonal, as if channels of two blocks had nothing to do with each other. Whatever is made
/// of G is a sum over the blocks then. A copy shares memory.
class GramMatrix {
 public:
  struct Block {
    ColumnRange columns;
    Tensor values;  ///< f32 [columns, columns]
  };

  GramMatrix() = default;
  /// Zeros. Blocks are `block` columns wide, the last one perhaps less; 0: one holds all.
  explicit GramMatrix(int64_t features, int64_t block = 0);
  /// All of one, f32 [in, in].
  explicit GramMatrix(Tensor whole);

  /// Where the blocks of so many features lie.
  static std::vector<ColumnRange> ranges(int64_t features, int64_t block);

  bool defined() const { return !blocks_.empty(); }
  bool is_whole() const { return blocks_.size() == 1; }
  int64_t features() const { return blocks_.empty() ? 0 : blocks_.back().columns.end; }
  std::span<const Block> blocks() const { return blocks_; }
  /// Errors: internal where there are several blocks.
  const Tensor& whole() const;
  /// In memory of its own.
  GramMatrix copy() const;

  /// G += x^T x for x f32 [rows, in].
  void add(Backend& backend, MatmulPrecision precision, const Tensor& x);
  /// G += G'. Errors: internal for other blocks.
  void add(const GramMatrix& other);
  /// Makes it that of x / s: G[i, j] / (s_i s_j). scales: s [in], or empty for ones.
  void divide_input(std::span<const float> scales);

  /// result[r] = x_r G x_r^T for every row of x f32 [rows, in].
  void quadratic_form(Backend& backend, const Tensor& x, std::span<double> result) const;
  /// See Backend::rounding_loss; result [rows that count]. Errors, here and below: internal where a group
  /// lies in two blocks.
  void rounding_loss(Backend& backend, const RoundingTrial& trial, std::span<double> result) const;
  /// See Backend::rounding_losses, for trials of one weight that differ in scales, clips and grids alone:
  /// result [trials, rows that count], by group [trials, rows that count, groups].
  void rounding_losses(Backend& backend, std::span<const RoundingTrial> trials,
                       std::span<double> result) const;
  void rounding_losses_by_group(Backend& backend, std::span<const RoundingTrial> trials,
                                std::span<double> result) const;

 private:
  std::vector<Block> blocks_;
};

/// The groups that the columns of a block consist of. Errors: internal where one lies in two blocks.
ColumnRange groups_of(const QuantizationScheme& scheme, const ColumnRange& columns, int64_t features);

}  // namespace salient
