#include "backend/cpu/code_sweeps.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "backend/cpu/scratch.h"
#include "base/parallel.h"

namespace salient {
namespace {

/// So many rows share what a thread has in its cache of a Gram matrix, in blocks of so many columns.
constexpr int64_t kRowsPerPiece = 128;
constexpr int64_t kColumnsPerBlock = 128;

/// A fitted scale far from what it was says that its group has nothing to be fitted to.
constexpr float kLeastRatio = 0.3f;
constexpr float kLargestRatio = 3.0f;

/// Some rows on their way through all sweeps. All of a row is kept up to date with each change: its residual
/// R = (W - Q) H, half of the gradient of its loss (W - Q) H (W - Q)^T.
class SweptRows {
 public:
  SweptRows(const CpuContext& context, const CodeSweepProblem& problem, std::span<const float> diagonal,
            QuantizedWeight& result, int64_t first_row, int64_t rows)
      : context_(context),
        problem_(problem),
        diagonal_(diagonal),
        result_(result),
        first_row_(first_row),
        rows_(rows),
        columns_(problem.weight.dim(1)),
        groups_(result.groups()),
        width_(group_width(result.scheme, columns_)),
        gram_(problem.gram.values<float>().data()),
        residuals_(scratch<float>(ScratchUse::columns, rows * columns_)),
        steps_(scratch<float>(ScratchUse::weights, 2 * rows * columns_)),
        products_(steps_ + rows * columns_),
        scales_(scratch<float>(ScratchUse::grids, 2 * rows * groups_)),
        zeros_(scales_ + rows * groups_) {}

  void run() {
    for (int64_t row = 0; row < rows_; ++row) load(row);
    make_residuals();
    std::vector<double> before(static_cast<size_t>(rows_));
    for (int64_t row = 0; row < rows_; ++row) before[static_cast<size_t>(row)] = loss(row);
    const bool fits_scales = result_.scheme.group_size != QuantizationScheme::kWholeMatrix;
    for (int64_t sweep = 0; sweep < problem_.sweeps; ++sweep) {
      if (fits_scales) fit_scales();
      sweep_codes();
    }
    for (int64_t row = 0; row < rows_; ++row) {
      make_errors(row);
      if (loss(row) < before[static_cast<size_t>(row)]) store(row);  // not where anything is NaN
    }
  }

 private:
  uint8_t* codes_of(int64_t row) {
    return result_.codes.mutable_values<uint8_t>().data() + (first_row_ + row) * result_.row_bytes();
  }

  void load(int64_t row) {
    for (int64_t group = 0; group < groups_; ++group) {
      scales_[row * groups_ + group] = result_.scale(first_row_ + row, group);
      zeros_[row * groups_ + group] = static_cast<float>(result_.zero(first_row_ + row, group));
    }
    const bool paired = result_.code_bits() == 4;
    const uint8_t* codes = codes_of(row);
    for (int64_t k = 0; k < columns_; ++k) {
      const int code = paired ? codes[k / 2] >> (k % 2 * 4) & 15 : codes[k];
      steps_[row * columns_ + k] = static_cast<float>(code) - zeros_[row * groups_ + k / width_];
    }
  }

  void store(int64_t row) {
    const size_t scale_bytes = byte_size(result_.scales.dtype());
    convert_from_float(
        {scales_ + row * groups_, static_cast<size_t>(groups_)}, result_.scales.dtype(),
        result_.scales.mutable_bytes() + static_cast<size_t>((first_row_ + row) * groups_) * scale_bytes);
    const bool paired = result_.code_bits() == 4;
    uint8_t* codes = codes_of(row);
    for (int64_t k = 0; k < columns_; ++k) {
      const float code = steps_[row * columns_ + k] + zeros_[row * groups_ + k / width_];
      const auto value = static_cast<uint8_t>(code);
      if (!paired) {
        codes[k] = value;
      } else if (k % 2 == 0) {
        codes[k / 2] = value;
      } else {
        codes[k / 2] = static_cast<uint8_t>(codes[k / 2] | value << 4);
      }
    }
  }

  /// W - Q of a row, where products stand at other times.
  void make_errors(int64_t row) {
    const float* weight = problem_.weight.values<float>().data() + (first_row_ + row) * columns_;
    for (int64_t k = 0; k < columns_; ++k) {
      const float value = steps_[row * columns_ + k] * scales_[row * groups_ + k / width_];
      products_[row * columns_ + k] = weight[k] - value;
    }
  }

  /// Of the errors that were made last.
  double loss(int64_t row) const {
    return context_.kernels.inner_product(products_ + row * columns_, residuals_ + row * columns_, columns_);
  }

  void make_residuals() {
    for (int64_t row = 0; row < rows_; ++row) make_errors(row);
    multiply(products_, 0, columns_, residuals_);
    for (int64_t row = 0; row < rows_; ++row) {
      for (int64_t k = 0; k < columns_; ++k)
        residuals_[row * columns_ + k] += products_[row * columns_ + k] * ridge(k);
    }
  }

