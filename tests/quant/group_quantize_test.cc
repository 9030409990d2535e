#include "quant/group_quantize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/parallel.h"
#include "support/error_matcher.h"
#include "support/random_weights.h"

namespace salient {
namespace {

using ::testing::HasSubstr;

constexpr QuantizationScheme kAsymmetric{.symmetric = false, .group_size = 32};
constexpr QuantizationScheme kSymmetric{.symmetric = true, .group_size = 32};
constexpr QuantizationScheme kBytes{.num_bits = 8, .symmetric = false, .group_size = 32};

/// The definition, one value at a time and in double.
struct PlainGroup {
  double scale;
  double zero;
  double top;

  PlainGroup(const QuantizationScheme& scheme, DType dtype, double low, double high) {
    low = std::min(low, 0.0);
    high = std::max(high, 0.0);
    top = std::pow(2, scheme.num_bits) - 1;
    // A few groups reach the subnormal numbers of f16, of which only codes of more than 4 bits use some.
    const double least = dtype == DType::f16 ? (scheme.num_bits <= 4 ? 0x1p-14 : 0x1p-20) : 0;
    const double exact = std::max(least, (scheme.symmetric ? 2 * std::max(-low, high) : high - low) / top);
    scale = low == high ? 1 : round_to(dtype, static_cast<float>(exact));
    const auto ratio = static_cast<float>(-low) / static_cast<float>(scale);
    zero = scheme.symmetric ? (top + 1) / 2 : std::clamp<double>(std::nearbyint(ratio), 0, top);
  }

  int code(float value) const {
    const double rounded = std::nearbyint(value / static_cast<float>(scale));
    return static_cast<int>(std::clamp(rounded + zero, 0.0, top));
  }
};

/// The columns [begin, end) of `rows` rows from `row` on that share a grid, with their clip applied.
struct PlainBlock {
  int64_t row;
  int64_t rows;
  int64_t begin;
  int64_t end;
};

template <typename Value>
void expect_plain_block(const QuantizedWeight& result, const PlainBlock& block, Value value) {
  double low = 0, high = 0;
  for (int64_t row = block.row; row < block.row + block.rows; ++row) {
    for (int64_t column = block.begin; column < block.end; ++column) {
      low = std::min(low, double{value(row, column)});
      high = std::max(high, double{value(row, column)});
    }
  }
  const PlainGroup plain(result.scheme, result.scales.dtype(), low, high);
  const int64_t group = block.begin / group_width(result.scheme, result.in_features);
  for (int64_t row = block.row; row < block.row + block.rows; ++row) {
    ASSERT_EQ(result.scale(row, group), plain.scale);
    ASSERT_EQ(result.zero(row, group), plain.zero);
    for (int64_t column = block.begin; column < block.end; ++column) {
      ASSERT_EQ(result.code(row, column), plain.code(value(row, column))) << row << ", " << column;
    }
  }
}

void expect_plain_definition(const Tensor& weight, const Tensor& clip, const QuantizationScheme& scheme,
                             DType dtype) {
  const auto result = quantize_to_nearest(weight, clip, scheme, dtype);
  const int64_t columns = weight.dim(1);
  const int64_t width = group_width(scheme, columns);
  const auto value = [&](int64_t row, int64_t column) {
    const float exact = weight.values<float>()[static_cast<size_t>(row * columns + column)];
    if (!clip.defined()) return exact;
    const float bound = clip.values<float>()[static_cast<size_t>(row * result.groups() + column / width)];
    return std::clamp(exact, -bound, bound);
  };
  const int64_t rows_per_grid = scheme.group_size == QuantizationScheme::kWholeMatrix ? weight.dim(0) : 1;
  for (int64_t row = 0; row < weight.dim(0); row += rows_per_grid) {
    for (int64_t begin = 0; begin < columns; begin += width) {
      expect_plain_block(
          result,
          {.row = row, .rows = rows_per_grid, .begin = begin, .end = std::min(columns, begin + width)},
          value);
    }
  }
}

TEST(GroupQuantize, EqualsThePlainDefinition) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (const bool symmetric : {false, true}) {
      for (const int64_t group : {16, 32, 64, 128, 256, -1, 0}) {
        for (const int64_t columns : {1, 20, 256, 300}) {
          const auto seed = static_cast<uint32_t>(columns + group);
          for (int bits = 2; bits <= 8; ++bits) {
            expect_plain_definition(random_matrix(7, columns, seed), Tensor(),
                                    {.num_bits = bits, .symmetric = symmetric, .group_size = group}, dtype);
          }
        }
      }
    }
  }
}

