#pragma once

#include <cmath>

#include "backend/cuda/grid.h"
#include "backend/cuda/simt.h"

// The arithmetic of record of quant/group_quantize.cc, operation by operation: what is rounded on a device
// has the bits of what the CPU rounds.

namespace salient::cuda {

struct Extremes {
  float minimum = 0;
  float maximum = 0;
};

struct CodeGrid {
  float scale;
  float zero;
};

/// Comparisons that leave out NaN.
SALIENT_DEVICE void widen(Extremes& extremes, float value) {
  extremes.minimum = value < extremes.minimum ? value : extremes.minimum;
  extremes.maximum = value > extremes.maximum ? value : extremes.maximum;
}
SALIENT_DEVICE Extremes extremes_of_warp(const Extremes& own) {
  return {-simt::warp_max(-own.minimum), simt::warp_max(own.maximum)};
}

/// NaN stays.
SALIENT_DEVICE float clamped(float value, float least, float most) {
  value = value < least ? least : value;
  return value > most ? most : value;
}

/// Clamping before the rounding changes nothing, as codes differ by at most `limit` - 1 from the zero.
SALIENT_DEVICE float rounded_ratio(float value, float scale, float limit) {
  return rintf(clamped(simt::divide_rounded(value, scale), -limit, limit));
}
SALIENT_DEVICE float nearest_code(float value, const CodeGrid& grid, float top) {
  return clamped(simt::add_rounded(rounded_ratio(value, grid.scale, top + 1.0f), grid.zero), 0.0f, top);
}
SALIENT_DEVICE float value_of_code(float code, const CodeGrid& grid) {
  return simt::multiply_rounded(code - grid.zero, grid.scale);
}

SALIENT_DEVICE float stored_number(ScaleType type, const void* numbers, int64_t index) {
  if (type == ScaleType::f32) return static_cast<const float*>(numbers)[index];
  const uint16_t bits = static_cast<const uint16_t*>(numbers)[index];
  return type == ScaleType::f16 ? simt::float_of_f16(bits) : simt::float_of_bf16(bits);
}

SALIENT_DEVICE float stored_scale(const GridRule& rule, double width) {
  const auto scale = static_cast<float>(width / static_cast<double>(rule.top));
  const float bounded = clamped(scale, rule.smallest, rule.largest);
  if (rule.type == ScaleType::f16) return simt::F16::low(simt::F16::pack(bounded, 0.0f));
  if (rule.type == ScaleType::bf16) return simt::BF16::low(simt::BF16::pack(bounded, 0.0f));
  return bounded;
}

/// make_group_grid, for weights that count as at most `bound`.
SALIENT_DEVICE CodeGrid grid_of(const GridRule& rule, const Extremes& extremes, float bound) {
  const float minimum = extremes.minimum < -bound ? -bound : extremes.minimum;
  const float maximum = bound < extremes.maximum ? bound : extremes.maximum;
  const float middle = rule.symmetric != 0 ? static_cast<float>((rule.top + 1) / 2) : 0.0f;
  if (minimum == 0 && maximum == 0) return {1.0f, middle};
  if (rule.symmetric != 0) {
    const float magnitude = -minimum < maximum ? maximum : -minimum;
    return {stored_scale(rule, 2.0 * static_cast<double>(magnitude)), middle};
  }
  const float scale = stored_scale(rule, static_cast<double>(maximum) - static_cast<double>(minimum));
  return {scale, rounded_ratio(-minimum, scale, static_cast<float>(rule.top))};
}

}  // namespace salient::cuda
