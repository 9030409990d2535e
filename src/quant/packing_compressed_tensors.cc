#include <algorithm>
#include <array>
#include <cstring>

#include "base/error.h"
#include "base/parallel.h"
#include "quant/packing_formats.h"

// compressed-tensors "pack-quantized" for b = 2 to 8 bits, N = out, K = in, G = groups:
//   weight_packed      i32 [N, ceil(K b / 32)]  the codes of a row without gaps from the lowest bit on: code
//   i
//                                               begins at bit i b and may begin in one word and end in the
//                                               next; of 4 and 8 bits the bytes of QuantizedWeight::codes
//   weight_scale       float [N, G]
//   weight_zero_point  i32 [ceil(N b / 32), G]  asymmetric only; the zeros of a group's rows likewise, along
//   N weight_shape       i64 [2]                  N, K
// Before 0.19 compressed-tensors began a new word where a code did not fit into one any more: of 3, 5, 6 and
// 7 bits such files are longer, and refused. The format speaks of signed integers q, zp in [-2^(bits-1),
// 2^(bits-1)) and stores q + 2^(bits-1), zp + 2^(bits-1): our unsigned codes and zeros. The strategy "tensor"
// (kWholeMatrix) has one of each for the matrix: weight_scale [1], and weight_zero_point i8 [1], which holds
// zp itself, as only zeros of groups and channels are packed.
namespace salient {
namespace {

constexpr int64_t kWordBits = 32;

int64_t words_for(const QuantizationScheme& scheme, int64_t codes) {
  return (codes * scheme.num_bits + kWordBits - 1) / kWordBits;
}

/// Codes without gaps from the lowest bit of the first word on, words `stride` apart.
template <typename Word>
struct CodeStream {
  Word* words;
  int64_t stride;
  int num_bits;
  int64_t count;
};

/// Writes code_of(i) for every i < count.
template <typename CodeOf>
void write_codes(CodeStream<uint32_t> stream, CodeOf code_of) {
  uint64_t held = 0;
  int bits = 0;
  for (int64_t i = 0; i < stream.count; ++i) {
    held |= static_cast<uint64_t>(code_of(i)) << bits;
    bits += stream.num_bits;
    if (bits < kWordBits) continue;
    *stream.words = static_cast<uint32_t>(held);
    stream.words += stream.stride;
    held >>= kWordBits;
    bits -= kWordBits;
  }
  if (bits > 0) *stream.words = static_cast<uint32_t>(held);
}

/// Calls take(i, code) for every i < count.
template <typename Take>
void read_codes(CodeStream<const uint32_t> stream, Take take) {
  const uint64_t mask = (uint64_t{1} << stream.num_bits) - 1;
  uint64_t held = 0;
  int bits = 0;
  for (int64_t i = 0; i < stream.count; ++i) {
    if (bits < stream.num_bits) {
      held |= uint64_t{*stream.words} << bits;
      stream.words += stream.stride;
      bits += kWordBits;
    }
    take(i, static_cast<uint8_t>(held & mask));
    held >>= stream.num_bits;
    bits -= stream.num_bits;
  }
}

constexpr std::string_view kOneGrid = "the strategy \"tensor\"";

bool is_whole_matrix(const QuantizationScheme& scheme) {
  return scheme.group_size == QuantizationScheme::kWholeMatrix;
}

/// A file may hold anything in the bits behind the last column; ours are zero.
void clear_padding(QuantizedWeight& weight) {
  const int64_t row_bytes = weight.row_bytes();
  const auto codes = weight.codes.mutable_values<uint8_t>();
  const int64_t used_bits = weight.in_features * weight.scheme.num_bits;
  for (int64_t row = 0; row < weight.out_features; ++row) {
    const auto bytes = codes.subspan(static_cast<size_t>(row * row_bytes), static_cast<size_t>(row_bytes));
    auto used = static_cast<size_t>(used_bits / 8);
    if (used_bits % 8 != 0) bytes[used++] &= 15;
    std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(used), bytes.end(), uint8_t{0});
  }
}

/// Whether the codes of a row lie in memory as on disk.
bool stored_as_in_memory(const QuantizationScheme& scheme) {
  return QuantizedWeight::code_bits(scheme.num_bits) == scheme.num_bits;
}

constexpr size_t kRowsPerChunk = 16;

void pack_codes(const QuantizedWeight& weight, Tensor& packed) {
  if (stored_as_in_memory(weight.scheme)) {
    std::memcpy(packed.mutable_bytes(), weight.codes.bytes(), packed.byte_size());
    return;
  }
  auto* words = reinterpret_cast<uint32_t*>(packed.mutable_bytes());
  parallel_for(static_cast<size_t>(weight.out_features), kRowsPerChunk, [&](size_t begin, size_t end) {
    for (auto row = static_cast<int64_t>(begin); row < static_cast<int64_t>(end); ++row) {
      write_codes({words + row * packed.dim(1), 1, weight.scheme.num_bits, weight.in_features},
                  [&](int64_t column) { return weight.code(row, column); });
    }
  });
}

/// What a file holds behind the last column, which may be anything, stays behind.
void unpack_codes(const Tensor& packed, QuantizedWeight& weight) {
  if (stored_as_in_memory(weight.scheme)) {
    std::memcpy(weight.codes.mutable_bytes(), packed.bytes(), packed.byte_size());
    if (weight.in_features * weight.scheme.num_bits % kWordBits != 0) clear_padding(weight);
    return;
  }
  const auto* words = reinterpret_cast<const uint32_t*>(packed.bytes());
  parallel_for(static_cast<size_t>(weight.out_features), kRowsPerChunk, [&](size_t begin, size_t end) {
    for (auto row = static_cast<int64_t>(begin); row < static_cast<int64_t>(end); ++row) {
      read_codes({words + row * packed.dim(1), 1, weight.scheme.num_bits, weight.in_features},
                 [&](int64_t column, uint8_t code) { weight.set_code(row, column, code); });
    }
  });
}

Tensor pack_zeros(const QuantizedWeight& weight) {
  const int64_t groups = weight.groups();
  Tensor packed = Tensor::empty(DType::i32, {words_for(weight.scheme, weight.out_features), groups});
  const auto zeros = weight.zeros.values<uint8_t>();
  auto* words = reinterpret_cast<uint32_t*>(packed.mutable_bytes());
  for (int64_t group = 0; group < groups; ++group) {
    write_codes({words + group, groups, weight.scheme.num_bits, weight.out_features},
                [&](int64_t row) { return zeros[static_cast<size_t>(row * groups + group)]; });
  }
  return packed;
}

void unpack_zeros(const Tensor& packed, QuantizedWeight& weight) {
  const int64_t groups = weight.groups();
  const auto* words = reinterpret_cast<const uint32_t*>(packed.bytes());
  const auto zeros = weight.zeros.mutable_values<uint8_t>();
  for (int64_t group = 0; group < groups; ++group) {
    read_codes({words + group, groups, weight.scheme.num_bits, weight.out_features},
               [&](int64_t row, uint8_t zero) { zeros[static_cast<size_t>(row * groups + group)] = zero; });
  }
}

/// Rows that were rounded apart from each other, as the parts of a stored matrix may be, have no common grid.
void require_one_grid(const QuantizedWeight& weight) {
  const size_t size = byte_size(weight.scales.dtype());
  const std::byte* scales = weight.scales.bytes();
  for (int64_t row = 1; row < weight.out_features; ++row) {
    const bool same_scale = std::memcmp(scales + static_cast<size_t>(row) * size, scales, size) == 0;
    if (same_scale && weight.zero(row, 0) == weight.zero(0, 0)) continue;
    fail(ErrorKind::unsupported,
         "pack-quantized: the strategy \"tensor\" stores one scale and zero, but row {} has {} and {} where "
         "row 0 has {} and {}",
         row, weight.scale(row, 0), weight.zero(row, 0), weight.scale(0, 0), weight.zero(0, 0));
  }
}

/// weight_scale and weight_zero_point of the strategy "tensor".
void pack_one_grid(const QuantizedWeight& weight, PackedTensors& result) {
  require_one_grid(weight);
  result["weight_scale"] = weight.scales.slice(0, 1).reshape({1});
  if (weight.scheme.symmetric) return;
  const std::array<int8_t, 1> zero{static_cast<int8_t>(weight.zero(0, 0) - symmetric_zero(weight.scheme))};
  result["weight_zero_point"] = Tensor::of<int8_t>({1}, zero);
}

/// The stored zero of the strategy "tensor", as an unsigned one.
int checked_zero(const Tensor& stored, const QuantizationScheme& scheme) {
  const int middle = symmetric_zero(scheme);
  const int zero = stored.values<int8_t>()[0];
  if (zero >= -middle && zero < middle) return zero + middle;
  fail(ErrorKind::bad_format, "weight_zero_point is {}, outside [{}, {}]", zero, -middle, middle - 1);
}

std::vector<PackedTensorLayout> layout(const QuantizationScheme& scheme, int64_t out, int64_t in) {
  const bool one = is_whole_matrix(scheme);
  const int64_t groups = group_count(scheme, in);
  std::vector<PackedTensorLayout> tensors{{"weight_packed", DType::i32, {out, words_for(scheme, in)}},
                                          {"weight_scale", DType::f16, one ? Shape{1} : Shape{out, groups}},
                                          {"weight_shape", DType::i64, {2}}};
  if (scheme.symmetric) return tensors;
  tensors.push_back(
      one ? PackedTensorLayout{"weight_zero_point", DType::i8, {1}}
          : PackedTensorLayout{"weight_zero_point", DType::i32, {words_for(scheme, out), groups}});
  return tensors;
}

PackedTensors pack(const QuantizedWeight& weight) {
  PackedTensors result;
  Tensor codes =
      Tensor::empty(DType::i32, {weight.out_features, words_for(weight.scheme, weight.in_features)});
  pack_codes(weight, codes);
  result["weight_packed"] = codes;
  if (is_whole_matrix(weight.scheme)) {
    pack_one_grid(weight, result);
  } else {
    result["weight_scale"] = weight.scales;
    if (!weight.scheme.symmetric) result["weight_zero_point"] = pack_zeros(weight);
  }
  const std::array<int64_t, 2> shape{weight.out_features, weight.in_features};
  result["weight_shape"] = Tensor::of<int64_t>({2}, shape);
  return result;
}

const Tensor& stored_scales(const PackedTensors& tensors, const QuantizationScheme& scheme) {
  return require_tensor(tensors, "weight_scale", is_whole_matrix(scheme) ? 1 : 2,
                        {DType::f16, DType::bf16, DType::f32});
}

/// How many words older versions took, which let no code end in another word than it begins in.
int64_t words_without_straddling(const QuantizationScheme& scheme, int64_t codes) {
  const int64_t codes_per_word = kWordBits / scheme.num_bits;
  return (codes + codes_per_word - 1) / codes_per_word;
}

/// K, after N and K have been found to agree with the packed codes.
int64_t checked_in_features(const PackedTensors& tensors, const Tensor& packed,
                            const QuantizationScheme& scheme) {
  const Tensor& stored = require_tensor(tensors, "weight_shape", 1, {DType::i64});
  require_shape(stored, "weight_shape", {2}, "the format");
  const int64_t rows = stored.values<int64_t>()[0];
  const int64_t columns = stored.values<int64_t>()[1];
  const int64_t words = packed.dim(1);
  const bool plausible = rows > 0 && rows == packed.dim(0) && columns > 0 && columns <= words * kWordBits;
  if (plausible && words_for(scheme, columns) == words) return columns;
  if (plausible && words_without_straddling(scheme, columns) == words) {
    fail(ErrorKind::unsupported,
         "weight_packed {} holds whole {}-bit codes in each word, as compressed-tensors before 0.19 wrote "
         "them; since then a row of {} columns has {} words",
         to_string(packed.shape()), scheme.num_bits, columns, words_for(scheme, columns));
  }
  fail(ErrorKind::bad_format, "weight_shape says [{}, {}], which weight_packed {} cannot hold", rows, columns,
       to_string(packed.shape()));
}

/// Scales and zeros that are stored for each group.
void unpack_grids(const PackedTensors& tensors, QuantizedWeight& weight) {
  const std::string_view reason = "weight_shape and group_size";
  const Tensor& scales = stored_scales(tensors, weight.scheme);
  require_shape(scales, "weight_scale", weight.scales.shape(), reason);
  std::memcpy(weight.scales.mutable_bytes(), scales.bytes(), scales.byte_size());
  if (weight.scheme.symmetric) return;
  const Tensor& zeros = require_tensor(tensors, "weight_zero_point", 2, {DType::i32});
  require_shape(zeros, "weight_zero_point", {words_for(weight.scheme, weight.out_features), weight.groups()},
                reason);
  unpack_zeros(zeros, weight);
}

/// The one scale and zero of the strategy "tensor", for every row.
void unpack_one_grid(const PackedTensors& tensors, QuantizedWeight& weight) {
  const Tensor& scale = stored_scales(tensors, weight.scheme);
  require_shape(scale, "weight_scale", {1}, kOneGrid);
  for (int64_t row = 0; row < weight.out_features; ++row) {
    std::memcpy(weight.scales.mutable_bytes() + static_cast<size_t>(row) * scale.byte_size(), scale.bytes(),
                scale.byte_size());
  }
  if (weight.scheme.symmetric) return;
  const Tensor& zero = require_tensor(tensors, "weight_zero_point", 1, {DType::i8});
  require_shape(zero, "weight_zero_point", {1}, kOneGrid);
  const auto zeros = weight.zeros.mutable_values<uint8_t>();
  std::fill(zeros.begin(), zeros.end(), static_cast<uint8_t>(checked_zero(zero, weight.scheme)));
}

QuantizedWeight unpack(const PackedTensors& tensors, const QuantizationScheme& scheme) {
  if (tensors.contains("weight_g_idx")) {
    fail(ErrorKind::unsupported, "weight_g_idx: columns in activation order are not supported");
  }
  const Tensor& packed = require_tensor(tensors, "weight_packed", 2, {DType::i32});
  const int64_t columns = checked_in_features(tensors, packed, scheme);
  if (scheme.symmetric && tensors.contains("weight_zero_point")) {
    fail(ErrorKind::bad_format, "weight_zero_point stands beside a scheme that is symmetric");
  }
  auto weight =
      allocate_quantized_weight(scheme, packed.dim(0), columns, stored_scales(tensors, scheme).dtype());
  unpack_codes(packed, weight);
  if (is_whole_matrix(scheme)) {
    unpack_one_grid(tensors, weight);
  } else {
    unpack_grids(tensors, weight);
  }
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
