#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "backend/cpu/panels.h"
#include "tensor/dtype.h"

namespace salient {
namespace {

using PanelRow = std::array<float, kPanelRows>;

/// `index` is 16 * group + row.
float scale_at(const Panels& weights, int64_t panel, int64_t index) {
  const uint8_t* scales = weights.scales + panel * weights.panel_bytes;
  if (weights.scale_type == PanelScale::f32) return reinterpret_cast<const float*>(scales)[index];
  const uint16_t bits = reinterpret_cast<const uint16_t*>(scales)[index];
  return weights.scale_type == PanelScale::f16 ? to_float(Half{bits}) : to_float(BFloat16{bits});
}

float zero_at(const Panels& weights, int64_t panel, int64_t index) {
  if (weights.zeros == nullptr) return static_cast<float>(weights.zero);
  return static_cast<float>(weights.zeros[panel * weights.panel_bytes + index]);
}

const uint8_t* codes_of(const Panels& weights, int64_t panel) {
  return weights.codes + panel * weights.panel_bytes;
}

/// Line `index` of codes.
struct Line {
  Line(const Panels& weights, const uint8_t* codes, int64_t index)
      : code(weights.code), bytes(codes + index * line_bytes(code)) {}

  /// The code of a row in column 0 to 7.
  int at(int64_t row, int64_t column) const {
    if (code == PanelCode::byte) return bytes[column / 4 * kQuadBytes + 4 * row + column % 4];
    const uint8_t both = bytes[4 * row + column % 4];
    return column < 4 ? both & 15 : both >> 4;
  }

