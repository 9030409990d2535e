#include "quant/group_quantize.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "base/parallel.h"

namespace salient {
namespace {

/// Below 2^22 in magnitude, adding 1.5 * 2^23 leaves no bits for a fraction, so the hardware rounds to the
/// nearest integer, ties to even; unlike nearbyint this vectorises on every x86-64.
inline float round_to_even(float value) {
  constexpr float kMagic = 0x1.8p23f;
  return (value + kMagic) - kMagic;
}

/// Codes differ by at most max_code from the zero, so clamping before the rounding changes nothing; it keeps
/// round_to_even in its range. `limit` is an integer above max_code.
inline float rounded_ratio(float value, float scale, float limit) {
  float ratio = value / scale;
  ratio = ratio < -limit ? -limit : ratio;
  ratio = ratio > limit ? limit : ratio;
  return round_to_even(ratio);
}

inline float code_of(float value, float scale, float zero, float top) {
  float code = rounded_ratio(value, scale, top + 1) + zero;
  code = code < 0 ? 0.0f : code;
  return code > top ? top : code;
}

/// `width` comes in double because the difference of two floats may leave their range.
float stored_scale(DType dtype, double width, int steps) {
  const auto range = scale_range(dtype, steps);
  const float bounded = std::clamp(static_cast<float>(width / steps), range.smallest, range.largest);
  return round_to(dtype, bounded);
}

struct Extremes {
  float minimum = 0;
  float maximum = 0;
};

/// Extremes of `values` and 0. Eight independent lanes, because a compiler may not reorder one chain of float
/// comparisons.
Extremes extremes_of(std::span<const float> values) {
  constexpr size_t kLanes = 8;
  std::array<float, kLanes> low{};
  std::array<float, kLanes> high{};
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
  return {*std::min_element(low.begin(), low.end()), *std::max_element(high.begin(), high.end())};
}

Extremes join(const Extremes& a, const Extremes& b) {
  return {std::min(a.minimum, b.minimum), std::max(a.maximum, b.maximum)};
}

/// Of a matrix f32 [out, in] whose columns are multiplied by `column_scales`, unless these are empty.
Extremes extremes_of_matrix(const Tensor& weight, std::span<const float> column_scales) {
  constexpr size_t kRowsPerChunk = 16;
  const auto rows = static_cast<size_t>(weight.dim(0));
  const auto columns = static_cast<size_t>(weight.dim(1));
  const auto values = weight.values<float>();
  std::vector<Extremes> per_chunk((rows + kRowsPerChunk - 1) / kRowsPerChunk);
  parallel_for(rows, kRowsPerChunk, [&](size_t begin, size_t end) {
    std::vector<float> scaled(column_scales.size());
    Extremes& chunk = per_chunk[begin / kRowsPerChunk];
    for (size_t row = begin; row < end; ++row) {
      const auto source = values.subspan(row * columns, columns);
      for (size_t c = 0; c < scaled.size(); ++c) scaled[c] = source[c] * column_scales[c];
      chunk = join(chunk, extremes_of(scaled.empty() ? source : std::span<const float>(scaled)));
    }
  });
  return std::accumulate(per_chunk.begin(), per_chunk.end(), Extremes{}, join);
}

void require_finite(std::span<const float> values, size_t row) {
  uint32_t largest = 0;
  for (const float value : values) largest = std::max(largest, std::bit_cast<uint32_t>(value) & 0x7fffffffu);
  if (largest < 0x7f800000u) return;
  const auto bad = std::find_if(values.begin(), values.end(), [](float x) { return !std::isfinite(x); });
  fail(ErrorKind::invalid_argument, "weight at row {}, column {} is {}", row, bad - values.begin(), *bad);
}

/// The grid of one group whose weights count as at most `bound` in magnitude.
GroupGrid bounded_grid(const RoundingRule& rule, std::span<const float> values, float bound) {
  if (rule.grid) return *rule.grid;
  const auto extremes = extremes_of(values);
  return make_group_grid(rule.scheme, rule.scale_dtype, std::max(extremes.minimum, -bound),
                         std::min(extremes.maximum, bound));
}

/// The grid may reach up to half a step beyond the bound, so the weights are clamped as well as the extremes.
inline float bounded_code(float value, float bound, float scale, float zero, float top) {
  value = value < -bound ? -bound : value;
  value = value > bound ? bound : value;
  return code_of(value, scale, zero, top);
}

/// One code a byte to the bytes of a row: as they are, or two to each.
void pack_codes(std::span<const uint8_t> codes, std::span<uint8_t> packed) {
  if (codes.size() == packed.size()) {
    std::copy(codes.begin(), codes.end(), packed.begin());
    return;
  }
  for (size_t i = 0; i < packed.size(); ++i) {
    packed[i] = static_cast<uint8_t>(codes[2 * i] | codes[2 * i + 1] << 4);
  }
}

/// One call of quantize_to_nearest: what its rows share.
class RowQuantizer {
 public:
  RowQuantizer(const Tensor& weight, const Tensor& clip, QuantizedWeight& result)
      : rule_(rule_for_matrix({.scheme = result.scheme, .scale_dtype = result.scales.dtype()}, weight)),
        columns_(static_cast<size_t>(result.in_features)),
        groups_(static_cast<size_t>(result.groups())),
        width_(static_cast<size_t>(group_width(result.scheme, result.in_features))),
        row_bytes_(static_cast<size_t>(result.row_bytes())),
        weight_(weight.values<float>()),
        clip_(clip.defined() ? clip.values<float>() : std::span<const float>()),
        codes_(result.codes.mutable_values<uint8_t>()),
        zeros_(result.zeros.defined() ? result.zeros.mutable_values<uint8_t>() : std::span<uint8_t>()),
        result_(result) {}

