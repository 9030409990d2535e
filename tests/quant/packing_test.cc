#include "quant/packing.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>

#include "checkpoint/safetensors.h"
#include "support/error_matcher.h"
#include "support/random_weights.h"

namespace salient {
namespace {

using ::testing::HasSubstr;

void expect_equal(const Tensor& actual, const Tensor& expected, const std::string& what) {
  EXPECT_EQ(actual.dtype(), expected.dtype()) << what;
  ASSERT_EQ(actual.shape(), expected.shape()) << what;
  EXPECT_EQ(std::memcmp(actual.bytes(), expected.bytes(), actual.byte_size()), 0) << what;
}

void expect_equal(const QuantizedWeight& actual, const QuantizedWeight& expected) {
  EXPECT_EQ(actual.out_features, expected.out_features);
  EXPECT_EQ(actual.in_features, expected.in_features);
  expect_equal(actual.codes, expected.codes, "codes");
  expect_equal(actual.scales, expected.scales, "scales");
  EXPECT_EQ(actual.zeros.defined(), expected.zeros.defined());
  if (expected.zeros.defined()) expect_equal(actual.zeros, expected.zeros, "zeros");
}

/// One linear packed by a real package, see make_packing_goldens.py.
struct Golden {
  std::string name;
  Format format;
  QuantizationScheme scheme;
};

class PackingGolden : public ::testing::TestWithParam<Golden> {
 protected:
  /// Codes and zeros are stored one a byte.
  QuantizedWeight logical() const {
    const Tensor codes = file_.tensor("codes");
    const Tensor scales = file_.tensor("logical_scales");
    auto weight = allocate_quantized_weight(GetParam().scheme, codes.dim(0), codes.dim(1), scales.dtype());
    for (int64_t row = 0; row < codes.dim(0); ++row) {
      for (int64_t column = 0; column < codes.dim(1); ++column) {
        weight.set_code(row, column,
                        codes.values<uint8_t>()[static_cast<size_t>(row * codes.dim(1) + column)]);
      }
    }
    weight.scales = scales;
    if (weight.zeros.defined()) weight.zeros = file_.tensor("zeros");
    return weight;
  }

  PackedTensors stored() const {
    PackedTensors result;
    for (const auto& suffix : packing_of(GetParam().format).suffixes) {
      if (file_.contains(suffix)) result[suffix] = file_.tensor(suffix);
    }
    return result;
  }

