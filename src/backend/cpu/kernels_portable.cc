#include <algorithm>
#include <cmath>

#include "backend/cpu/kernels.h"
#include "tensor/dtype.h"

namespace salient {
namespace {

float widen(float value) { return value; }
float widen(Half value) { return to_float(value); }
float widen(BFloat16 value) { return to_float(value); }

/// Eight running sums: enough for the compiler to use whole registers, and a smaller error than one.
constexpr int64_t kSums = 8;

float sum_of(const float (&sums)[kSums]) {
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

template <typename Weight>
float dot_row(const float* x, const Weight* weights, int64_t depth) {
  float sums[kSums] = {};
  const int64_t whole = depth / kSums * kSums;
  for (int64_t k = 0; k < whole; k += kSums) {
    for (int64_t lane = 0; lane < kSums; ++lane) sums[lane] += x[k + lane] * widen(weights[k + lane]);
  }
  for (int64_t k = whole; k < depth; ++k) sums[k - whole] += x[k] * widen(weights[k]);
  return sum_of(sums);
}

template <typename Weight>
void dot(const DotProblem& problem) {
  const auto* weights = static_cast<const Weight*>(problem.weights);
  for (int64_t n = 0; n < problem.outputs; ++n) {
    const float bias = problem.bias == nullptr ? 0.0f : problem.bias[n];
    for (int64_t r = 0; r < problem.rows; ++r) {
      problem.y[r * problem.y_stride + n] =
          dot_row(problem.x + r * problem.x_stride, weights + n * problem.weight_stride, problem.depth) +
          bias;
    }
  }
}

template <int kBits>
float code_minus_zero(const IntegerRows& weights, int64_t row, int64_t column, int zero) {
  const int64_t bit = column * kBits;
  const int byte = weights.codes[row * weights.row_bytes + bit / 8];
  return static_cast<float>((byte >> bit % 8 & ((1 << kBits) - 1)) - zero);
}

template <int kBits>
int zero_of(const IntegerRows& weights, int64_t row, int64_t group) {
  return weights.zeros == nullptr ? 1 << (kBits - 1) : weights.zeros[row * weights.groups + group];
}

template <int kBits>
float dot_integer_row(const IntegerDotProblem& problem, int64_t r, int64_t n) {
  const IntegerRows& weights = problem.weights;
  const float* x = problem.x + r * problem.x_stride;
  float total = 0;
  for (int64_t group = 0; group < weights.groups; ++group) {
    const int zero = zero_of<kBits>(weights, n, group);
    const int64_t begin = group * weights.group_width;
    const int64_t end = std::min(problem.depth, begin + weights.group_width);
    float sums[kSums] = {};
    for (int64_t k = begin; k < end; ++k) {
      sums[(k - begin) % kSums] += x[k] * code_minus_zero<kBits>(weights, n, k, zero);
    }
    total += sum_of(sums) * weights.scales[n * weights.groups + group];
  }
  return total;
}

template <int kBits>
void dot_integer(const IntegerDotProblem& problem) {
  for (int64_t n = 0; n < problem.outputs; ++n) {
    const float bias = problem.bias == nullptr ? 0.0f : problem.bias[n];
    for (int64_t r = 0; r < problem.rows; ++r) {
      problem.y[r * problem.y_stride + n] = dot_integer_row<kBits>(problem, r, n) + bias;
    }
  }
}

template <int kBits>
void expand_integer(const IntegerExpandProblem& problem) {
  const IntegerRows& weights = problem.weights;
  for (int64_t row = 0; row < problem.rows; ++row) {
    for (int64_t i = 0; i < problem.columns; ++i) {
      const int64_t column = problem.column + i;
      const int64_t group = column / weights.group_width;
      problem.out[row * problem.stride + i] =
          code_minus_zero<kBits>(weights, row, column, zero_of<kBits>(weights, row, group)) *
          weights.scales[row * weights.groups + group];
    }
  }
}

void weighted_sum(const WeightedSumProblem& problem) {
  for (int64_t r = 0; r < problem.rows; ++r) {
    const float* factors = problem.factors + r * problem.factor_stride;
    float* out = problem.out + r * problem.out_stride;
    std::fill_n(out, problem.features, 0.0f);
    for (int64_t i = 0; i < problem.count; ++i) {
      const float* row = problem.values + i * problem.stride;
      for (int64_t f = 0; f < problem.features; ++f) out[f] += factors[i] * row[f];
    }
  }
}

void widen_f16(const uint16_t* in, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = to_float(Half{in[i]});
}

void widen_bf16(const uint16_t* in, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = to_float(BFloat16{in[i]});
}

void narrow_bf16(const float* in, int64_t count, uint16_t* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = to_bfloat16(in[i]).bits;
}

void narrow_f16(const float* in, int64_t count, uint16_t* out) {
  constexpr float kLargestHalf = 65504;
  for (int64_t i = 0; i < count; ++i)
    out[i] = to_half(std::isnan(in[i]) ? in[i] : std::clamp(in[i], -kLargestHalf, kLargestHalf)).bits;
}

void widen_int8(const int8_t* in, int64_t count, float scale, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = static_cast<float>(in[i]) * scale;
}

void narrow_int8(const float* in, int64_t count, float factor, int8_t* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = static_cast<int8_t>(std::lrintf(in[i] * factor));
}

void rms_norm(const float* x, const float* weight, int64_t count, double epsilon, float* y) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += double{x[i]} * double{x[i]};
  const auto factor = static_cast<float>(1.0 / std::sqrt(sum / static_cast<double>(count) + epsilon));
  for (int64_t i = 0; i < count; ++i) y[i] = x[i] * factor * weight[i];
}

void layer_norm(const LayerNormProblem& problem) {
  double sum = 0;
  for (int64_t i = 0; i < problem.count; ++i) sum += double{problem.x[i]};
  const double mean = sum / static_cast<double>(problem.count);
  double squares = 0;
  for (int64_t i = 0; i < problem.count; ++i) squares += (problem.x[i] - mean) * (problem.x[i] - mean);
  const auto factor =
      static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(problem.count) + problem.epsilon));
  const auto middle = static_cast<float>(mean);
  for (int64_t i = 0; i < problem.count; ++i) {
    const float bias = problem.bias == nullptr ? 0.0f : problem.bias[i];
    problem.y[i] = (problem.x[i] - middle) * factor * problem.weight[i] + bias;
  }
}

