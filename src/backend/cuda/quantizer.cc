#include "backend/cuda/quantizer.h"

#include <algorithm>

#include "backend/cuda/code_sweeps.h"
#include "backend/cuda/column_rounding.h"
#include "backend/cuda/factor.h"
#include "backend/cuda/products.h"
#include "backend/cuda/rounding_errors.h"
#include "quant/scheme.h"

namespace salient::cuda {
namespace {

/// Rounding errors in memory at a time; at most an eighth of what is free.
constexpr int64_t kErrorBytes = int64_t{256} << 20;

/// What sweeps over rows take beside their weights, at a time; at most an eighth of what is free.
constexpr size_t kSweepBytes = size_t{512} << 20;

/// Losses of several problems of one weight: errors of as many as there is room for in one launch, their
/// forms in the next, and all results to the host in the end.
class LossesOnDevice {
 public:
  LossesOnDevice(const TensorAccess& access, std::span<const RoundingLossProblem> problems,
                 int64_t group_width, size_t results)
      : problems_(problems),
        first_(problems.front()),
        group_width_(group_width),
        rows_(rows_that_count(first_)),
        columns_(first_.weight.dim(1)),
        groups_(group_count(first_.rule.scheme, columns_)),
        results_per_row_(results / problems.size() / static_cast<size_t>(rows_)),
        weight_(access.read(first_.weight)),
        gram_(access.read(first_.gram)) {
    for (const RoundingLossProblem& problem : problems) {
      clips_.push_back(problem.clip.defined() ? access.read(problem.clip) : nullptr);
      scales_.insert(scales_.end(), problem.column_scales.begin(), problem.column_scales.end());
    }
  }

  void run(SpillingDevice& device, std::span<double> result) const {
    const int64_t bytes = std::min(kErrorBytes, static_cast<int64_t>(device.room_bytes() / 8));
    const int64_t room = std::max<int64_t>(1, bytes / (columns_ * int64_t{sizeof(float)}));
    const int64_t count = std::ssize(problems_);
    const int64_t at_once = std::clamp<int64_t>(room / rows_, 1, std::min<int64_t>(kMostCandidates, count));
    const int64_t most_rows = std::min(rows_, room);
    const DeviceBuffer scales = sent(device, std::span<const float>(scales_));
    const std::vector<RoundingCandidate> all = candidates(scales.as<float>());
    const DeviceBuffer errors(device, static_cast<size_t>(at_once * most_rows * columns_) * sizeof(float));
    const DeviceBuffer workspace(device, form_workspace_bytes(at_once * most_rows, columns_));
    const DeviceBuffer sums(device, result.size_bytes());
    for (int64_t begin = 0; begin < count; begin += at_once) {
      for (int64_t row = 0; row < rows_; row += most_rows) {
        const auto some = std::span(all).subspan(static_cast<size_t>(begin),
                                                 static_cast<size_t>(std::min(at_once, count - begin)));
        const size_t done = static_cast<size_t>(begin * rows_ + row) * results_per_row_;
        measure(device, {some, row, std::min(most_rows, rows_ - row)},
                {errors.as<float>(), workspace.as<float>(), sums.as<double>() + done});
      }
    }
    device.copy_out(result.data(), sums.address(), result.size_bytes());
  }

 private:
  struct Part {
    std::span<const RoundingCandidate> candidates;
    int64_t first_row;  // among those that count
    int64_t rows;
  };
  struct Memory {
    float* errors;
    float* workspace;
    double* sums;
  };

  std::vector<RoundingCandidate> candidates(const float* scales) const {
    std::vector<RoundingCandidate> result;
    for (size_t i = 0; i < problems_.size(); ++i) {
      const bool scaled = !problems_[i].column_scales.empty();
      result.push_back(rounding_candidate(problems_[i].rule, scaled ? scales : nullptr, clips_[i]));
      if (scaled) scales += columns_;
    }
    return result;
  }

  void measure(Device& device, const Part& part, const Memory& memory) const {
    const int64_t row = part.first_row * first_.row_step;
    std::vector<RoundingCandidate> candidates(part.candidates.begin(), part.candidates.end());
    for (RoundingCandidate& candidate : candidates)
      if (candidate.clip != nullptr) candidate.clip += row * groups_;
    rounding_errors(device, {.rule = first_.rule,
                             .weight = weight_ + row * columns_,
                             .candidates = candidates,
                             .errors = memory.errors,
                             .rows = part.rows,
                             .row_step = first_.row_step,
                             .columns = columns_});
    quadratic_form(device, {.x = memory.errors,
                            .symmetric = gram_,
                            .rows = part.rows * std::ssize(candidates),
                            .columns = columns_,
                            .group_width = group_width_,
                            .precision = first_.precision,
                            .workspace = memory.workspace,
                            .result = memory.sums});
  }

