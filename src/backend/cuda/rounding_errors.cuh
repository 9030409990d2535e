#pragma once

#include <cmath>

#include "backend/cuda/grid.cuh"
#include "backend/cuda/rounding_errors.h"

// Both kernels read W once from memory and write D once; the whole-row one reads it a second time from a
// cache. What they compute is mostly two exact divisions a weight. Memory is to be the bound.

namespace salient::cuda {

/// The weights of one row that counts, as the candidate of this block rounds them.
class ErrorRow {
 public:
  SALIENT_DEVICE ErrorRow(const RoundingErrorArguments& a, int64_t row)
      : weight_(a.weight + row * a.row_step * a.columns),
        scales_(a.candidates[simt::block_y()].column_scales),
        clip_(a.candidates[simt::block_y()].clip),
        errors_(a.errors + (simt::block_y() * a.rows + row) * a.columns) {
    if (clip_ != nullptr) clip_ += row * a.row_step * a.groups;
  }

  SALIENT_DEVICE float bound(int group) const { return clip_ == nullptr ? INFINITY : clip_[group]; }
  SALIENT_DEVICE float weight(int column) const { return weight_[column]; }
  SALIENT_DEVICE float scale(int column) const { return scales_ == nullptr ? 1.0f : scales_[column]; }
  SALIENT_DEVICE void store(int column, float weight, float scale, float rounded) const {
    const float back = scales_ == nullptr ? rounded : simt::divide_rounded(rounded, scale);
    errors_[column] = simt::add_rounded(back, -weight);
  }

 private:
  const float* weight_;
  const float* scales_;
  const float* clip_;
  float* errors_;
};

SALIENT_DEVICE float on_grid(float value, const CodeGrid& grid, float bound, float top) {
  return value_of_code(nearest_code(clamped(value, -bound, bound), grid, top), grid);
}

SALIENT_DEVICE CodeGrid candidate_grid(const RoundingErrorArguments& a, const Extremes& extremes,
                                       float bound) {
  if (a.rule.fixed == 0) return grid_of(a.rule, extremes, bound);
  const RoundingCandidate& candidate = a.candidates[simt::block_y()];
  return {candidate.scale, candidate.zero};
}

SALIENT_DEVICE void errors_by_warp(const RoundingErrorArguments& a) {
  constexpr int kValues = kWarpGroupWidth / simt::kWarp;
  const int64_t unit = int64_t{simt::block_x()} * (kRoundingThreads / simt::kWarp) + simt::warp();
  if (unit >= a.rows * a.groups) return;
  const ErrorRow row(a, unit / a.groups);
  const auto group = static_cast<int>(unit % a.groups);
  const int first = group * a.group_width;
  const int end = first + a.group_width < a.columns ? first + a.group_width : a.columns;
  float weight[kValues];
  float scale[kValues];
  Extremes extremes;
  SALIENT_UNROLL
  for (int i = 0; i < kValues; ++i) {
    const int column = first + i * simt::kWarp + simt::lane();
    weight[i] = column < end ? row.weight(column) : 0.0f;
    scale[i] = column < end ? row.scale(column) : 1.0f;
    widen(extremes, simt::multiply_rounded(weight[i], scale[i]));
  }
  const float bound = row.bound(group);
  const CodeGrid grid = candidate_grid(a, extremes_of_warp(extremes), bound);
  const auto top = static_cast<float>(a.rule.top);
  SALIENT_UNROLL
  for (int i = 0; i < kValues; ++i) {
    const int column = first + i * simt::kWarp + simt::lane();
    if (column >= end) continue;
    const float rounded = on_grid(simt::multiply_rounded(weight[i], scale[i]), grid, bound, top);
    row.store(column, weight[i], scale[i], rounded);
  }
}

SALIENT_DEVICE Extremes extremes_of_block(const Extremes& own, float* parts) {
  constexpr int kWarps = kRoundingThreads / simt::kWarp;
  const Extremes warp = extremes_of_warp(own);
  if (simt::lane() == 0) {
    parts[simt::warp()] = warp.minimum;
    parts[kWarps + simt::warp()] = warp.maximum;
  }
  simt::sync_block();
  Extremes result;
  for (int i = 0; i < 2 * kWarps; ++i) widen(result, parts[i]);
  return result;
}

SALIENT_DEVICE void errors_by_block(const RoundingErrorArguments& a) {
  const ErrorRow row(a, simt::block_x());
  Extremes extremes;
  if (a.rule.fixed == 0) {
    Extremes own;
    for (int column = simt::thread(); column < a.columns; column += kRoundingThreads)
      widen(own, simt::multiply_rounded(row.weight(column), row.scale(column)));
    extremes = extremes_of_block(own, simt::shared_memory<float>());
  }
  const float bound = row.bound(0);
  const CodeGrid grid = candidate_grid(a, extremes, bound);
  const auto top = static_cast<float>(a.rule.top);
  for (int column = simt::thread(); column < a.columns; column += kRoundingThreads) {
    const float weight = row.weight(column);
    const float scale = row.scale(column);
    row.store(column, weight, scale, on_grid(simt::multiply_rounded(weight, scale), grid, bound, top));
  }
}

#define SALIENT_ROUNDING_ERROR_KERNELS(X)                             \
  X(errors_of_groups, RoundingErrorArguments, 256, 1, errors_by_warp) \
  X(errors_of_rows, RoundingErrorArguments, 256, 1, errors_by_block)

}  // namespace salient::cuda