  void run(size_t begin, size_t end) const {
    const auto codes_per_byte = static_cast<size_t>(8 / result_.code_bits());
    std::vector<uint8_t> codes(row_bytes_ * codes_per_byte);
    std::vector<float> scales(groups_);
    for (size_t row = begin; row < end; ++row) quantize_row(row, codes, scales);
  }

 private:
  void quantize_row(size_t row, std::span<uint8_t> codes, std::span<float> scales) const {
    const auto values = weight_.subspan(row * columns_, columns_);
    require_finite(values, row);
    for (size_t group = 0; group < groups_; ++group) {
      const size_t begin = group * width_;
      const size_t count = std::min(width_, columns_ - begin);
      const size_t index = row * groups_ + group;
      const auto grid =
          quantize_group(values.subspan(begin, count), bound_of(index), codes.subspan(begin, count));
      scales[group] = grid.scale;
      if (!zeros_.empty()) zeros_[index] = static_cast<uint8_t>(grid.zero);
    }
    pack_codes(codes, codes_.subspan(row * row_bytes_, row_bytes_));
    const DType dtype = rule_.scale_dtype;
    convert_from_float(scales, dtype, result_.scales.mutable_bytes() + row * groups_ * byte_size(dtype));
  }

  float bound_of(size_t index) const {
    if (clip_.empty()) return std::numeric_limits<float>::infinity();
    const float bound = clip_[index];
    if (bound >= 0) return bound;
    fail(ErrorKind::invalid_argument, "the clip of row {}, group {} is {}", index / groups_, index % groups_,
         bound);
  }

  GroupGrid quantize_group(std::span<const float> values, float bound, std::span<uint8_t> codes) const {
    const auto grid = bounded_grid(rule_, values, bound);
    const auto zero = static_cast<float>(grid.zero);
    const auto top = static_cast<float>(max_code(rule_.scheme));
    for (size_t i = 0; i < values.size(); ++i) {
      codes[i] =
          static_cast<uint8_t>(static_cast<int>(bounded_code(values[i], bound, grid.scale, zero, top)));
    }
    return grid;
  }