  std::span<const RoundingLossProblem> problems_;
  const RoundingLossProblem& first_;
  int64_t group_width_;
  int64_t rows_;  // that count
  int64_t columns_;
  int64_t groups_;
  size_t results_per_row_;
  const float* weight_;
  const float* gram_;
  std::vector<const float*> clips_;  // of each problem, or null
  std::vector<float> scales_;        // of those that have some
};

}  // namespace

void accumulate_gram(const TensorAccess& access, const Tensor& x, MatmulPrecision precision, Tensor& gram) {
  if (x.dim(0) == 0) return;
  const GramSum problem{.x = access.read(x),
                        .rows = x.dim(0),
                        .k = x.dim(1),
                        .precision = precision,
                        .gram = access.update(gram)};
  access.run([&](Device& device) { accumulate_gram(device, problem); });
}

void accumulate_product(const TensorAccess& access, const ProductSides& sides, MatmulPrecision precision,
                        Tensor& result) {
  if (sides.a.dim(0) == 0) return;
  const ProductSum problem{.a = access.read(sides.a),
                           .b = access.read(sides.b),
                           .rows = sides.a.dim(0),
                           .a_columns = sides.a.dim(1),
                           .b_columns = sides.b.dim(1),
                           .precision = precision,
                           .result = access.update(result)};
  access.run([&](Device& device) { accumulate_product(device, problem); });
}

void quadratic_form(const TensorAccess& access, const Tensor& x, const Tensor& symmetric,
                    std::span<double> result) {
  if (x.dim(0) == 0) return;
  QuadraticForm problem{.x = access.read(x),
                        .symmetric = access.read(symmetric),
                        .rows = x.dim(0),
                        .columns = x.dim(1),
                        .group_width = x.dim(1),
                        .precision = MatmulPrecision::f32,
                        .workspace = nullptr,
                        .result = nullptr};
  access.run([&](Device& device) {
    const DeviceBuffer workspace(device, form_workspace_bytes(problem.rows, problem.columns));
    const DeviceBuffer sums(device, result.size_bytes());
    problem.workspace = workspace.as<float>();
    problem.result = sums.as<double>();
    quadratic_form(device, problem);
    device.copy_out(result.data(), sums.address(), result.size_bytes());
  });
}

void rounding_losses(const TensorAccess& access, std::span<const RoundingLossProblem> problems,
                     int64_t group_width, std::span<double> result) {
  if (result.empty()) return;
  const LossesOnDevice losses(access, problems, group_width, result.size());
  access.run([&](SpillingDevice& device) { losses.run(device, result); });
}

bool factorize(const TensorAccess& access, Tensor& symmetric) {
  const int64_t k = symmetric.dim(0);
  float* matrix = access.update(symmetric);
  return access.run([&](Device& device) {
    const DeviceBuffer workspace(device, factorization_bytes(k));
    return factorize(device, {.symmetric = matrix, .k = k, .workspace = workspace.address()});
  });
}

bool solve(const TensorAccess& access, Tensor& symmetric, Tensor& rows) {
  const int64_t k = rows.dim(1);
  float* matrix = access.update(symmetric);
  float* values = access.update(rows);
  return access.run([&](Device& device) {
    const DeviceBuffer workspace(device, solution_bytes(rows.dim(0), k));
    return solve(device, {.symmetric = matrix,
                          .values = values,
                          .rows = rows.dim(0),
                          .k = k,
                          .workspace = workspace.address()});
  });
}

void round_compensated(const TensorAccess& access, const CompensationProblem& problem,
                       QuantizedWeight& result) {
  const float* weight = access.read(problem.weight);
  const float* upper = access.read(problem.upper);
  const void* scales = access.read_bytes(result.scales);
  const bool zeros = result.zeros.defined();
  const void* stored_zeros = zeros ? access.read_bytes(result.zeros) : nullptr;
  void* codes = access.write_bytes(result.codes);
  const std::vector<int32_t> order(problem.order.begin(), problem.order.end());
  access.run([&](Device& device) {
    const DeviceBuffer places = sent(device, std::span<const int32_t>(order));
    const DeviceBuffer workspace(device, compensated_rounding_bytes(result.out_features, result.in_features));
    round_compensated(device, {.scheme = result.scheme,
                               .weight = weight,
                               .upper = upper,
                               .order = places.as<int32_t>(),
                               .rows = result.out_features,
                               .columns = result.in_features,
                               .scales = scales,
                               .scale_dtype = result.scales.dtype(),
                               .zeros = static_cast<const uint8_t*>(stored_zeros),
                               .codes = static_cast<uint8_t*>(codes),
                               .workspace = workspace.address()});
  });
}

void sweep_codes(const TensorAccess& access, const CodeSweepProblem& problem, QuantizedWeight& result) {
  const int64_t rows = result.out_features;
  const int64_t columns = result.in_features;
  const float* weight = access.read(problem.weight);
  const float* gram = access.read(problem.gram);
  const bool zeros = result.zeros.defined();
  const auto* stored_zeros = zeros ? static_cast<const uint8_t*>(access.read_bytes(result.zeros)) : nullptr;
  auto* scales = static_cast<std::byte*>(access.update_bytes(result.scales));
  auto* codes = static_cast<uint8_t*>(access.update_bytes(result.codes));
  const auto row_scale_bytes = static_cast<int64_t>(byte_size(result.scales.dtype())) * result.groups();
  const auto bytes = [&](int64_t count) { return code_sweep_bytes(result.scheme, count, columns); };
  access.run([&](SpillingDevice& device) {
    const size_t room = std::min(kSweepBytes, device.room_bytes() / 8);
    const int64_t most = std::max<int64_t>(1, static_cast<int64_t>(room / bytes(1)));
    const DeviceBuffer ridge = sent(device, problem.ridge);
    const DeviceBuffer workspace(device, bytes(std::min(rows, most)));
    for (int64_t first = 0; first < rows; first += most) {
      sweep_codes(device, {.scheme = result.scheme,
                           .weight = weight + first * columns,
                           .gram = gram,
                           .ridge = ridge.as<float>(),
                           .rows = std::min(most, rows - first),
                           .columns = columns,
                           .sweeps = problem.sweeps,
                           .codes = codes + first * result.row_bytes(),
                           .scales = scales + first * row_scale_bytes,
                           .scale_dtype = result.scales.dtype(),
                           .zeros = zeros ? stored_zeros + first * result.groups() : nullptr,
                           .workspace = workspace.address()});
    }
  });
}

}  // namespace salient::cuda
