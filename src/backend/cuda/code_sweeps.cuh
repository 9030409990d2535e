#pragma once

#include <cmath>

#include "backend/cuda/code_sweeps.h"
#include "backend/cuda/grid.cuh"

// Coordinate descent over scales and codes with the residuals R = (W - Q) H at hand, half the gradient of the
// loss: a scale is a sum over its group, a code one division. What a group of scales or a block of 128 codes
// changes in R is a dense product, which is most of the time. Within a block of codes a warp has all columns
// of two rows in registers, as in column_rounding.cuh.

namespace salient::cuda {

SALIENT_DEVICE float zero_of_group(const uint8_t* zeros, int top, int64_t group) {
  return static_cast<float>(zeros == nullptr ? (top + 1) / 2 : zeros[group]);
}

/// The sum over the lanes of a warp, the same in each: f64 as two f32, of which 48 bits stay.
SALIENT_DEVICE double warp_sum_f64(double value) {
  for (int mask = simt::kWarp / 2; mask > 0; mask /= 2) {
    const auto high = static_cast<float>(value);
    const auto low = static_cast<float>(value - static_cast<double>(high));
    const double other = static_cast<double>(simt::shuffle_xor(high, mask)) +
                         static_cast<double>(simt::shuffle_xor(low, mask));
    value = (static_cast<double>(high) + static_cast<double>(low)) + other;
  }
  return value;
}

SALIENT_DEVICE int64_t row_of_warp() {
  return int64_t{simt::block_x()} * (kSweepThreads / simt::kWarp) + simt::warp();
}

SALIENT_DEVICE void load_steps_of_rows(const LoadStepsArguments& a) {
  const int64_t index = int64_t{simt::block_x()} * kSweepThreads + simt::thread();
  const SweepShape& shape = a.shape;
  if (index >= shape.rows * shape.columns) return;
  const int64_t row = index / shape.columns;
  const auto column = static_cast<int>(index % shape.columns);
  const int64_t group = row * shape.groups + column / shape.group_width;
  const int codes = 32 / a.stored.bits;
  const uint32_t word = a.stored.codes[row * a.stored.words + column / codes];
  const uint32_t code = word >> (column % codes * a.stored.bits) & ((1u << a.stored.bits) - 1);
  a.steps[index] = static_cast<float>(code) - zero_of_group(a.stored.zeros, a.stored.top, group);
  if (column % shape.group_width == 0) a.scales[group] = stored_number(a.stored.type, a.stored.scales, group);
}

SALIENT_DEVICE void errors_of_sweep(const SweepErrorArguments& a) {
  const int64_t row = row_of_warp();
  if (row >= a.shape.rows) return;
  double loss = 0;
  for (int column = simt::lane(); column < a.shape.columns; column += simt::kWarp) {
    const int64_t index = row * a.shape.columns + column;
    const float scale = a.scales[row * a.shape.groups + column / a.shape.group_width];
    const float error = simt::add_rounded(a.weight[index], -simt::multiply_rounded(a.steps[index], scale));
    const float ridge = a.ridge[column];
    a.errors[index] = error;
    if (a.residuals != nullptr) a.residuals[index] = error * ridge;
    loss += static_cast<double>(error) * static_cast<double>(error) * static_cast<double>(ridge);
  }
  loss = warp_sum_f64(loss);
  if (simt::lane() == 0) a.ridge_losses[row] = loss;
}

/// A fitted scale far from what it was says that its group has nothing to be fitted to.
SALIENT_DEVICE bool is_possible_scale(float fitted, float scale) {
  constexpr float kLeastRatio = 0.3f;
  constexpr float kLargestRatio = 3.0f;
  return fitted > kLeastRatio * scale && fitted < kLargestRatio * scale;
}

/// For a scale of s + d the loss is that of s less 2 d slope - d^2 curvature: the best one that can be
/// stored, or `scale` where that is no better.
SALIENT_DEVICE float fitted_scale(const GridRule& rule, float scale, double slope, double curvature) {
  if (!(curvature > 0)) return scale;
  const double best = static_cast<double>(scale) + slope / curvature;
  const float fitted = stored_scale(rule, best * static_cast<double>(rule.top));
  const double change = static_cast<double>(fitted) - static_cast<double>(scale);
  const bool better = change * change * curvature < 2 * change * slope;
  return is_possible_scale(fitted, scale) && better ? fitted : scale;
}

SALIENT_DEVICE void fit_scales_of_group(const FitScalesArguments& a) {
  const int64_t row = row_of_warp();
  if (row >= a.shape.rows) return;
  const int begin = a.group * a.shape.group_width;
  const int end =
      begin + a.shape.group_width < a.shape.columns ? begin + a.shape.group_width : a.shape.columns;
  const float* steps = a.steps + row * a.shape.columns;
  float* residuals = a.residuals + row * a.shape.columns;
  float* changes = a.changes + row * a.shape.columns;
  double slope = 0;
  double curvature = 0;
  for (int column = begin + simt::lane(); column < end; column += simt::kWarp) {
    const auto step = static_cast<double>(steps[column]);
    slope += step * static_cast<double>(residuals[column]);
    curvature += step * step * static_cast<double>(a.ridge[column]);
  }
  const int64_t group = row * a.shape.groups + a.group;
  const float scale = a.scales[group];
  const float fitted =
      fitted_scale(a.rule, scale, warp_sum_f64(slope), warp_sum_f64(curvature) + a.curvatures[group]);
  simt::sync_warp();  // all have read the scale
  if (simt::lane() == 0) a.scales[group] = fitted;
  for (int column = begin + simt::lane(); column < end; column += simt::kWarp) {
    const float change = (scale - fitted) * steps[column];
    changes[column] = change;
    residuals[column] += change * a.ridge[column];
  }
}

/// G of a block, zeros on and below its diagonal and beyond its end: changes reach what follows alone.
SALIENT_DEVICE void load_gram_block(const SweepColumnsArguments& a, float* shared) {
  for (int i = simt::thread(); i < kSweepBlock * kSweepBlock; i += kSweepThreads) {
    const int row = a.begin + i / kSweepBlock;
    const int column = a.begin + i % kSweepBlock;
    const bool behind = row < column && column < a.end;
    shared[i] = behind ? a.gram[int64_t{row} * a.shape.columns + column] : 0.0f;
  }
}

/// One row of a block, spread over a warp.
struct SweptRow {
  static constexpr int kOwn = kSweepBlock / simt::kWarp;
  float residual[kOwn];
  float step[kOwn];
  float scale[kOwn];
  float zero[kOwn];

