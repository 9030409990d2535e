#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "quant/scheme.h"
#include "tensor/tensor.h"

namespace salient {

/// The one logical form of a quantized linear weight; on-disk and kernel layouts are packings of it.
/// weight[n, k] = (code[n, k] - zero[n, k / group]) * scale[n, k / group].
struct QuantizedWeight {
  QuantizationScheme scheme;
  int64_t out_features = 0;
  int64_t in_features = 0;
  /// u8 [out, row_bytes()]: of up to 4 bits two codes a byte, the even column in the low nibble; of more one
  /// code a byte. Rows are padded with zeros to whole 32-bit words.
  Tensor codes{};
  /// f32, f16 or bf16 [out, groups], in the type in which the checkpoint stores them.
  Tensor scales{};
  /// u8 [out, groups]; undefined for a symmetric scheme.
  Tensor zeros{};

  int64_t groups() const { return group_count(scheme, in_features); }
  /// Bits that a code takes in memory: the widths that kernels read.
  int code_bits() const { return code_bits(scheme.num_bits); }
  static int code_bits(int num_bits) { return num_bits <= 4 ? 4 : 8; }
  int64_t row_bytes() const { return row_bytes(scheme.num_bits, in_features); }
  static int64_t row_bytes(int num_bits, int64_t in_features) {
    const int64_t codes_per_word = 32 / code_bits(num_bits);
    return (in_features + codes_per_word - 1) / codes_per_word * 4;
  }

  int code(int64_t row, int64_t column) const;
  void set_code(int64_t row, int64_t column, int code);
  int zero(int64_t row, int64_t group) const;
  float scale(int64_t row, int64_t group) const;
};

/// Allocates codes (zeroed), scales of `scale_dtype` and, for an asymmetric scheme, zeros.
QuantizedWeight allocate_quantized_weight(const QuantizationScheme& scheme, int64_t out_features,
                                          int64_t in_features, DType scale_dtype);

/// Row `row` as floats, `out` of in_features elements. The arithmetic of record: (code - zero) * scale in
/// f32.
void dequantize_row(const QuantizedWeight& weight, int64_t row, std::span<float> out);
/// f32 [out, in].
Tensor dequantize(const QuantizedWeight& weight);

/// One linear as a model holds it: either dense or quantized, with an optional bias.
struct LinearWeight {
  Tensor dense{};                              ///< f32, f16 or bf16 [out, in]; undefined when quantized
  std::optional<QuantizedWeight> quantized{};  ///< set when the checkpoint stores integers
  Tensor bias{};                               ///< f32, f16 or bf16 [out], or undefined

  bool defined() const { return dense.defined() || quantized.has_value(); }
  int64_t out_features() const { return quantized ? quantized->out_features : dense.dim(0); }
  int64_t in_features() const { return quantized ? quantized->in_features : dense.dim(1); }
};

}  // namespace salient