  /// y [rows, columns] = the columns [begin, end) of x, by the rows of G that belong to them.
  void multiply(const float* x, int64_t begin, int64_t end, float* y) {
    context_.gemm(GemmProblem<float>{.m = rows_,
                                     .n = columns_,
                                     .k = end - begin,
                                     .a = {x + begin, columns_},
                                     .b = {gram_ + begin * columns_, columns_},
                                     .c = y,
                                     .c_stride = columns_});
  }

  float ridge(int64_t column) const { return problem_.ridge[static_cast<size_t>(column)]; }

  /// Group after group, each scale to where the loss is least with all others as they are.
  void fit_scales() {
    for (int64_t group = 0; group < groups_; ++group) {
      const int64_t begin = group * width_;
      const int64_t end = std::min(columns_, begin + width_);
      multiply(steps_, begin, end, products_);
      for (int64_t row = 0; row < rows_; ++row) fit_scale(row, group, begin, end);
    }
  }

  /// With the codes as steps c the loss is that of s less 2 d c R^T - d^2 c H c^T for a scale of s + d.
  void fit_scale(int64_t row, int64_t group, int64_t begin, int64_t end) {
    const float* steps = steps_ + row * columns_;
    const float* products = products_ + row * columns_;
    float* residual = residuals_ + row * columns_;
    const auto inner = [&](const float* values) {
      return context_.kernels.inner_product(steps + begin, values + begin, end - begin);
    };
    const double slope = inner(residual);
    double curvature = inner(products);
    for (int64_t k = begin; k < end; ++k) curvature += double{ridge(k)} * double{steps[k]} * double{steps[k]};
    if (!(curvature > 0)) return;
    float& scale = scales_[row * groups_ + group];
    const float fitted =
        storable_scale(result_.scheme, result_.scales.dtype(), double{scale} + slope / curvature);
    if (!(fitted > kLeastRatio * scale && fitted < kLargestRatio * scale)) return;
    const double change = double{fitted} - double{scale};
    if (!(change * change * curvature < 2 * change * slope)) return;
    scale = fitted;
    const auto factor = static_cast<float>(-change);
    context_.kernels.add_scaled(factor, products, columns_, residual);
    for (int64_t k = begin; k < end; ++k) residual[k] += factor * ridge(k) * steps[k];
  }

  void sweep_codes() {
    for (int64_t begin = 0; begin < columns_; begin += kColumnsPerBlock) {
      const int64_t end = std::min(columns_, begin + kColumnsPerBlock);
      for (int64_t row = 0; row < rows_; ++row) sweep_codes_of(row, begin, end);
    }
  }

  void sweep_codes_of(int64_t row, int64_t begin, int64_t end) {
    float* steps = steps_ + row * columns_;
    float* residual = residuals_ + row * columns_;
    const auto top = static_cast<float>(max_code(result_.scheme));
    for (int64_t k = begin; k < end; ++k) {
      const float scale = scales_[row * groups_ + k / width_];
      const float unit = diagonal_[static_cast<size_t>(k)] * scale;
      if (!(std::abs(residual[k]) > 0.5f * unit)) continue;  // no other code is nearer: most columns
      const float zero = zeros_[row * groups_ + k / width_];
      const float nearest = std::nearbyint(steps[k] + residual[k] / unit);
      const float change = std::clamp(nearest, -zero, top - zero) - steps[k];
      if (!(std::abs(change) >= 1)) continue;
      steps[k] += change;
      const float factor = -change * scale;
      context_.kernels.add_scaled(factor, gram_ + k * columns_, columns_, residual);
      residual[k] += factor * ridge(k);
    }
  }

  const CpuContext& context_;
  const CodeSweepProblem& problem_;
  std::span<const float> diagonal_;  // of H
  QuantizedWeight& result_;
  int64_t first_row_;
  int64_t rows_;
  int64_t columns_;
  int64_t groups_;
  int64_t width_;
  const float* gram_;  // [in, in]
  float* residuals_;   // R [rows, in]
  float* steps_;       // code - zero [rows, in]
  float* products_;    // [rows, in]
  float* scales_;      // [rows, groups]
  float* zeros_;       // [rows, groups]
};

}  // namespace

void sweep_codes(const CpuContext& context, const CodeSweepProblem& problem, QuantizedWeight& result) {
  std::vector<float> diagonal(problem.ridge.begin(), problem.ridge.end());
  const auto gram = problem.gram.values<float>();
  for (size_t k = 0; k < diagonal.size(); ++k) diagonal[k] += gram[k * (diagonal.size() + 1)];
  parallel_for(static_cast<size_t>(problem.weight.dim(0)), kRowsPerPiece, [&](size_t from, size_t to) {
    SweptRows(context, problem, diagonal, result, static_cast<int64_t>(from), static_cast<int64_t>(to - from))
        .run();
  });
}

}  // namespace salient
