#include "quant/quantized_weight.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/parallel.h"

namespace salient {
namespace {

struct CodePlace {
  size_t byte;
  int shift;
};

CodePlace place_of(const QuantizedWeight& weight, int64_t row, int64_t column) {
  const int64_t bit = column * weight.code_bits();
  return {.byte = static_cast<size_t>(row * weight.row_bytes() + bit / 8),
          .shift = static_cast<int>(bit % 8)};
}

struct GroupSlice {
  int64_t begin;
  int64_t end;
  float zero;
  float scale;
};

inline float value_of(int code, const GroupSlice& group) {
  return (static_cast<float>(code) - group.zero) * group.scale;
}

void dequantize_bytes(const uint8_t* codes, const GroupSlice& group, float* out) {
  for (int64_t column = group.begin; column < group.end; ++column)
    out[column] = value_of(codes[column], group);
}

/// `begin` is even except where a caller's group width is odd.
void dequantize_nibbles(const uint8_t* codes, const GroupSlice& group, float* out) {
  const auto value = [&](int code) { return value_of(code, group); };
  int64_t column = group.begin;
  if (column % 2 != 0 && column < group.end) {
    out[column] = value(codes[column / 2] >> 4);
    ++column;
  }
  const int64_t pairs = (group.end - column) / 2;
  const uint8_t* bytes = codes + column / 2;
  float* target = out + column;
  for (int64_t i = 0; i < pairs; ++i) {
    target[2 * i] = value(bytes[i] & 15);
    target[2 * i + 1] = value(bytes[i] >> 4);
  }
  column += 2 * pairs;
  if (column < group.end) out[column] = value(codes[column / 2] & 15);
}

}  // namespace

int QuantizedWeight::code(int64_t row, int64_t column) const {
  const CodePlace place = place_of(*this, row, column);
  return codes.values<uint8_t>()[place.byte] >> place.shift & ((1 << code_bits()) - 1);
}

void QuantizedWeight::set_code(int64_t row, int64_t column, int code) {
  const CodePlace place = place_of(*this, row, column);
  uint8_t& byte = codes.mutable_values<uint8_t>()[place.byte];
  const int mask = (1 << code_bits()) - 1;
  byte = static_cast<uint8_t>((byte & ~(mask << place.shift)) | (code & mask) << place.shift);
}

int QuantizedWeight::zero(int64_t row, int64_t group) const {
  if (!zeros.defined()) return symmetric_zero(scheme);
  return zeros.values<uint8_t>()[static_cast<size_t>(row * groups() + group)];
}

float QuantizedWeight::scale(int64_t row, int64_t group) const {
  float result = 0;
  const auto index = static_cast<size_t>(row * groups() + group);
  convert_to_float(scales.dtype(), scales.bytes() + index * byte_size(scales.dtype()), {&result, 1});
  return result;
}

QuantizedWeight allocate_quantized_weight(const QuantizationScheme& scheme, int64_t out_features,
                                          int64_t in_features, DType scale_dtype) {
  if (!is_floating(scale_dtype) || scale_dtype == DType::f64) {
    fail(ErrorKind::internal, "scales cannot be stored as {}", to_string(scale_dtype));
  }
  QuantizedWeight weight{.scheme = scheme, .out_features = out_features, .in_features = in_features};
  const int64_t groups = weight.groups();
  weight.codes = Tensor::zeros(DType::u8, {out_features, weight.row_bytes()});
  weight.scales = Tensor::zeros(scale_dtype, {out_features, groups});
  if (!scheme.symmetric) weight.zeros = Tensor::zeros(DType::u8, {out_features, groups});
  return weight;
}

void dequantize_row(const QuantizedWeight& weight, int64_t row, std::span<float> out) {
  if (static_cast<int64_t>(out.size()) != weight.in_features) {
    fail(ErrorKind::internal, "a row of {} columns does not fit into {} floats", weight.in_features,
         out.size());
  }
  const int64_t width = group_width(weight.scheme, weight.in_features);
  const int64_t groups = weight.groups();
  const uint8_t* codes = weight.codes.values<uint8_t>().data() + row * weight.row_bytes();
  const auto dequantize_group = weight.code_bits() == 4 ? dequantize_nibbles : dequantize_bytes;
  for (int64_t group = 0; group < groups; ++group) {
    dequantize_group(codes,
                     {.begin = group * width,
                      .end = std::min(weight.in_features, (group + 1) * width),
                      .zero = static_cast<float>(weight.zero(row, group)),
                      .scale = weight.scale(row, group)},
                     out.data());
  }
}

Tensor dequantize(const QuantizedWeight& weight) {
  Tensor result = Tensor::empty(DType::f32, {weight.out_features, weight.in_features});
  const auto values = result.mutable_values<float>();
  const auto columns = static_cast<size_t>(weight.in_features);
  parallel_for(static_cast<size_t>(weight.out_features), 16, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row) {
      dequantize_row(weight, static_cast<int64_t>(row), values.subspan(row * columns, columns));
    }
  });
  return result;
}

}  // namespace salient