TEST(GroupQuantize, AMatrixOfManyChunksHasOneGrid) {
  Tensor weight = random_matrix(70, 33, 4);
  weight.mutable_values<float>()[69 * 33 + 32] = 0.9f;  // the last of all
  for (const bool symmetric : {false, true}) {
    expect_plain_definition(weight, Tensor(), {.symmetric = symmetric, .group_size = 0}, DType::bf16);
  }
}

/// What a rule says of a row must be what rounding the whole matrix gives, also for scaled columns.
TEST(GroupQuantize, RowsAreRoundedAsTheirMatrixIs) {
  const Tensor weight = random_matrix(40, 50, 6);
  std::vector<float> column_scales(50);
  for (size_t c = 0; c < 50; ++c) column_scales[c] = 0.5f + 0.1f * static_cast<float>(c % 11);
  Tensor scaled = weight.to(DType::f32);
  for (size_t i = 0; i < 40 * 50; ++i) scaled.mutable_values<float>()[i] *= column_scales[i % 50];
  for (int bits = 2; bits <= 8; ++bits) {
    for (const int64_t group : {16, 32, -1, 0}) {
      const RoundingRule plain{.scheme = {.num_bits = bits, .group_size = group}, .scale_dtype = DType::bf16};
      const RoundingRule rule = rule_for_matrix(plain, weight, column_scales);
      EXPECT_EQ(rule.grid.has_value(), group == 0);
      const Tensor expected = dequantize(quantize_to_nearest(scaled, {}, rule.scheme, rule.scale_dtype));
      std::vector<float> row(50);
      for (size_t r = 0; r < 40; ++r) {
        fake_quantize_row(rule, scaled.values<float>().subspan(r * 50, 50), {}, row);
        EXPECT_EQ(std::memcmp(row.data(), expected.values<float>().data() + r * 50, 50 * sizeof(float)), 0);
      }
    }
  }
}

TEST(GroupQuantize, ClipBoundsWeightsBeforeTheGridIsMade) {
  for (const bool symmetric : {false, true}) {
    const Tensor weight = random_matrix(40, 96, 5);
    Tensor clip = Tensor::empty(DType::f32, {40, 3});
    for (size_t i = 0; i < 120; ++i)
      clip.mutable_values<float>()[i] = 0.01f + 0.002f * static_cast<float>(i % 30);
    clip.mutable_values<float>()[7] = std::numeric_limits<float>::infinity();
    clip.mutable_values<float>()[8] = 0;
    for (int bits = 2; bits <= 8; ++bits) {
      expect_plain_definition(weight, clip, {.num_bits = bits, .symmetric = symmetric, .group_size = 32},
                              DType::bf16);
    }
  }
}

TEST(GroupQuantize, TiesGoToEven) {
  const GroupGrid grid{.scale = 1, .zero = 8};
  EXPECT_EQ(quantize_value(kAsymmetric, grid, 0.5f), 8);
  EXPECT_EQ(quantize_value(kAsymmetric, grid, 1.5f), 10);
  EXPECT_EQ(quantize_value(kAsymmetric, grid, 2.5f), 10);
  EXPECT_EQ(quantize_value(kAsymmetric, grid, -0.5f), 8);
  EXPECT_EQ(quantize_value(kAsymmetric, grid, -1.5f), 6);
}

TEST(GroupQuantize, ValuesBeyondTheGridTakeItsEnds) {
  const GroupGrid grid{.scale = 0.5f, .zero = 3};
  EXPECT_EQ(quantize_value(kAsymmetric, grid, 1e30f), 15);
  EXPECT_EQ(quantize_value(kAsymmetric, grid, -1e30f), 0);
  EXPECT_EQ(quantize_value(kAsymmetric, grid, 6.0f), 15);
  EXPECT_EQ(quantize_value(kAsymmetric, grid, -1.5f), 0);
}

TEST(GroupQuantize, SymmetricGridReachesSevenAndAHalfSteps) {
  const auto grid = make_group_grid(kSymmetric, DType::f32, -3.0f, 7.5f);
  EXPECT_EQ(grid.scale, 1.0f);
  EXPECT_EQ(grid.zero, 8);
  EXPECT_EQ(quantize_value(kSymmetric, grid, 7.5f), 15);
  EXPECT_EQ(quantize_value(kSymmetric, grid, -7.5f), 0);
}

