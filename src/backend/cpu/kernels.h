#pragma once

// Included by the kernel files ahead of their target region: nothing here may bring in inline functions.
#include <cstdint>

namespace salient {

enum class Isa { portable, avx2, avx512, neon };

/// y[r, n] = x[r] . w[n] + bias[n]. f16 and bf16 elements are passed as their bits.
struct DotProblem {
  const float* x;  ///< [rows, depth], rows x_stride apart
  int64_t rows;
  int64_t x_stride;
  const void* weights;  ///< [outputs, depth], rows weight_stride elements apart
  int64_t weight_stride;
  int64_t outputs;
  int64_t depth;
  const float* bias;  ///< [outputs] or null
  float* y;           ///< [rows, outputs], rows y_stride apart
  int64_t y_stride;
};

/// Rows of an integer weight: value = (code - zero) * scale.
struct IntegerRows {
  const uint8_t* codes;  ///< [rows, row_bytes]; two to a byte for dot_w4, the even column in the low nibble
  int64_t row_bytes;
  const float* scales;   ///< [rows, groups]
  const uint8_t* zeros;  ///< [rows, groups]; null: every zero is 2^(bits-1)
  int64_t groups;
  int64_t group_width;
};

/// The product of DotProblem with an integer weight.
struct IntegerDotProblem {
  const float* x;
  int64_t rows;
  int64_t x_stride;
  IntegerRows weights;
  int64_t outputs;
  int64_t depth;
  const float* bias;
  float* y;
  int64_t y_stride;
};

/// Columns [column, column + columns) of `rows` rows, as floats `stride` apart.
struct IntegerExpandProblem {
  IntegerRows weights;
  int64_t rows;
  int64_t column;  ///< even for codes of 4 bits
  int64_t columns;
  float* out;  ///< [rows, columns]
  int64_t stride;
};

/// out[r, f] = sum over i of factors[r, i] * values[i, f], one i after the other.
struct WeightedSumProblem {
  const float* factors;  ///< [rows, count], rows factor_stride apart
  int64_t factor_stride;
  int64_t rows;
  int64_t count;
  const float* values;  ///< [count, features], rows `stride` apart
  int64_t stride;
  int64_t features;
  float* out;  ///< [rows, features], rows out_stride apart
  int64_t out_stride;
};

/// What a softmax divided by: e^highest * sum.
struct SoftmaxTotal {
  float highest;
  double sum;
};

/// y = (x - mean) / sqrt(variance + epsilon) * weight + bias, mean and variance in double. y may be x.
struct LayerNormProblem {
  const float* x;
  const float* weight;
  const float* bias;  ///< or null
  int64_t count;
  double epsilon;
  float* y;
};

/// y = activation(gate) * up; y may be gate.
using GatedKernel = void(const float* gate, const float* up, int64_t count, float* y);

/// Weights as they come back from a grid: out = (code - zero) * scale with code = round(clamp(x) / scale) +
/// zero within 0..top, x clamped to +-bound, ties to even. out may be x.
struct GridProblem {
  const float* x;
  int64_t count;
  float scale;
  float zero;
  float top;
  float bound;
  float* out;
};

/// Columns rounded one after the other, many rows side by side: column c of row r stands at [c * rows + r].
struct ColumnRoundingProblem {
  static constexpr int64_t kRowStep = 16;

  int64_t columns;
  int64_t rows;          ///< a multiple of kRowStep
  const float* factors;  ///< U [columns, columns], rows factor_stride apart
  int64_t factor_stride;
  const float* scales;
  const float* zeros;
  const int64_t* grid_offsets;  ///< [columns], where the [rows] scales and zeros of a column begin
  float top;                    ///< the largest code
  float* targets;               ///< in: what the column would be without those before it; out: its codes
  float* values;                ///< in: weights w; out: errors w - q
};

/// One implementation of everything that runs inside a thread. Nothing is validated; pointers need no
/// alignment; arrays overlap only where a comment says so. A result never depends on how many rows or outputs
/// share a call.
struct CpuKernels {
  Isa isa;

