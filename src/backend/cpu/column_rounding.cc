#include "backend/cpu/column_rounding.h"

#include <algorithm>
#include <vector>

#include "backend/cpu/scratch.h"
#include "base/parallel.h"

namespace salient {
namespace {

constexpr int64_t kColumnsPerBlock = 128;
constexpr int64_t kRowsPerPiece = 128;

/// Some rows of a matrix on their way from the first to the last column. Everything lies transposed, one
/// column behind the other and the rows side by side: these know nothing of each other, so that a vector
/// holds one row in each lane.
class RowPiece {
 public:
  RowPiece(const CpuContext& context, const CompensationProblem& problem, QuantizedWeight& result,
           int64_t first_row, int64_t rows)
      : context_(context),
        problem_(problem),
        result_(result),
        first_row_(first_row),
        rows_(rows),
        stride_((rows + kRowStep - 1) / kRowStep * kRowStep),
        columns_(problem.weight.dim(1)),
        upper_(problem.upper.values<float>().data()),
        values_(scratch<float>(ScratchUse::columns, columns_ * stride_)),
        targets_(scratch<float>(ScratchUse::targets, kColumnsPerBlock * stride_)),
        scales_(scratch<float>(ScratchUse::grids, 2 * result.groups() * stride_)),
        zeros_(scales_ + result.groups() * stride_) {}

  void run() {
    load_weights();
    load_grids();
    for (int64_t begin = 0; begin < columns_; begin += kColumnsPerBlock) {
      const int64_t end = std::min(columns_, begin + kColumnsPerBlock);
      make_targets(begin, end);
      round_block(begin, end);
      store_codes(begin, end);
    }
  }

 private:
  int64_t source_of(int64_t column) const { return problem_.order[static_cast<size_t>(column)]; }

  /// In the order of rounding; so many rows at a time that their lines are still in the cache for the next
  /// column.
  void load_weights() {
    const float* weight = problem_.weight.values<float>().data() + first_row_ * columns_;
    for (int64_t first = 0; first < stride_; first += kRowStep) {
      const int64_t count = std::clamp<int64_t>(rows_ - first, 0, kRowStep);
      for (int64_t column = 0; column < columns_; ++column) {
        const float* from = weight + first * columns_ + source_of(column);
        float* to = values_ + column * stride_ + first;
        for (int64_t row = 0; row < count; ++row) to[row] = from[row * columns_];
        std::fill(to + count, to + kRowStep, 0.0f);
      }
    }
  }

  void load_grids() {
    for (int64_t group = 0; group < result_.groups(); ++group) {
      for (int64_t row = 0; row < stride_; ++row) {
        const bool exists = row < rows_;
        scales_[group * stride_ + row] = exists ? result_.scale(first_row_ + row, group) : 1.0f;
        zeros_[group * stride_ + row] =
            exists ? static_cast<float>(result_.zero(first_row_ + row, group)) : 0.0f;
      }
    }
  }

  /// The weights of a block and what the errors of all columns before it add to them.
  void make_targets(int64_t begin, int64_t end) {
    const int64_t count = (end - begin) * stride_;
    std::copy_n(values_ + begin * stride_, count, targets_);
    if (begin == 0) return;
    context_.gemm(GemmProblem<float>{.m = end - begin,
                                     .n = stride_,
                                     .k = begin,
                                     .a = {upper_ + begin, columns_, Transposed::yes},
                                     .b = {values_, stride_},
                                     .c = targets_,
                                     .c_stride = stride_,
                                     .accumulate = Accumulate::yes});
  }

  void round_block(int64_t begin, int64_t end) {
    const int64_t width = group_width(result_.scheme, columns_);
    int64_t offsets[kColumnsPerBlock];
    for (int64_t column = begin; column < end; ++column) {
      offsets[column - begin] = source_of(column) / width * stride_;
    }
    context_.kernels.round_columns({.columns = end - begin,
                                    .rows = stride_,
                                    .factors = upper_ + begin * columns_ + begin,
                                    .factor_stride = columns_,
                                    .scales = scales_,
                                    .zeros = zeros_,
                                    .grid_offsets = offsets,
                                    .top = static_cast<float>(max_code(result_.scheme)),
                                    .targets = targets_,
                                    .values = values_ + begin * stride_});
  }

  void store_codes(int64_t begin, int64_t end) {
    const int64_t row_bytes = result_.row_bytes();
    const bool paired = result_.code_bits() == 4;
    uint8_t* codes = result_.codes.mutable_values<uint8_t>().data() + first_row_ * row_bytes;
    for (int64_t column = begin; column < end; ++column) {
      const int64_t source = source_of(column);
      const float* values = targets_ + (column - begin) * stride_;
      uint8_t* to = codes + (paired ? source / 2 : source);
      const int shift = paired ? static_cast<int>(source % 2) * 4 : 0;
      const int others = paired ? 0xf0 >> shift : 0;
      for (int64_t row = 0; row < rows_; ++row) {
        uint8_t& byte = to[row * row_bytes];
        byte = static_cast<uint8_t>((byte & others) | static_cast<int>(values[row]) << shift);
      }
    }
  }

  static constexpr int64_t kRowStep = ColumnRoundingProblem::kRowStep;

  const CpuContext& context_;
  const CompensationProblem& problem_;
  QuantizedWeight& result_;
  int64_t first_row_;
  int64_t rows_;
  int64_t stride_;  // rows and some that do not exist
  int64_t columns_;
  const float* upper_;  // [in, in]
  float* values_;       // [in, stride], errors w - q of the columns that are done, weights behind them
  float* targets_;      // [columns of a block, stride]
  float* scales_;       // [groups, stride]
  float* zeros_;        // [groups, stride]
};

}  // namespace

void round_compensated(const CpuContext& context, const CompensationProblem& problem,
                       QuantizedWeight& result) {
  parallel_for(static_cast<size_t>(problem.weight.dim(0)), kRowsPerPiece, [&](size_t from, size_t to) {
    RowPiece(context, problem, result, static_cast<int64_t>(from), static_cast<int64_t>(to - from)).run();
  });
}

}  // namespace salient