TEST(GroupQuantize, GridsOfEightBitsReachTheirEnds) {
  constexpr QuantizationScheme symmetric_bytes{.num_bits = 8, .symmetric = true, .group_size = 32};
  const auto symmetric = make_group_grid(symmetric_bytes, DType::f32, -30.0f, 127.5f);
  EXPECT_EQ(symmetric.scale, 1.0f);
  EXPECT_EQ(symmetric.zero, 128);
  EXPECT_EQ(quantize_value(symmetric_bytes, symmetric, 127.0f), 255);
  EXPECT_EQ(quantize_value(symmetric_bytes, symmetric, 1e30f), 255);
  EXPECT_EQ(quantize_value(symmetric_bytes, symmetric, -1e30f), 0);
  const auto asymmetric = make_group_grid(kBytes, DType::f32, -55.0f, 200.0f);
  EXPECT_EQ(asymmetric.scale, 1.0f);
  EXPECT_EQ(asymmetric.zero, 55);
  EXPECT_EQ(quantize_value(kBytes, asymmetric, -55.0f), 0);
  EXPECT_EQ(quantize_value(kBytes, asymmetric, 200.0f), 255);
}

TEST(GroupQuantize, ZeroIsForcedIntoTheRange) {
  const auto positive = make_group_grid(kAsymmetric, DType::f32, 5.0f, 15.0f);
  EXPECT_EQ(positive.scale, 1.0f);
  EXPECT_EQ(positive.zero, 0);
  const auto negative = make_group_grid(kAsymmetric, DType::f32, -15.0f, -5.0f);
  EXPECT_EQ(negative.scale, 1.0f);
  EXPECT_EQ(negative.zero, 15);
}

TEST(GroupQuantize, GroupOfZerosIsExact) {
  for (const bool symmetric : {false, true}) {
    const auto result = quantize_to_nearest(Tensor::zeros(DType::f32, {2, 64}), Tensor(),
                                            {.symmetric = symmetric, .group_size = 32}, DType::f16);
    EXPECT_EQ(result.scale(1, 1), 1.0f);
    const Tensor dense = dequantize(result);
    for (const float value : dense.values<float>()) EXPECT_EQ(value, 0.0f);
  }
}

TEST(GroupQuantize, ZeroFollowsFromTheRoundedScale) {
  // Rounding the scale moves -minimum / scale across a half for some ranges; the stored scale must decide.
  int different = 0;
  for (int i = 1; i < 2000; ++i) {
    const float low = -0.001f * static_cast<float>(i);
    const auto exact = make_group_grid(kAsymmetric, DType::f32, low, 1.0f);
    const auto rounded = make_group_grid(kAsymmetric, DType::bf16, low, 1.0f);
    EXPECT_EQ(rounded.scale, to_float(to_bfloat16(exact.scale)));
    EXPECT_EQ(rounded.zero, static_cast<int>(std::nearbyint(-low / rounded.scale)));
    different += exact.zero != rounded.zero;
  }
  EXPECT_GT(different, 0);
}

TEST(GroupQuantize, ScalesStayNormalNumbersOfTheirType) {
  EXPECT_EQ(make_group_grid(kAsymmetric, DType::f16, -1e-7f, 1e-7f).scale, 0x1p-14f);
  EXPECT_EQ(make_group_grid(kAsymmetric, DType::f16, -1e30f, 1e30f).scale, 65504.0f);
  EXPECT_EQ(make_group_grid(kSymmetric, DType::f16, -6e5f, 1.0f).scale, 65504.0f);
  constexpr float kLargest = std::numeric_limits<float>::max();
  constexpr float kDenormal = std::numeric_limits<float>::denorm_min();
  for (const DType dtype : {DType::f32, DType::bf16}) {
    EXPECT_TRUE(std::isfinite(make_group_grid(kAsymmetric, dtype, -kLargest, kLargest).scale));
    EXPECT_TRUE(std::isnormal(make_group_grid(kAsymmetric, dtype, 0, kDenormal).scale));
    EXPECT_TRUE(std::isnormal(make_group_grid(kSymmetric, dtype, -kDenormal, 0).scale));
  }
  std::vector<float> values(64, kDenormal);
  values[3] = -kLargest;
  values[33] = -kDenormal;
  for (const QuantizationScheme& scheme : {kAsymmetric, kBytes}) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      const auto result = quantize_to_nearest(Tensor::of<float>({1, 64}, values), Tensor(), scheme, dtype);
      const Tensor dense = dequantize(result);
      for (const float value : dense.values<float>()) EXPECT_TRUE(std::isfinite(value));
    }
  }
}

