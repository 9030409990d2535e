#include "quant/quantized_weight.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "support/error_matcher.h"
#include "support/random_weights.h"

namespace salient {
namespace {

using ::testing::HasSubstr;

TEST(QuantizedWeight, CodesArePackedLowNibbleFirst) {
  auto weight = allocate_quantized_weight({.group_size = 32}, 2, 20, DType::f32);
  EXPECT_EQ(weight.codes.shape(), (Shape{2, 12}));
  weight.set_code(1, 0, 3);
  weight.set_code(1, 1, 12);
  weight.set_code(1, 19, 15);
  weight.set_code(1, 19, 9);
  EXPECT_EQ(weight.codes.values<uint8_t>()[12], 0xc3);
  EXPECT_EQ(weight.codes.values<uint8_t>()[12 + 9], 0x90);
  EXPECT_EQ(weight.code(1, 0), 3);
  EXPECT_EQ(weight.code(1, 1), 12);
  EXPECT_EQ(weight.code(1, 19), 9);
  EXPECT_EQ(weight.code(0, 19), 0);
}

TEST(QuantizedWeight, CodesOfEightBitsAreBytes) {
  auto weight = allocate_quantized_weight({.num_bits = 8, .group_size = 32}, 2, 21, DType::f32);
  EXPECT_EQ(weight.codes.shape(), (Shape{2, 24}));
  weight.set_code(1, 0, 200);
  weight.set_code(1, 20, 255);
  weight.set_code(1, 20, 129);
  EXPECT_EQ(weight.codes.values<uint8_t>()[24], 200);
  EXPECT_EQ(weight.codes.values<uint8_t>()[24 + 20], 129);
  EXPECT_EQ(weight.code(1, 0), 200);
  EXPECT_EQ(weight.code(1, 20), 129);
  EXPECT_EQ(weight.code(1, 1), 0);
}

TEST(QuantizedWeight, OtherWidthsLieInNibblesOrBytes) {
  for (const int bits : {2, 3}) {
    EXPECT_EQ(QuantizedWeight::code_bits(bits), 4);
    EXPECT_EQ(QuantizedWeight::row_bytes(bits, 21), QuantizedWeight::row_bytes(4, 21));
  }
  for (const int bits : {5, 6, 7}) {
    EXPECT_EQ(QuantizedWeight::code_bits(bits), 8);
    EXPECT_EQ(QuantizedWeight::row_bytes(bits, 21), QuantizedWeight::row_bytes(8, 21));
  }
  auto weight = allocate_quantized_weight({.num_bits = 3, .group_size = 32}, 1, 3, DType::f32);
  weight.set_code(0, 0, 5);
  weight.set_code(0, 1, 7);
  weight.set_code(0, 1, 6);
  EXPECT_EQ(weight.codes.values<uint8_t>()[0], 0x65);
  EXPECT_EQ(weight.code(0, 1), 6);
  EXPECT_EQ(allocate_quantized_weight({.num_bits = 3, .symmetric = true}, 1, 8, DType::f32).zero(0, 0), 4);
}

TEST(QuantizedWeight, RowsAreWholeWords) {
  for (const auto& [columns, nibbles, bytes] :
       std::vector<std::array<int64_t, 3>>{{1, 4, 4}, {4, 4, 4}, {5, 4, 8}, {8, 4, 8}, {9, 8, 12}}) {
    EXPECT_EQ(QuantizedWeight::row_bytes(4, columns), nibbles) << columns;
    EXPECT_EQ(QuantizedWeight::row_bytes(8, columns), bytes) << columns;
  }
}

TEST(QuantizedWeight, OnlyAsymmetricSchemesStoreZeros) {
  const auto symmetric = allocate_quantized_weight({.symmetric = true}, 2, 256, DType::bf16);
  EXPECT_FALSE(symmetric.zeros.defined());
  EXPECT_EQ(symmetric.zero(1, 1), 8);
  EXPECT_EQ(symmetric.scales.dtype(), DType::bf16);
  EXPECT_EQ(allocate_quantized_weight({.num_bits = 8, .symmetric = true}, 2, 256, DType::bf16).zero(1, 1),
            128);
  const auto asymmetric = allocate_quantized_weight({.symmetric = false}, 2, 256, DType::f16);
  EXPECT_EQ(asymmetric.zeros.shape(), (Shape{2, 2}));
  EXPECT_EQ(asymmetric.zero(1, 1), 0);
}

TEST(QuantizedWeight, RefusesScalesThatAreNoSmallFloat) {
  EXPECT_THAT([] { allocate_quantized_weight({}, 2, 128, DType::i32); },
              throws_error(ErrorKind::internal, HasSubstr("I32")));
}

void expect_formula(const QuantizedWeight& weight) {
  const Tensor dense = dequantize(weight);
  const int64_t columns = weight.in_features;
  const int64_t width = group_width(weight.scheme, columns);
  for (int64_t row = 0; row < weight.out_features; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      const auto shifted = static_cast<float>(weight.code(row, column) - weight.zero(row, column / width));
      EXPECT_EQ(dense.values<float>()[static_cast<size_t>(row * columns + column)],
                shifted * weight.scale(row, column / width));
    }
  }
}

TEST(QuantizedWeight, DequantizesByTheFormula) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (const int64_t columns : {1, 20, 31, 128, 131}) {
      for (int bits = kLeastBits; bits <= kMostBits; ++bits) {
        for (const int64_t group : {16, 32, -1, 0, 3}) {  // an odd width makes groups start in a high nibble
          expect_formula(
              random_quantized_weight({.scheme = {.num_bits = bits, .symmetric = false, .group_size = group},
                                       .out_features = 5,
                                       .in_features = columns,
                                       .scale_dtype = dtype}));
        }
      }
    }
  }
}

TEST(QuantizedWeight, RefusesARowBufferOfTheWrongSize) {
  const auto weight = allocate_quantized_weight({}, 2, 128, DType::f32);
  std::vector<float> buffer(127);
  EXPECT_THAT([&] { dequantize_row(weight, 0, buffer); },
              throws_error(ErrorKind::internal, HasSubstr("127")));
}

}  // namespace
}  // namespace salient