  SALIENT_DEVICE void load(const SweepColumnsArguments& a, int64_t row) {
    SALIENT_UNROLL
    for (int i = 0; i < kOwn; ++i) {
      const int column = a.begin + i * simt::kWarp + simt::lane();
      const bool inside = row < a.shape.rows && column < a.end;
      const int64_t index = inside ? row * a.shape.columns + column : 0;
      const int64_t group = inside ? row * a.shape.groups + column / a.shape.group_width : 0;
      residual[i] = inside ? a.residuals[index] : 0.0f;
      step[i] = a.steps[index];
      scale[i] = a.scales[group];
      zero[i] = zero_of_group(a.zeros, a.top, group);
    }
  }
  /// Own column i of lane `turn` gets its best code; the change of its error, in every lane.
  SALIENT_DEVICE float sweep(int i, int turn, float diagonal, float top) {
    const float unit = diagonal * scale[i];
    const float nearest = rintf(step[i] + simt::divide_rounded(residual[i], unit));
    const float other = clamped(nearest, -zero[i], top - zero[i]) - step[i];
    const bool better = fabsf(residual[i]) > 0.5f * unit && fabsf(other) >= 1.0f;
    const float change = better ? other : 0.0f;
    if (simt::lane() == turn) step[i] += change;
    return simt::shuffle(-change * scale[i], turn);
  }
  SALIENT_DEVICE void store(const SweepColumnsArguments& a, int64_t row) const {
    SALIENT_UNROLL
    for (int i = 0; i < kOwn; ++i) {
      const int column = a.begin + i * simt::kWarp + simt::lane();
      if (row >= a.shape.rows || column >= a.end) continue;
      const int64_t index = row * a.shape.columns + column;
      const float change = (a.steps[index] - step[i]) * scale[i];
      a.steps[index] = step[i];
      a.changes[index] = change;
      a.residuals[index] += change * a.ridge[column];
    }
  }
};

SALIENT_DEVICE void sweep_block_of_columns(const SweepColumnsArguments& a) {
  constexpr int kOwn = SweptRow::kOwn;
  auto* gram = simt::shared_memory<float>();
  load_gram_block(a, gram);
  const int64_t first = int64_t{simt::block_x()} * kRowsOfSweepBlock + simt::warp() * kSweptRowsOfWarp;
  SweptRow rows[kSweptRowsOfWarp];
  SALIENT_UNROLL
  for (int r = 0; r < kSweptRowsOfWarp; ++r) rows[r].load(a, first + r);
  float diagonal[kOwn];
  SALIENT_UNROLL
  for (int i = 0; i < kOwn; ++i) {
    const int column = a.begin + i * simt::kWarp + simt::lane();
    diagonal[i] = column < a.end ? a.ridge[column] + a.gram[int64_t{column} * (a.shape.columns + 1)] : 0.0f;
  }
  simt::sync_block();
  const auto top = static_cast<float>(a.top);
  SALIENT_UNROLL
  for (int i = 0; i < kOwn; ++i) {
    for (int turn = 0; turn < simt::kWarp; ++turn) {
      const float* factors = gram + (i * simt::kWarp + turn) * kSweepBlock + simt::lane();
      SALIENT_UNROLL
      for (int r = 0; r < kSweptRowsOfWarp; ++r) {
        const float change = rows[r].sweep(i, turn, diagonal[i], top);
        SALIENT_UNROLL
        for (int j = i; j < kOwn; ++j) rows[r].residual[j] += change * factors[j * simt::kWarp];
      }
    }
  }
  SALIENT_UNROLL
  for (int r = 0; r < kSweptRowsOfWarp; ++r) rows[r].store(a, first + r);
}

SALIENT_DEVICE void store_scale(const StoredRows& stored, int64_t group, float scale) {
  if (stored.type == ScaleType::f32) {
    static_cast<float*>(stored.scales)[group] = scale;
    return;
  }
  const bool f16 = stored.type == ScaleType::f16;
  const uint32_t pair = f16 ? simt::pack_f16(scale, 0.0f) : simt::pack_bf16(scale, 0.0f);
  static_cast<uint16_t*>(stored.scales)[group] = static_cast<uint16_t>(pair);
}

/// A thread has a word of codes, and one of the scales, which are fewer.
SALIENT_DEVICE void store_better_rows(const StoreSweepArguments& a) {
  const int64_t index = int64_t{simt::block_x()} * kSweepThreads + simt::thread();
  if (index >= a.shape.rows * a.stored.words) return;
  const int64_t row = index / a.stored.words;
  // Not where anything is NaN.
  if (!(a.after.form[row] + a.after.ridge[row] < a.before.form[row] + a.before.ridge[row])) return;
  const auto place = static_cast<int>(index % a.stored.words);
  const int64_t first_group = row * a.shape.groups;
  if (place < a.shape.groups) store_scale(a.stored, first_group + place, a.scales[first_group + place]);
  const int codes = 32 / a.stored.bits;
  uint32_t word = 0;
  for (int i = 0; i < codes && place * codes + i < a.shape.columns; ++i) {
    const int column = place * codes + i;
    const float zero =
        zero_of_group(a.stored.zeros, a.stored.top, first_group + column / a.shape.group_width);
    const float code = a.steps[row * a.shape.columns + column] + zero;
    word |= static_cast<uint32_t>(code) << (i * a.stored.bits);
  }
  a.stored.codes[index] = word;
}

#define SALIENT_CODE_SWEEP_KERNELS(X)                                     \
  X(load_steps, LoadStepsArguments, 256, 1, load_steps_of_rows)           \
  X(sweep_errors, SweepErrorArguments, 256, 1, errors_of_sweep)           \
  X(fit_scales, FitScalesArguments, 256, 1, fit_scales_of_group)          \
  X(sweep_columns, SweepColumnsArguments, 256, 1, sweep_block_of_columns) \
  X(store_sweep, StoreSweepArguments, 256, 1, store_better_rows)

}  // namespace salient::cuda