void add(const float* x, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] += x[i];
}

void add_scaled(float factor, const float* x, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] += factor * x[i];
}

bool all_finite(const float* x, int64_t count) {
  return std::all_of(x, x + count, [](float value) { return std::isfinite(value); });
}

double inner_product(const float* a, const float* b, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += double{a[i] * b[i]};
  return sum;
}

void multiply(const float* a, const float* b, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = a[i] * b[i];
}

void scaled_difference(const float* scales, const float* x, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = y[i] / scales[i] - x[i];
}

void extremes(const float* x, int64_t count, float* least, float* largest) {
  *least = 0;
  *largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    *least = std::min(*least, x[i]);
    *largest = std::max(*largest, x[i]);
  }
}

float nearest_code(float x, float scale, float zero, float top) {
  const float ratio = std::clamp(x / scale, -(top + 1), top + 1);
  return std::clamp(std::nearbyint(ratio) + zero, 0.0f, top);
}

void round_to_grid(const GridProblem& problem) {
  for (int64_t i = 0; i < problem.count; ++i) {
    const float bounded = std::clamp(problem.x[i], -problem.bound, problem.bound);
    const float code = nearest_code(bounded, problem.scale, problem.zero, problem.top);
    problem.out[i] = (code - problem.zero) * problem.scale;
  }
}

void round_columns(const ColumnRoundingProblem& problem) {
  for (int64_t k = 0; k < problem.columns; ++k) {
    const float* scales = problem.scales + problem.grid_offsets[k];
    const float* zeros = problem.zeros + problem.grid_offsets[k];
    const float* factors = problem.factors + k * problem.factor_stride;
    for (int64_t row = 0; row < problem.rows; ++row) {
      float& target = problem.targets[k * problem.rows + row];
      float& value = problem.values[k * problem.rows + row];
      target = nearest_code(target, scales[row], zeros[row], problem.top);
      value -= (target - zeros[row]) * scales[row];
    }
    for (int64_t j = k + 1; j < problem.columns; ++j) {
      for (int64_t row = 0; row < problem.rows; ++row) {
        problem.targets[j * problem.rows + row] += problem.values[k * problem.rows + row] * factors[j];
      }
    }
  }
}