  RoundingRule rule_;
  size_t columns_;
  size_t groups_;
  size_t width_;
  size_t row_bytes_;
  std::span<const float> weight_;
  std::span<const float> clip_;
  std::span<uint8_t> codes_;
  std::span<uint8_t> zeros_;
  QuantizedWeight& result_;
};

}  // namespace

/// The normal numbers of a type, as a reader may flush subnormals; above, no more than leaves every code's
/// distance from the zero finite: 2^124 for 15 steps, 2^120 for 255. The scales of 8-bit codes are so small
/// that f16 needs some of its subnormals, whose last bit is 2^-24: with max|w| below 0.008 precision would be
/// lost.
ScaleRange scale_range(DType dtype, int steps) {
  if (dtype == DType::f16) return {steps > 15 ? 0x1p-20f : 0x1p-14f, 65504.0f};
  return {std::numeric_limits<float>::min(), 0x1p127f / static_cast<float>(steps + 1) * 2};
}

float storable_scale(const QuantizationScheme& scheme, DType scale_dtype, double scale) {
  const int steps = max_code(scheme);
  return stored_scale(scale_dtype, scale * steps, steps);
}

GroupGrid make_group_grid(const QuantizationScheme& scheme, DType scale_dtype, float minimum, float maximum) {
  minimum = std::min(minimum, 0.0f);
  maximum = std::max(maximum, 0.0f);
  const int zero_of_symmetric = scheme.symmetric ? symmetric_zero(scheme) : 0;
  if (minimum == 0 && maximum == 0) return {.scale = 1, .zero = zero_of_symmetric};
  const int steps = max_code(scheme);
  if (scheme.symmetric) {
    const double magnitude = std::max(-minimum, maximum);
    return {.scale = stored_scale(scale_dtype, 2 * magnitude, steps), .zero = zero_of_symmetric};
  }
  const float scale = stored_scale(scale_dtype, static_cast<double>(maximum) - minimum, steps);
  const auto top = static_cast<float>(steps);
  const float zero = rounded_ratio(-minimum, scale, top);
  return {.scale = scale, .zero = static_cast<int>(zero)};
}

int quantize_value(const QuantizationScheme& scheme, const GroupGrid& grid, float value) {
  const auto top = static_cast<float>(max_code(scheme));
  return static_cast<int>(code_of(value, grid.scale, static_cast<float>(grid.zero), top));
}

RoundingRule rule_for_matrix(const RoundingRule& rule, const Tensor& weight,
                             std::span<const float> column_scales) {
  if (rule.scheme.group_size != QuantizationScheme::kWholeMatrix) return rule;
  const auto extremes = extremes_of_matrix(weight, column_scales);
  RoundingRule result = rule;
  result.grid = make_group_grid(rule.scheme, rule.scale_dtype, extremes.minimum, extremes.maximum);
  return result;
}

QuantizedWeight quantize_to_nearest(const Tensor& weight, const Tensor& clip,
                                    const QuantizationScheme& scheme, DType scale_dtype) {
  validate(scheme);
  if (weight.dtype() != DType::f32 || weight.shape().size() != 2) {
    fail(ErrorKind::internal, "rounding needs an F32 matrix, got {} {}", to_string(weight.dtype()),
         to_string(weight.shape()));
  }
  auto result = allocate_quantized_weight(scheme, weight.dim(0), weight.dim(1), scale_dtype);
  if (clip.defined() && clip.shape() != result.scales.shape()) {
    fail(ErrorKind::internal, "the clip has shape {}, the scales have {}", to_string(clip.shape()),
         to_string(result.scales.shape()));
  }
  if (clip.defined() && scheme.group_size == QuantizationScheme::kWholeMatrix) {
    fail(ErrorKind::internal, "a clip of each row cannot bound the one grid of a matrix");
  }
  const RowQuantizer quantizer(weight, clip, result);
  parallel_for(static_cast<size_t>(weight.dim(0)), 16,
               [&](size_t begin, size_t end) { quantizer.run(begin, end); });
  return result;
}

void fake_quantize_row(const RoundingRule& rule, std::span<const float> row, std::span<const float> clip,
                       std::span<float> out) {
  if (rule.scheme.group_size == QuantizationScheme::kWholeMatrix && !rule.grid) {
    fail(ErrorKind::internal, "a row cannot be rounded without the grid of its matrix");
  }
  const auto width = static_cast<size_t>(group_width(rule.scheme, static_cast<int64_t>(row.size())));
  const auto top = static_cast<float>(max_code(rule.scheme));
  for (size_t group = 0, begin = 0; begin < row.size(); ++group, begin += width) {
    const auto values = row.subspan(begin, std::min(width, row.size() - begin));
    const float bound = clip.empty() ? std::numeric_limits<float>::infinity() : clip[group];
    const GroupGrid grid = bounded_grid(rule, values, bound);
    const auto zero = static_cast<float>(grid.zero);
    for (size_t i = 0; i < values.size(); ++i) {
      out[begin + i] = (bounded_code(values[i], bound, grid.scale, zero, top) - zero) * grid.scale;
    }
  }
}

}  // namespace salient