  // Products with few rows: exact f32 arithmetic up to the order of summation, meant to run at memory speed.
  void (*dot_f32)(const DotProblem& problem);
  void (*dot_f16)(const DotProblem& problem);
  void (*dot_bf16)(const DotProblem& problem);
  /// dot_f32 without a bias for depths of a few vectors, where most of its time goes into the last sums of
  /// single products: here those of as many outputs as a vector has lanes are taken together.
  void (*dot_short)(const DotProblem& problem);
  void (*dot_w4)(const IntegerDotProblem& problem);
  void (*dot_w8)(const IntegerDotProblem& problem);
  void (*expand_w4)(const IntegerExpandProblem& problem);
  void (*expand_w8)(const IntegerExpandProblem& problem);
  void (*weighted_sum)(const WeightedSumProblem& problem);

  // Conversions, exact or rounded to nearest even.
  void (*widen_f16)(const uint16_t* in, int64_t count, float* out);
  void (*widen_bf16)(const uint16_t* in, int64_t count, float* out);
  void (*narrow_bf16)(const float* in, int64_t count, uint16_t* out);
  /// What f16 cannot hold becomes its largest number; NaN stays NaN.
  void (*narrow_f16)(const float* in, int64_t count, uint16_t* out);
  /// out = in * scale.
  void (*widen_int8)(const int8_t* in, int64_t count, float scale, float* out);
  /// The nearest integers to in * factor, all of which lie within -127 to 127.
  void (*narrow_int8)(const float* in, int64_t count, float factor, int8_t* out);

  /// y = x / sqrt(mean(x^2) + epsilon) * weight, the mean in double. y may be x.
  void (*rms_norm)(const float* x, const float* weight, int64_t count, double epsilon, float* y);
  void (*layer_norm)(const LayerNormProblem& problem);
  /// y += x.
  void (*add)(const float* x, int64_t count, float* y);
  /// y += factor * x.
  void (*add_scaled)(float factor, const float* x, int64_t count, float* y);
  /// Whether no value is infinite or NaN.
  bool (*all_finite)(const float* x, int64_t count);
  /// The sum of a[i] * b[i]: products in float, the sum in double.
  double (*inner_product)(const float* a, const float* b, int64_t count);
  /// y = a * b, product by product. y may be a.
  void (*multiply)(const float* a, const float* b, int64_t count, float* y);
  /// y = y / scales - x.
  void (*scaled_difference)(const float* scales, const float* x, int64_t count, float* y);
  /// The least and the largest of 0 and every x.
  void (*extremes)(const float* x, int64_t count, float* least, float* largest);
  void (*round_to_grid)(const GridProblem& problem);
  /// Each column to the nearest code of target + sum over the columns i before it of errors_i U[i, column].
  void (*round_columns)(const ColumnRoundingProblem& problem);
  /// Rotates (head[i], head[i + half]) by the angle of cosine[i], sine[i].
  void (*rope)(const float* cosine, const float* sine, int64_t half, float* head);
  /// x = exp(x - max) / sum of them, in place. Relative error of exp at most 2e-7, the sum in double.
  SoftmaxTotal (*softmax)(float* x, int64_t count);

  GatedKernel* gated_silu;
  GatedKernel* gated_gelu;
  GatedKernel* gated_gelu_tanh;
  GatedKernel* gated_relu;
  GatedKernel* gated_sigmoid;

  /// y = e^x. Relative error at most 2e-7 where e^x is a normal float.
  void (*exponential)(const float* x, int64_t count, float* y);
};

/// The same for every table, as few models pair neighbours: rotates (head[2i], head[2i + 1]).
void rope_neighbours(const float* cosine, const float* sine, int64_t pairs, float* head);
/// The same for every table: exact erf matters more than speed in the few models that use it.
void gated_gelu(const float* gate, const float* up, int64_t count, float* y);

/// Plain C++, the reference of the others.
extern const CpuKernels kPortableKernels;
/// AVX2, FMA and F16C.
extern const CpuKernels kAvx2Kernels;
/// AVX-512 F, BW, DQ and VL.
extern const CpuKernels kAvx512Kernels;
/// What every aarch64 processor has.
extern const CpuKernels kNeonKernels;

}  // namespace salient
