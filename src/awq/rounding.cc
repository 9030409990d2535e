#include "awq/rounding.h"

#include <algorithm>

#include "quant/group_quantize.h"

namespace salient {
namespace {

struct Range {
  float minimum;
  float maximum;
};

/// Eight running extremes, so that the compiler keeps them in vector registers.
Range range_of(std::span<const float> values) {
  constexpr size_t kLanes = 8;
  float low[kLanes] = {};
  float high[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const float value = values[i + lane];
      low[lane] = value < low[lane] ? value : low[lane];
      high[lane] = value > high[lane] ? value : high[lane];
    }
  }
  for (; i < values.size(); ++i) {
    low[0] = std::min(low[0], values[i]);
    high[0] = std::max(high[0], values[i]);
  }
  return {*std::min_element(low, low + kLanes), *std::max_element(high, high + kLanes)};
}

/// (clamp(round(w / scale) + zero, 0, max) - zero) * scale. Adding and taking away 1.5 * 2^23 rounds to the nearest
/// integer, ties to even, and unlike rint vectorises on any x86-64; |w / scale| <= 2^15 here, far below its limit of 2^22.
void round_group(std::span<const float> values, const GroupGrid& grid, int max_code_value, std::span<float> out) {
  constexpr float kRoundMagic = 12582912.0f;
  const auto low = static_cast<float>(-grid.zero);
  const auto high = static_cast<float>(max_code_value - grid.zero);
  for (size_t i = 0; i < values.size(); ++i) {
    float steps = (values[i] / grid.scale + kRoundMagic) - kRoundMagic;
    steps = steps < low ? low : steps;
    steps = steps > high ? high : steps;
    out[i] = steps * grid.scale;
  }
}

}  // namespace

void fake_quantize_row(const RoundingRule& rule, std::span<const float> row, std::span<const float> clip,
                       std::span<float> out) {
  const auto width = static_cast<size_t>(group_width(rule.scheme, static_cast<int64_t>(row.size())));
  for (size_t group = 0, begin = 0; begin < row.size(); ++group, begin += width) {
    const size_t count = std::min(width, row.size() - begin);
    Range range = range_of(row.subspan(begin, count));
    if (!clip.empty()) {
      range.minimum = std::max(range.minimum, -clip[group]);
      range.maximum = std::min(range.maximum, clip[group]);
    }
    // A weight beyond the clip saturates at the end of the grid, so clamping it first changes nothing but its distance
    // from the grid; round_group clamps the code instead.
    const GroupGrid grid = make_group_grid(rule.scheme, rule.scale_dtype, range.minimum, range.maximum);
    round_group(row.subspan(begin, count), grid, max_code(rule.scheme), out.subspan(begin, count));
  }
}

}  // namespace salient