  PanelCode code;
  const uint8_t* bytes;
};

/// Runs body(group, first line, lines) for the blocks of a row, one after the other.
template <typename Problem, typename Body>
void for_each_block(const Problem& shape, int64_t lines, const Body& body) {
  for (int64_t group = 0; group < shape.groups; ++group) {
    const int64_t end = std::min(lines, (group + 1) * shape.group_lines);
    for (int64_t line = group * shape.group_lines; line < end; line += kMostBlockLines)
      body(group, line, std::min(kMostBlockLines, end - line));
  }
}

struct BlockScale {
  float scale;
  float inverse;
};

BlockScale block_scale(const float* x, int64_t count, float steps) {
  float most = 0;
  bool finite = true;
  for (int64_t i = 0; i < count; ++i) {
    finite = finite && std::isfinite(x[i]);
    most = std::max(most, std::abs(x[i]));
  }
  if (!finite) return {std::numeric_limits<float>::quiet_NaN(), 0};
  if (most < 1e-30f) return {0, 0};
  return {most / steps, steps / most};
}

void quantize_row(const QuantizeProblem& problem, int64_t row) {
  const float* x = problem.x + row * problem.stride;
  int8_t* codes = problem.codes + row * problem.planes * problem.plane_bytes;
  float* sums = problem.sums + row * problem.planes * problem.blocks;
  const int64_t lines = (problem.columns + kLineColumns - 1) / kLineColumns;
  std::fill_n(codes, problem.planes * problem.plane_bytes, int8_t{0});
  int64_t block = 0;
  for_each_block(problem, lines, [&](int64_t, int64_t line, int64_t count) {
    const int64_t begin = line * kLineColumns;
    const int64_t end = std::min(problem.columns, (line + count) * kLineColumns);
    const auto [scale, inverse] =
        block_scale(x + begin, end - begin, problem.planes == 1 ? 127.0f : 32639.0f);
    int sum[2] = {};
    for (int64_t k = begin; k < end && scale > 0; ++k) {
      const int code = static_cast<int>(std::lrintf(x[k] * inverse));
      const int low = static_cast<int8_t>(code);
      const int high = problem.planes == 1 ? code : (code - low) >> 8;
      codes[k] = static_cast<int8_t>(high);
      sum[0] += high;
      if (problem.planes == 1) continue;
      codes[problem.plane_bytes + k] = static_cast<int8_t>(low);
      sum[1] += low;
    }
    problem.scales[row * problem.blocks + block] = scale;
    for (int64_t p = 0; p < problem.planes; ++p)
      sums[p * problem.blocks + block] = static_cast<float>(sum[p]);
    ++block;
  });
}

void quantize(const QuantizeProblem& problem) {
  for (int64_t row = 0; row < problem.rows; ++row) quantize_row(problem, row);
}

/// Sums over lines [first, first + lines) of `panel` for each of its rows; x is that of column 0.
std::array<int, kPanelRows> dot_lines(const Panels& weights, int64_t panel, int64_t first, int64_t lines,
                                      const int8_t* x) {
  std::array<int, kPanelRows> sums{};
  for (int64_t index = first; index < first + lines; ++index) {
    const Line line(weights, codes_of(weights, panel), index);
    for (int64_t n = 0; n < kPanelRows; ++n) {
      for (int64_t k = 0; k < kLineColumns; ++k) sums[n] += line.at(n, k) * x[index * kLineColumns + k];
    }
  }
  return sums;
}

template <typename Inputs>
void store(const PanelProduct<Inputs>& problem, int64_t panel, int64_t row, const PanelRow& totals) {
  const int64_t first = panel * kPanelRows;
  for (int64_t n = 0; n < std::min(kPanelRows, problem.outputs - first); ++n) {
    const float bias = problem.bias == nullptr ? 0.0f : problem.bias[first + n];
    problem.y[row * problem.y_stride + first + n] = totals[n] + bias;
  }
}

void multiply_integer_panel(const PanelProduct<IntegerInputs>& problem, int64_t panel, int64_t row) {
  const Panels& weights = problem.weights;
  const IntegerInputs& inputs = problem.inputs;
  const int8_t* x = inputs.codes + row * inputs.planes * inputs.plane_bytes;
  const float* input_sums = inputs.sums + row * inputs.planes * inputs.blocks;
  PanelRow totals{};
  int64_t block = 0;
  for_each_block(weights, weights.lines, [&](int64_t group, int64_t line, int64_t lines) {
    std::array<std::array<int, kPanelRows>, 2> sums{};
    for (int64_t p = 0; p < inputs.planes; ++p)
      sums[p] = dot_lines(weights, panel, line, lines, x + p * inputs.plane_bytes);
    const float input_scale = inputs.scales[row * inputs.blocks + block];
    for (int64_t n = 0; n < kPanelRows; ++n) {
      const int64_t index = group * kPanelRows + n;
      const auto plane = [&](int64_t p) {
        return static_cast<float>(sums[p][n]) -
               zero_at(weights, panel, index) * input_sums[p * inputs.blocks + block];
      };
      const float sum = inputs.planes == 1 ? plane(0) : std::fma(256.0f, plane(0), plane(1));
      totals[n] = std::fma(scale_at(weights, panel, index) * input_scale, sum, totals[n]);
    }
    ++block;
  });
  store(problem, panel, row, totals);
}

void multiply_integers(const PanelProduct<IntegerInputs>& problem) {
  for (int64_t panel = problem.begin; panel < problem.end; ++panel) {
    for (int64_t row = 0; row < problem.inputs.rows; ++row) multiply_integer_panel(problem, panel, row);
  }
}

void prepare_floats(const FloatInputProblem& problem) {
  const int64_t padded = problem.lines * kLineColumns;
  for (int64_t row = 0; row < problem.rows; ++row) {
    const float* x = problem.x + row * problem.columns;
    std::copy_n(x, problem.columns, problem.values + row * padded);
    std::fill_n(problem.values + row * padded + problem.columns, padded - problem.columns, 0.0f);
  }
  std::fill_n(problem.sums, problem.rows * problem.groups, 0.0f);  // zeros are subtracted code by code
}

void multiply_float_panel(const PanelProduct<FloatInputs>& problem, int64_t panel, int64_t row) {
  const Panels& weights = problem.weights;
  const uint8_t* codes = codes_of(weights, panel);
  const float* x = problem.inputs.values + row * weights.lines * kLineColumns;
  PanelRow totals{};
  for (int64_t group = 0; group < weights.groups; ++group) {
    const int64_t begin = group * weights.group_lines * kLineColumns;
    const int64_t end = std::min(weights.lines, (group + 1) * weights.group_lines) * kLineColumns;
    for (int64_t n = 0; n < kPanelRows; ++n) {
      const int64_t index = group * kPanelRows + n;
      const float zero = zero_at(weights, panel, index);
      float sums[4] = {};
      for (int64_t k = begin; k < end; ++k) {
        const int code = Line(weights, codes, k / kLineColumns).at(n, k % kLineColumns);
        sums[k % 4] += x[k] * (static_cast<float>(code) - zero);
      }
      totals[n] += scale_at(weights, panel, index) * ((sums[0] + sums[1]) + (sums[2] + sums[3]));
    }
  }
  store(problem, panel, row, totals);
}

void multiply_floats(const PanelProduct<FloatInputs>& problem) {
  for (int64_t panel = problem.begin; panel < problem.end; ++panel) {
    for (int64_t row = 0; row < problem.inputs.rows; ++row) multiply_float_panel(problem, panel, row);
  }
}

void expand(const PanelExpandProblem& problem) {
  const Panels& weights = problem.weights;
  const uint8_t* codes = codes_of(weights, problem.panel);
  for (int64_t line = problem.line; line < problem.line + problem.lines; ++line) {
    const int64_t first = line / weights.group_lines * kPanelRows;
    for (int64_t k = 0; k < kLineColumns; ++k) {
      float* out = problem.out + ((line - problem.line) * kLineColumns + k) * problem.stride;
      for (int64_t n = 0; n < kPanelRows; ++n) {
        const float code = static_cast<float>(Line(weights, codes, line).at(n, k));
        out[n] =
            (code - zero_at(weights, problem.panel, first + n)) * scale_at(weights, problem.panel, first + n);
      }
    }
  }
}

}  // namespace

const PanelKernels kPortablePanels{
    .quantize = quantize,
    .multiply_integers = multiply_integers,
    .prepare_floats = prepare_floats,
    .multiply_floats = multiply_floats,
    .expand = expand,
    .multiply_in_tiles = nullptr,
};

}  // namespace salient