TEST(GroupQuantize, NonFiniteWeightsAreNamed) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    Tensor weight = random_matrix(40, 64, 1);
    weight.mutable_values<float>()[37 * 64 + 41] = bad;
    for (const int64_t group : {32, 0}) {
      EXPECT_THAT([&] { quantize_to_nearest(weight, Tensor(), {.group_size = group}, DType::f16); },
                  throws_error(ErrorKind::invalid_argument, HasSubstr("row 37, column 41")));
    }
  }
}

TEST(GroupQuantize, BadArgumentsAreRefused) {
  const Tensor weight = random_matrix(4, 64, 1);
  EXPECT_THAT(
      [&] {
        quantize_to_nearest(weight, Tensor::zeros(DType::f32, {4, 3}), kAsymmetric, DType::f16);
      },
      throws_error(ErrorKind::internal, HasSubstr("[4, 3]")));
  Tensor clip = Tensor::zeros(DType::f32, {4, 2});
  clip.mutable_values<float>()[5] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT([&] { quantize_to_nearest(weight, clip, kAsymmetric, DType::f16); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("row 2, group 1")));
  EXPECT_THAT([&] { quantize_to_nearest(weight.to(DType::f16), Tensor(), kAsymmetric, DType::f16); },
              throws_error(ErrorKind::internal, HasSubstr("F16")));
  EXPECT_THAT([&] { quantize_to_nearest(weight, Tensor(), {.num_bits = 9}, DType::f16); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("num_bits is 9")));
}

TEST(GroupQuantize, AWholeMatrixNeedsItsGridAndTakesNoClip) {
  const Tensor weight = random_matrix(4, 64, 1);
  const Tensor clip = Tensor::zeros(DType::f32, {4, 1});
  EXPECT_THAT([&] { quantize_to_nearest(weight, clip, {.group_size = 0}, DType::f16); },
              throws_error(ErrorKind::internal, HasSubstr("the one grid of a matrix")));
  std::vector<float> row(64);
  EXPECT_THAT([&] { fake_quantize_row({.scheme = {.group_size = 0}}, row, {}, row); },
              throws_error(ErrorKind::internal, HasSubstr("without the grid of its matrix")));
}

TEST(GroupQuantize, BytesDoNotDependOnTheNumberOfThreads) {
  const size_t threads = thread_count();
  const Tensor weight = random_matrix(130, 260, 9);
  const auto same = [](const Tensor& a, const Tensor& b) {
    return std::memcmp(a.bytes(), b.bytes(), a.byte_size()) == 0;
  };
  for (const QuantizationScheme& scheme :
       {kAsymmetric, kBytes, QuantizationScheme{.group_size = QuantizationScheme::kWholeMatrix}}) {
    set_thread_count(1);
    const auto one = quantize_to_nearest(weight, Tensor(), scheme, DType::f16);
    set_thread_count(5);
    const auto five = quantize_to_nearest(weight, Tensor(), scheme, DType::f16);
    EXPECT_TRUE(same(one.codes, five.codes)) << describe(scheme);
    EXPECT_TRUE(same(one.scales, five.scales)) << describe(scheme);
    EXPECT_TRUE(same(one.zeros, five.zeros)) << describe(scheme);
  }
  set_thread_count(threads);
}

TEST(GroupQuantize, PaddingIsZero) {
  for (const auto& [bits, used, padded] : std::vector<std::array<size_t, 3>>{{4, 9, 12}, {8, 18, 20}}) {
    const QuantizationScheme scheme{.num_bits = static_cast<int>(bits), .group_size = -1};
    const auto result = quantize_to_nearest(random_matrix(3, 18, 2), Tensor(), scheme, DType::f16);
    ASSERT_EQ(result.codes.dim(1), static_cast<int64_t>(padded));
    for (size_t row = 0; row < 3; ++row) {
      for (size_t byte = used; byte < padded; ++byte) {
        EXPECT_EQ(result.codes.values<uint8_t>()[row * padded + byte], 0);
      }
    }
  }
}

}  // namespace
}  // namespace salient