void rope(const float* cosine, const float* sine, int64_t half, float* head) {
  for (int64_t i = 0; i < half; ++i) {
    const float first = head[i];
    const float second = head[i + half];
    head[i] = first * cosine[i] - second * sine[i];
    head[i + half] = second * cosine[i] + first * sine[i];
  }
}

SoftmaxTotal softmax(float* x, int64_t count) {
  const float maximum = *std::max_element(x, x + count);
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    x[i] = std::exp(x[i] - maximum);
    sum += double{x[i]};
  }
  const auto factor = static_cast<float>(1.0 / sum);
  for (int64_t i = 0; i < count; ++i) x[i] *= factor;
  return {maximum, sum};
}

void gated_silu(const float* gate, const float* up, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
}

/// Hendrycks & Gimpel 2016: x/2 (1 + tanh u) with u = sqrt(2/pi) (x + 0.044715 x^3), which is x / (1 +
/// e^-2u).
void gated_gelu_tanh(const float* gate, const float* up, int64_t count, float* y) {
  constexpr float kTwoRootTwoOverPi = 1.5957691216057308f;
  for (int64_t i = 0; i < count; ++i) {
    const float x = gate[i];
    y[i] = x / (1.0f + std::exp(-kTwoRootTwoOverPi * (x + 0.044715f * x * x * x))) * up[i];
  }
}

void gated_relu(const float* gate, const float* up, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = std::max(gate[i], 0.0f) * up[i];
}

void gated_sigmoid(const float* gate, const float* up, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = up[i] / (1.0f + std::exp(-gate[i]));
}

void exponential(const float* x, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = std::exp(x[i]);
}

}  // namespace

void rope_neighbours(const float* cosine, const float* sine, int64_t pairs, float* head) {
  for (int64_t i = 0; i < pairs; ++i) {
    const float first = head[2 * i];
    const float second = head[2 * i + 1];
    head[2 * i] = first * cosine[i] - second * sine[i];
    head[2 * i + 1] = second * cosine[i] + first * sine[i];
  }
}

void gated_gelu(const float* gate, const float* up, int64_t count, float* y) {
  constexpr float kInverseRootTwo = 0.70710678118654752f;
  for (int64_t i = 0; i < count; ++i) {
    y[i] = 0.5f * gate[i] * (1.0f + std::erf(gate[i] * kInverseRootTwo)) * up[i];
  }
}

const CpuKernels kPortableKernels{
    .isa = Isa::portable,
    .dot_f32 = dot<float>,
    .dot_f16 = dot<Half>,
    .dot_bf16 = dot<BFloat16>,
    .dot_short = dot<float>,
    .dot_w4 = dot_integer<4>,
    .dot_w8 = dot_integer<8>,
    .expand_w4 = expand_integer<4>,
    .expand_w8 = expand_integer<8>,
    .weighted_sum = weighted_sum,
    .widen_f16 = widen_f16,
    .widen_bf16 = widen_bf16,
    .narrow_bf16 = narrow_bf16,
    .narrow_f16 = narrow_f16,
    .widen_int8 = widen_int8,
    .narrow_int8 = narrow_int8,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .add = add,
    .add_scaled = add_scaled,
    .all_finite = all_finite,
    .inner_product = inner_product,
    .multiply = multiply,
    .scaled_difference = scaled_difference,
    .extremes = extremes,
    .round_to_grid = round_to_grid,
    .round_columns = round_columns,
    .rope = rope,
    .softmax = softmax,
    .gated_silu = gated_silu,
    .gated_gelu = gated_gelu,
    .gated_gelu_tanh = gated_gelu_tanh,
    .gated_relu = gated_relu,
    .gated_sigmoid = gated_sigmoid,
    .exponential = exponential,
};

}  // namespace salient
