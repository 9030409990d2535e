#include <algorithm>
#include <array>
#include <cstring>

#include "base/error.h"
#include "quant/packing_formats.h"

// compressed-tensors "pack-quantized" for 4 bits, N = out, K = in, G = groups:
//   weight_packed      i32 [N, ceil(K/8)]  eight codes a word, low nibble first: the bytes of
//   QuantizedWeight::codes weight_scale       float [N, G] weight_zero_point  i32 [ceil(N/8), G]  asymmetric
//   only; packed along N, nibble i of word r is row 8r + i weight_shape       i64 [2]             N, K
// The format speaks of signed integers q, zp in [-8, 7] and stores q + 8, zp + 8: our unsigned codes and
// zeros.
namespace salient {
namespace {

constexpr int64_t kRowsPerWord = 8;

Tensor pack_zeros(const QuantizedWeight& weight) {
  const int64_t groups = weight.groups();
  Tensor packed =
      Tensor::zeros(DType::i32, {(weight.out_features + kRowsPerWord - 1) / kRowsPerWord, groups});
  const auto zeros = weight.zeros.values<uint8_t>();
  auto* words = reinterpret_cast<uint32_t*>(packed.mutable_bytes());
  for (int64_t row = 0; row < weight.out_features; ++row) {
    uint32_t* target = words + row / kRowsPerWord * groups;
    const auto shift = static_cast<uint32_t>(row % kRowsPerWord * 4);
    for (int64_t group = 0; group < groups; ++group) {
      target[group] |= uint32_t{zeros[static_cast<size_t>(row * groups + group)]} << shift;
    }
  }
  return packed;
}

void unpack_zeros(const Tensor& packed, QuantizedWeight& weight) {
  const int64_t groups = weight.groups();
  const auto words = packed.values<int32_t>();
  const auto zeros = weight.zeros.mutable_values<uint8_t>();
  for (int64_t row = 0; row < weight.out_features; ++row) {
    const auto shift = static_cast<uint32_t>(row % kRowsPerWord * 4);
    for (int64_t group = 0; group < groups; ++group) {
      const auto word =
          static_cast<uint32_t>(words[static_cast<size_t>(row / kRowsPerWord * groups + group)]);
      zeros[static_cast<size_t>(row * groups + group)] = static_cast<uint8_t>(word >> shift & 15);
    }
  }
}

/// A file may hold anything in the nibbles behind the last column; ours are zero.
void clear_padding(QuantizedWeight& weight) {
  const int64_t row_bytes = weight.row_bytes();
  const auto codes = weight.codes.mutable_values<uint8_t>();
  for (int64_t row = 0; row < weight.out_features; ++row) {
    const auto bytes = codes.subspan(static_cast<size_t>(row * row_bytes), static_cast<size_t>(row_bytes));
    auto used = static_cast<size_t>(weight.in_features / 2);
    if (weight.in_features % 2 != 0) bytes[used++] &= 15;
    std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(used), bytes.end(), uint8_t{0});
  }
}

std::vector<PackedTensorLayout> layout(const QuantizationScheme& scheme, int64_t out, int64_t in) {
  const int64_t groups = group_count(scheme, in);
  std::vector<PackedTensorLayout> tensors{{"weight_packed", DType::i32, {out, (in + 7) / 8}},
                                          {"weight_scale", DType::f16, {out, groups}},
                                          {"weight_shape", DType::i64, {2}}};
  if (scheme.symmetric) return tensors;
  tensors.push_back({"weight_zero_point", DType::i32, {(out + kRowsPerWord - 1) / kRowsPerWord, groups}});
  return tensors;
}

PackedTensors pack(const QuantizedWeight& weight) {
  PackedTensors result;
  Tensor codes = Tensor::empty(DType::i32, {weight.out_features, (weight.in_features + 7) / 8});
  std::memcpy(codes.mutable_bytes(), weight.codes.bytes(), codes.byte_size());
  result["weight_packed"] = codes;
  result["weight_scale"] = weight.scales;
  if (!weight.scheme.symmetric) result["weight_zero_point"] = pack_zeros(weight);
  const std::array<int64_t, 2> shape{weight.out_features, weight.in_features};
  result["weight_shape"] = Tensor::of<int64_t>({2}, shape);
  return result;
}

/// K, after N and K have been found to agree with the packed codes.
int64_t checked_in_features(const PackedTensors& tensors, const Tensor& packed) {
  const Tensor& stored = require_tensor(tensors, "weight_shape", 1, {DType::i64});
  require_shape(stored, "weight_shape", {2}, "the format");
  const int64_t rows = stored.values<int64_t>()[0];
  const int64_t columns = stored.values<int64_t>()[1];
  const int64_t most_columns = packed.dim(1) * 8;
  if (rows != packed.dim(0) || columns <= most_columns - 8 || columns > most_columns || columns <= 0) {
    fail(ErrorKind::bad_format, "weight_shape says [{}, {}], which weight_packed {} cannot hold", rows,
         columns, to_string(packed.shape()));
  }
  return columns;
}

QuantizedWeight unpack(const PackedTensors& tensors, const QuantizationScheme& scheme) {
  if (tensors.contains("weight_g_idx")) {
    fail(ErrorKind::unsupported, "weight_g_idx: columns in activation order are not supported");
  }
  const Tensor& packed = require_tensor(tensors, "weight_packed", 2, {DType::i32});
  const Tensor& scales = require_tensor(tensors, "weight_scale", 2, {DType::f16, DType::bf16, DType::f32});
  const int64_t columns = checked_in_features(tensors, packed);
  const int64_t rows = packed.dim(0);
  const int64_t groups = group_count(scheme, columns);
  require_shape(scales, "weight_scale", {rows, groups}, "weight_shape and group_size");
  auto weight = allocate_quantized_weight(scheme, rows, columns, scales.dtype());
  std::memcpy(weight.codes.mutable_bytes(), packed.bytes(), packed.byte_size());
  if (columns % 8 != 0) clear_padding(weight);
  std::memcpy(weight.scales.mutable_bytes(), scales.bytes(), scales.byte_size());
  if (scheme.symmetric) {
    if (!tensors.contains("weight_zero_point")) return weight;
    fail(ErrorKind::bad_format, "weight_zero_point stands beside a scheme that is symmetric");
  }
  const Tensor& zeros = require_tensor(tensors, "weight_zero_point", 2, {DType::i32});
  require_shape(zeros, "weight_zero_point", {(rows + kRowsPerWord - 1) / kRowsPerWord, groups},
                "weight_shape and group_size");
  unpack_zeros(zeros, weight);
  return weight;
}

}  // namespace

Packing compressed_tensors_packing() {
  return {.format = Format::pack_quantized,
          .suffixes = {"weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx"},
          .layout = layout,
          .pack = pack,
          .unpack = unpack};
}

}  // namespace salient
