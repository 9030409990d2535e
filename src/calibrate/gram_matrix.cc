#include "calibrate/gram_matrix.h"

#include <algorithm>

#include "base/error.h"
#include "base/parallel.h"

namespace salient {
namespace {

std::vector<RoundingLossProblem> problems_of(std::span<const RoundingTrial> trials, const Tensor& gram) {
  std::vector<RoundingLossProblem> problems;
  for (const RoundingTrial& trial : trials) {
    problems.push_back({.rule = trial.rule,
                        .weight = trial.weight,
                        .column_scales = trial.column_scales,
                        .clip = trial.clip,
                        .gram = gram,
                        .precision = trial.precision,
                        .row_step = trial.row_step});
  }
  return problems;
}

/// What trials of one weight are to the columns of one block; of the rows those that count.
class BlockTrials {
 public:
  BlockTrials(std::span<const RoundingTrial> trials, const ColumnRange& columns)
      : trials_(trials),
        columns_(columns),
        groups_(groups_of(trials[0].rule.scheme, columns, trials[0].weight.dim(1))),
        weight_(take_columns(trials[0].weight, columns, trials[0].row_step)) {}

  std::vector<RoundingLossProblem> problems(const Tensor& gram) const {
    std::vector<RoundingLossProblem> problems;
    for (const RoundingTrial& trial : trials_) {
      const bool clipped = trial.clip.defined();
      problems.push_back({.rule = trial.rule,
                          .weight = weight_,
                          .column_scales = scales_of(trial),
                          .clip = clipped ? take_columns(trial.clip, groups_, trial.row_step) : Tensor(),
                          .gram = gram,
                          .precision = trial.precision});
    }
    return problems;
  }

  const ColumnRange& groups() const { return groups_; }

 private:
  std::span<const float> scales_of(const RoundingTrial& trial) const {
    if (trial.column_scales.empty()) return {};
    return trial.column_scales.subspan(static_cast<size_t>(columns_.begin),
                                       static_cast<size_t>(columns_.count()));
  }

  std::span<const RoundingTrial> trials_;
  ColumnRange columns_;
  ColumnRange groups_;
  Tensor weight_;
};

}  // namespace

ColumnRange groups_of(const QuantizationScheme& scheme, const ColumnRange& columns, int64_t features) {
  const int64_t width = group_width(scheme, features);
  if (columns.begin % width != 0 || (columns.end % width != 0 && columns.end != features)) {
    fail(ErrorKind::internal, "columns [{}, {}) of {} do not consist of groups of {}", columns.begin,
         columns.end, features, width);
  }
  return {columns.begin / width, (columns.end + width - 1) / width};
}

GramMatrix::GramMatrix(int64_t features, int64_t block) {
  for (const ColumnRange& columns : ranges(features, block)) {
    blocks_.push_back({columns, Tensor::zeros(DType::f32, {columns.count(), columns.count()})});
  }
}

GramMatrix::GramMatrix(Tensor whole) {
  const ColumnRange columns{0, whole.dim(0)};
  blocks_.push_back({columns, std::move(whole)});
}

std::vector<ColumnRange> GramMatrix::ranges(int64_t features, int64_t block) {
  if (block == 0 || block >= features) return {{0, features}};
  std::vector<ColumnRange> ranges;
  for (int64_t begin = 0; begin < features; begin += block)
    ranges.push_back({begin, std::min(features, begin + block)});
  return ranges;
}

const Tensor& GramMatrix::whole() const {
  if (!is_whole()) fail(ErrorKind::internal, "a Gram matrix of {} blocks is not whole", blocks_.size());
  return blocks_.front().values;
}

GramMatrix GramMatrix::copy() const {
  GramMatrix result;
  for (const Block& block : blocks_) result.blocks_.push_back({block.columns, block.values.to(DType::f32)});
  return result;
}

void GramMatrix::add(Backend& backend, MatmulPrecision precision, const Tensor& x) {
  if (is_whole()) return backend.accumulate_gram(x, precision, blocks_.front().values);
  for (Block& block : blocks_)
    backend.accumulate_gram(take_columns(x, block.columns), precision, block.values);
}

void GramMatrix::add(const GramMatrix& other) {
  if (other.blocks_.size() != blocks_.size() || other.features() != features()) {
    fail(ErrorKind::internal, "{} blocks of a Gram matrix of {} features were added to {} of {}",
         other.blocks_.size(), other.features(), blocks_.size(), features());
  }
  for (size_t b = 0; b < blocks_.size(); ++b) {
    const auto from = other.blocks_[b].values.values<float>();
    const auto to = blocks_[b].values.mutable_values<float>();
    for (size_t i = 0; i < to.size(); ++i) to[i] += from[i];
  }
}

void GramMatrix::divide_input(std::span<const float> scales) {
  if (scales.empty()) return;
  for (Block& block : blocks_) {
    const auto size = static_cast<size_t>(block.columns.count());
    const auto own = scales.subspan(static_cast<size_t>(block.columns.begin), size);
    const auto values = block.values.mutable_values<float>();
    parallel_for(size, 16, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) {
        for (size_t j = 0; j < size; ++j) values[i * size + j] /= own[i] * own[j];
      }
    });
  }
}

void GramMatrix::quadratic_form(Backend& backend, const Tensor& x, std::span<double> result) const {
  if (is_whole()) return backend.quadratic_form(x, whole(), result);
  std::ranges::fill(result, 0.0);
  std::vector<double> own(result.size());
  for (const Block& block : blocks_) {
    backend.quadratic_form(take_columns(x, block.columns), block.values, own);
    for (size_t i = 0; i < result.size(); ++i) result[i] += own[i];
  }
}

void GramMatrix::rounding_loss(Backend& backend, const RoundingTrial& trial, std::span<double> result) const {
  rounding_losses(backend, {&trial, 1}, result);
}

void GramMatrix::rounding_losses(Backend& backend, std::span<const RoundingTrial> trials,
                                 std::span<double> result) const {
  if (trials.empty()) return;
  if (is_whole()) return backend.rounding_losses(problems_of(trials, whole()), result);
  std::ranges::fill(result, 0.0);
  std::vector<double> own(result.size());
  for (const Block& block : blocks_) {
    const BlockTrials parts(trials, block.columns);
    backend.rounding_losses(parts.problems(block.values), own);
    for (size_t i = 0; i < result.size(); ++i) result[i] += own[i];
  }
}

void GramMatrix::rounding_losses_by_group(Backend& backend, std::span<const RoundingTrial> trials,
                                          std::span<double> result) const {
  if (trials.empty()) return;
  if (is_whole()) return backend.rounding_losses_by_group(problems_of(trials, whole()), result);
  const auto groups = static_cast<size_t>(group_count(trials[0].rule.scheme, trials[0].weight.dim(1)));
  for (const Block& block : blocks_) {
    const BlockTrials parts(trials, block.columns);
    const auto first = static_cast<size_t>(parts.groups().begin);
    const auto count = static_cast<size_t>(parts.groups().count());
    std::vector<double> own(result.size() / groups * count);
    backend.rounding_losses_by_group(parts.problems(block.values), own);
    for (size_t i = 0; i < own.size(); ++i) result[i / count * groups + first + i % count] = own[i];
  }
}

}  // namespace salient