  SafetensorsFile file_{std::string(SALIENT_SOURCE_DIR "/tests/golden/quant/packing_") + GetParam().name +
                        ".safetensors"};
};

TEST_P(PackingGolden, PacksTheSameBytes) {
  const auto packed = packing_of(GetParam().format).pack(logical());
  const auto expected = stored();
  EXPECT_EQ(packed.size(), expected.size());
  for (const auto& [suffix, tensor] : expected) {
    ASSERT_TRUE(packed.contains(suffix)) << suffix;
    expect_equal(packed.at(suffix), tensor, suffix);
  }
}

TEST_P(PackingGolden, UnpacksTheSameWeight) {
  expect_equal(packing_of(GetParam().format).unpack(stored(), GetParam().scheme), logical());
}

/// Of one number of bits, whose codes straddle words.
std::vector<Golden> goldens_of(int bits) {
  const auto name = [&](std::string_view rest) { return fmt::format("ct_{}_bits_{}", bits, rest); };
  return {{name("group_37x64"), Format::pack_quantized, {bits, false, 32}},
          {name("channel_13x45"), Format::pack_quantized, {bits, false, -1}},
          {name("group_sym_6x48"), Format::pack_quantized, {bits, true, 16}},
          {name("tensor_7x35"), Format::pack_quantized, {bits, false, 0}}};
}

std::vector<Golden> goldens_of_other_widths() {
  std::vector<Golden> result;
  for (const int bits : {2, 3, 5, 6, 7}) {
    for (Golden& golden : goldens_of(bits)) result.push_back(std::move(golden));
  }
  return result;
}

INSTANTIATE_TEST_SUITE_P(OtherWidths, PackingGolden, ::testing::ValuesIn(goldens_of_other_widths()),
                         [](const auto& golden) { return golden.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Packages, PackingGolden,
    ::testing::Values(
        Golden{"ct_channel_12x20", Format::pack_quantized, {.symmetric = false, .group_size = -1}},
        Golden{"ct_channel_sym_5x33", Format::pack_quantized, {.symmetric = true, .group_size = -1}},
        Golden{"ct_group_12x64", Format::pack_quantized, {.symmetric = false, .group_size = 32}},
        Golden{"ct_group_sym_16x64", Format::pack_quantized, {.symmetric = true, .group_size = 32}},
        Golden{"ct_tensor_7x21", Format::pack_quantized, {.symmetric = false, .group_size = 0}},
        Golden{"ct_tensor_sym_5x33", Format::pack_quantized, {.symmetric = true, .group_size = 0}},
        Golden{"ct_8_bits_group_sym_6x48", Format::pack_quantized, {8, true, 16}},
        Golden{"ct_8_bits_group_12x64", Format::pack_quantized, {8, false, 32}},
        Golden{"ct_8_bits_channel_13x21", Format::pack_quantized, {8, false, -1}},
        Golden{"ct_8_bits_tensor_7x18", Format::pack_quantized, {8, false, 0}},
        Golden{"ct_8_bits_tensor_sym_5x19", Format::pack_quantized, {8, true, 0}},
        Golden{"awq_group_32x64", Format::autoawq_gemm, {.symmetric = false, .group_size = 32}},
        Golden{"awq_group_96x64", Format::autoawq_gemm, {.symmetric = false, .group_size = 64}},
        Golden{"awq_channel_64x40", Format::autoawq_gemm, {.symmetric = false, .group_size = -1}}),
    [](const auto& golden) { return golden.param.name; });

void expect_layout(const PackedTensors& packed, const std::vector<PackedTensorLayout>& layout) {
  EXPECT_EQ(packed.size(), layout.size());
  for (const auto& tensor : layout) {
    ASSERT_TRUE(packed.contains(tensor.suffix)) << tensor.suffix;
    EXPECT_EQ(packed.at(tensor.suffix).shape(), tensor.shape) << tensor.suffix;
    if (is_floating(tensor.dtype)) continue;
    EXPECT_EQ(packed.at(tensor.suffix).dtype(), tensor.dtype) << tensor.suffix;
  }
}

TEST(Packing, CompressedTensorsIsInverseOnRandomShapes) {
  std::mt19937 random(3);
  constexpr std::array<int64_t, 5> kSizes{32, -1, 16, 0, 256};
  // 7 widths, 2 kinds and 5 sizes have no common factor: each of the 70 combinations comes up 4 times.
  for (uint32_t seed = 0; seed < 280; ++seed) {
    const QuantizationScheme scheme{.num_bits = kLeastBits + static_cast<int>(seed % 7),
                                    .symmetric = seed % 2 == 0,
                                    .group_size = kSizes[seed % kSizes.size()]};
    const auto weight = random_quantized_weight({.scheme = scheme,
                                                 .out_features = 1 + static_cast<int64_t>(random() % 40),
                                                 .in_features = 1 + static_cast<int64_t>(random() % 150),
                                                 .scale_dtype = seed % 5 == 0 ? DType::f32 : DType::bf16,
                                                 .seed = seed});
    const auto& packing = packing_of(Format::pack_quantized);
    const auto packed = packing.pack(weight);
    expect_equal(packing.unpack(packed, scheme), weight);
    expect_layout(packed, packing.layout(scheme, weight.out_features, weight.in_features));
  }
}

TEST(Packing, CodesOfThreeBitsFollowEachOtherAcrossWords) {
  auto weight =
      allocate_quantized_weight({.num_bits = 3, .symmetric = true, .group_size = -1}, 1, 12, DType::f32);
  for (int64_t column = 0; column < 12; ++column)
    weight.set_code(0, column, 1 + static_cast<int>(column) % 7);
  const PackedTensors packed = packing_of(Format::pack_quantized).pack(weight);
  // Code i begins at bit 3 i: that of column 10, a 4, has two bits in the first word and one in the second.
  const Tensor& words = packed.at("weight_packed");
  ASSERT_EQ(words.shape(), (Shape{1, 2}));
  uint64_t expected = 0;
  for (int column = 0; column < 12; ++column) expected |= uint64_t(1 + column % 7) << (3 * column);
  EXPECT_EQ(static_cast<uint32_t>(words.values<int32_t>()[0]), static_cast<uint32_t>(expected));
  EXPECT_EQ(static_cast<uint32_t>(words.values<int32_t>()[1]), expected >> 32);
  EXPECT_EQ(expected >> 32, 0b1011u);
}

/// compressed-tensors before 0.19 began a new word where a code did not fit into one.
TEST(Packing, WordsOfWholeCodesAreRefusedByName) {
  for (const auto& [bits, words] : std::vector<std::pair<int, int64_t>>{{3, 7}, {5, 11}, {6, 13}, {7, 16}}) {
    const QuantizationScheme scheme{.num_bits = bits, .symmetric = true, .group_size = 32};
    auto packed =
        packing_of(Format::pack_quantized)
            .pack(random_quantized_weight({.scheme = scheme, .out_features = 4, .in_features = 64}));
    EXPECT_EQ(packed.at("weight_packed").dim(1), 2 * bits);
    packed["weight_packed"] = Tensor::zeros(DType::i32, {4, words});
    EXPECT_THAT([&] { packing_of(Format::pack_quantized).unpack(packed, scheme); },
                throws_error(ErrorKind::unsupported,
                             HasSubstr(fmt::format("whole {}-bit codes in each word, as compressed-tensors "
                                                   "before 0.19",
                                                   bits))));
  }
}

TEST(Packing, AutoAwqGemmIsInverseOnRandomShapes) {
  std::mt19937 random(4);
  for (uint32_t seed = 0; seed < 60; ++seed) {
    const QuantizationScheme scheme{.symmetric = false, .group_size = seed % 3 == 0 ? -1 : 32};
    const int64_t columns = scheme.group_size == -1 ? 1 + static_cast<int64_t>(random() % 300)
                                                    : 32 * (1 + static_cast<int64_t>(random() % 9));
    const auto weight =
        random_quantized_weight({.scheme = scheme,
                                 .out_features = 8 * (1 + static_cast<int64_t>(random() % 40)),
                                 .in_features = columns,
                                 .seed = seed});
    const auto& packing = packing_of(Format::autoawq_gemm);
    expect_equal(packing.unpack(packing.pack(weight), scheme), weight);
  }
}

TEST(Packing, SymmetricWeightsAreGemmWithZerosOfEight) {
  const auto weight = random_quantized_weight(
      {.scheme = {.symmetric = true, .group_size = 32}, .out_features = 16, .in_features = 64});
  const auto& packing = packing_of(Format::autoawq_gemm);
  auto packed = packing.pack(weight);
  for (const int32_t word : packed.at("qzeros").values<int32_t>())
    EXPECT_EQ(static_cast<uint32_t>(word), 0x88888888u);
  expect_equal(packing.unpack(packed, weight.scheme), weight);
  const auto asymmetric = packing.unpack(packed, {.symmetric = false, .group_size = 32});
  expect_equal(dequantize(asymmetric), dequantize(weight), "dense");
  packed.at("qzeros").mutable_values<int32_t>()[1] = 0x08888888;
  EXPECT_THAT([&] { packing.unpack(packed, weight.scheme); },
              throws_error(ErrorKind::bad_format, HasSubstr("qzeros holds 0")));
  packed.erase("qzeros");
  expect_equal(packing.unpack(packed, weight.scheme), weight);
}

TEST(Packing, GemmRefusesWhatItCannotExpress) {
  const auto pack = packing_of(Format::autoawq_gemm).pack;
  const auto refused = [&](const RandomWeight& spec, const std::string& message) {
    EXPECT_THAT([&] { pack(random_quantized_weight(spec)); },
                throws_error(ErrorKind::unsupported, HasSubstr(message)));
  };
  refused({.scheme = {.group_size = 32}, .out_features = 12, .in_features = 64},
          "12 outputs are no multiple of 8");
  refused({.scheme = {.group_size = 32}, .out_features = 16, .in_features = 72},
          "72 columns are no multiple of the group size 32");
  refused({.scheme = {.group_size = 32}, .out_features = 16, .in_features = 64, .scale_dtype = DType::f32},
          "no exact F16 value");
  for (const auto& [scheme, message] : std::vector<std::pair<QuantizationScheme, std::string>>{
           {{.num_bits = 8, .group_size = 32},
            "autoawq-gemm holds 4-bit codes only; the scheme is int8 asymmetric, group 32"},
           {{.num_bits = 3, .group_size = 32},
            "autoawq-gemm holds 4-bit codes only; the scheme is int3 asymmetric, group 32"},
           {{.group_size = 0}, "autoawq-gemm holds scales of groups and rows only"}}) {
    refused({.scheme = scheme, .out_features = 16, .in_features = 64}, message);
    EXPECT_THAT([&] { packing_of(Format::autoawq_gemm).layout(scheme, 16, 64); },
                throws_error(ErrorKind::unsupported, HasSubstr(message)));
    EXPECT_THAT([&] { packing_of(Format::autoawq_gemm).unpack({}, scheme); },
                throws_error(ErrorKind::unsupported, HasSubstr(message)));
  }
  auto exact = random_quantized_weight({.scheme = {.group_size = 32}, .out_features = 16, .in_features = 64});
  const auto expected = pack(exact);
  exact.scales = exact.scales.to(DType::f32);
  expect_equal(pack(exact).at("scales"), expected.at("scales"), "scales");
}

TEST(Packing, OneGridForTheMatrixMustBeOne) {
  const auto pack = packing_of(Format::pack_quantized).pack;
  const RandomWeight spec{.scheme = {.group_size = 0}, .out_features = 4, .in_features = 20};
  auto other_zero = random_quantized_weight(spec);
  other_zero.zeros.mutable_values<uint8_t>()[2] ^= 1;
  EXPECT_THAT([&] { pack(other_zero); }, throws_error(ErrorKind::unsupported, HasSubstr("row 2 has")));
  auto other_scale = random_quantized_weight(spec);
  other_scale.scales.mutable_values<Half>()[3].bits ^= 1;
  EXPECT_THAT([&] { pack(other_scale); }, throws_error(ErrorKind::unsupported, HasSubstr("row 3 has")));
}

TEST(Packing, BytesBehindTheLastColumnAreCleared) {
  const QuantizationScheme scheme{.num_bits = 8, .symmetric = true, .group_size = -1};
  const auto weight = random_quantized_weight({.scheme = scheme, .out_features = 3, .in_features = 10});
  auto packed = packing_of(Format::pack_quantized).pack(weight);
  packed.at("weight_packed").mutable_values<int32_t>()[5] |= static_cast<int32_t>(0xffff0000u);
  expect_equal(packing_of(Format::pack_quantized).unpack(packed, scheme), weight);
}

TEST(Packing, BitsBehindTheLastColumnAreLeftBehind) {
  for (const int bits : {2, 3, 5, 6, 7}) {
    const QuantizationScheme scheme{.num_bits = bits, .symmetric = false, .group_size = -1};
    const auto weight = random_quantized_weight({.scheme = scheme, .out_features = 3, .in_features = 11});
    auto packed = packing_of(Format::pack_quantized).pack(weight);
    for (const char* name : {"weight_packed", "weight_zero_point"}) {
      Tensor& words = packed.at(name);
      const int used = (words.dim(0) == 3 ? 11 : 3) * bits % 32;  // of the last word of a row or a group
      words.mutable_values<int32_t>()[static_cast<size_t>(words.element_count() - 1)] |=
          static_cast<int32_t>(~uint32_t{0} << used);
    }
    expect_equal(packing_of(Format::pack_quantized).unpack(packed, scheme), weight);
  }
}

TEST(Packing, NibblesBehindTheLastColumnAreCleared) {
  const QuantizationScheme scheme{.symmetric = true, .group_size = -1};
  const auto weight = random_quantized_weight({.scheme = scheme, .out_features = 3, .in_features = 11});
  auto packed = packing_of(Format::pack_quantized).pack(weight);
  packed.at("weight_packed").mutable_values<int32_t>()[3] |= static_cast<int32_t>(0xfffff000u);
  expect_equal(packing_of(Format::pack_quantized).unpack(packed, scheme), weight);
}

/// A change that makes packed tensors of a file disagree.
struct Damage {
  std::string suffix;
  Tensor replacement;  ///< undefined: the tensor is removed
  std::string message;
};

void expect_damage_is_named(Format format, const QuantizationScheme& scheme,
                            const std::vector<Damage>& damages) {
  const auto weight = random_quantized_weight({.scheme = scheme, .out_features = 16, .in_features = 64});
  for (const auto& damage : damages) {
    auto packed = packing_of(format).pack(weight);
    packed.erase(damage.suffix);
    if (damage.replacement.defined()) packed[damage.suffix] = damage.replacement;
    EXPECT_THAT([&] { packing_of(format).unpack(packed, scheme); },
                throws_error(ErrorKind::bad_format, HasSubstr(damage.message)));
  }
}

Tensor shape_tensor(int64_t rows, int64_t columns) {
  return Tensor::of<int64_t>({2}, std::vector<int64_t>{rows, columns});
}

TEST(Packing, CompressedTensorsNamesWhatDoesNotFit) {
  expect_damage_is_named(
      Format::pack_quantized, {.symmetric = false, .group_size = 32},
      {{"weight_packed", Tensor(), "weight_packed is missing"},
       {"weight_packed", Tensor::zeros(DType::i64, {16, 8}), "weight_packed has type I64, expected I32"},
       {"weight_packed", Tensor::zeros(DType::i32, {128}),
        "weight_packed has shape [128], expected 2 dimensions"},
       {"weight_packed", Tensor::zeros(DType::i32, {16, 0}), "which weight_packed [16, 0] cannot hold"},
       {"weight_scale", Tensor(), "weight_scale is missing"},
       {"weight_scale", Tensor::zeros(DType::f16, {16, 3}),
        "weight_scale has shape [16, 3], expected [16, 2]"},
       {"weight_scale", Tensor::zeros(DType::i32, {16, 2}), "weight_scale has type I32"},
       {"weight_shape", Tensor(), "weight_shape is missing"},
       {"weight_shape", Tensor::zeros(DType::i64, {3}), "weight_shape has shape [3], expected [2]"},
       {"weight_shape", shape_tensor(15, 64), "weight_shape says [15, 64]"},
       {"weight_shape", shape_tensor(16, 65), "weight_shape says [16, 65]"},
       {"weight_shape", shape_tensor(16, 56), "weight_shape says [16, 56]"},
       {"weight_shape", shape_tensor(16, INT64_MAX), "cannot hold"},
       {"weight_shape", shape_tensor(16, INT64_MIN), "cannot hold"},
       {"weight_zero_point", Tensor(), "weight_zero_point is missing"},
       {"weight_zero_point", Tensor::zeros(DType::i32, {16, 2}),
        "weight_zero_point has shape [16, 2], expected [2, 2]"}});
  expect_damage_is_named(
      Format::pack_quantized, {.symmetric = true, .group_size = 32},
      {{"weight_zero_point", Tensor::zeros(DType::i32, {2, 2}), "scheme that is symmetric"}});
}

TEST(Packing, EightBitsAndWholeMatricesNameWhatDoesNotFit) {
  expect_damage_is_named(
      Format::pack_quantized, {.num_bits = 8, .symmetric = false, .group_size = 32},
      {{"weight_packed", Tensor::zeros(DType::i32, {16, 8}), "which weight_packed [16, 8] cannot hold"},
       {"weight_packed", Tensor::zeros(DType::i32, {0, 16}), "which weight_packed [0, 16] cannot hold"},
       {"weight_shape", shape_tensor(16, 60), "weight_shape says [16, 60]"},
       {"weight_zero_point", Tensor::zeros(DType::i32, {2, 2}),
        "weight_zero_point has shape [2, 2], expected [4, 2]"}});
  expect_damage_is_named(
      Format::pack_quantized, {.symmetric = false, .group_size = 0},
      {{"weight_scale", Tensor::zeros(DType::f16, {16, 1}),
        "weight_scale has shape [16, 1], expected 1 dimensions"},
       {"weight_scale", Tensor::zeros(DType::f16, {16}),
        "weight_scale has shape [16], expected [1] by the strategy \"tensor\""},
       {"weight_zero_point", Tensor(), "weight_zero_point is missing"},
       {"weight_zero_point", Tensor::zeros(DType::i32, {1}), "weight_zero_point has type I32, expected I8"},
       {"weight_zero_point", Tensor::zeros(DType::i8, {0}), "weight_zero_point has shape [0], expected [1]"},
       {"weight_zero_point", Tensor::of<int8_t>({1}, std::vector<int8_t>{8}),
        "weight_zero_point is 8, outside [-8, 7]"},
       {"weight_zero_point", Tensor::of<int8_t>({1}, std::vector<int8_t>{-9}),
        "weight_zero_point is -9, outside [-8, 7]"}});
  expect_damage_is_named(Format::pack_quantized, {.symmetric = true, .group_size = 0},
                         {{"weight_zero_point", Tensor::zeros(DType::i8, {1}), "scheme that is symmetric"}});
}

TEST(Packing, AutoAwqGemmNamesWhatDoesNotFit) {
  expect_damage_is_named(
      Format::autoawq_gemm, {.symmetric = false, .group_size = 32},
      {{"qweight", Tensor(), "qweight is missing"},
       {"qweight", Tensor::zeros(DType::i16, {64, 2}), "qweight has type I16, expected I32"},
       {"qweight", Tensor::zeros(DType::i32, {60, 2}), "60 columns are no multiple of the group size 32"},
       {"qweight", Tensor::zeros(DType::i32, {0, 2}), "qweight has shape [0, 2]"},
       {"qweight", Tensor::zeros(DType::i32, {64, 0}), "qweight has shape [64, 0]"},
       {"qweight", Tensor::zeros(DType::i32, {64, 3}), "scales has shape [2, 16], expected [2, 24]"},
       {"scales", Tensor::zeros(DType::f16, {16, 2}), "scales has shape [16, 2], expected [2, 16]"},
       {"scales", Tensor::zeros(DType::u8, {2, 16}), "scales has type U8"},
       {"qzeros", Tensor(), "qzeros is missing"},
       {"qzeros", Tensor::zeros(DType::i32, {2, 16}), "qzeros has shape [2, 16], expected [2, 2]"}});
}

TEST(Packing, ActivationOrderIsRefused) {
  const QuantizationScheme scheme{.symmetric = true, .group_size = 32};
  auto packed = packing_of(Format::pack_quantized)
                    .pack(random_quantized_weight({.scheme = scheme, .out_features = 16, .in_features = 64}));
  packed["weight_g_idx"] = Tensor::zeros(DType::i32, {64});
  EXPECT_THAT([&] { packing_of(Format::pack_quantized).unpack(packed, scheme); },
              throws_error(ErrorKind::unsupported, HasSubstr("weight_g_idx")));
}

TEST(Packing, TheTableHasOneRowPerFormat) {
  EXPECT_EQ(packings().size(), 2u);
  for (const auto& packing : packings()) EXPECT_EQ(&packing_of(packing.format), &packing);
  EXPECT_EQ(packing_of(Format::pack_quantized).suffixes.front(), "weight_packed");
  EXPECT_EQ(packing_of(Format::autoawq_gemm).suffixes.front(), "qweight");
}

}  // namespace
}  // namespace salient
