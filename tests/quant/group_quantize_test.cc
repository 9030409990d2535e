#include "quant/group_quantize.h"

#include <gtest/gtest.h>

#include <algorithm>
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

/// The definition, one value at a time and in double.
struct PlainGroup {
  double scale;
  double zero;

  PlainGroup(const QuantizationScheme& scheme, DType dtype, double low, double high) {
    low = std::min(low, 0.0);
    high = std::max(high, 0.0);
    const double exact = scheme.symmetric ? 2 * std::max(-low, high) / 15 : (high - low) / 15;
    scale = low == high ? 1 : round_to(dtype, static_cast<float>(exact));
    const auto ratio = static_cast<float>(-low) / static_cast<float>(scale);
    zero = scheme.symmetric ? 8 : std::clamp(std::nearbyint(ratio), 0.0f, 15.0f);
  }

  int code(float value) const {
    const double rounded = std::nearbyint(value / static_cast<float>(scale));
    return static_cast<int>(std::clamp(rounded + zero, 0.0, 15.0));
  }
};

void expect_plain_definition(const Tensor& weight, const Tensor& clip, const QuantizationScheme& scheme,
                             DType dtype) {
  const auto result = quantize_to_nearest(weight, clip, scheme, dtype);
  const int64_t columns = weight.dim(1);
  const int64_t width = group_width(scheme, columns);
  for (int64_t row = 0; row < weight.dim(0); ++row) {
    for (int64_t group = 0; group < result.groups(); ++group) {
      const float bound = clip.defined()
                              ? clip.values<float>()[static_cast<size_t>(row * result.groups() + group)]
                              : std::numeric_limits<float>::infinity();
      const auto value = [&](int64_t column) {
        return std::clamp(weight.values<float>()[static_cast<size_t>(row * columns + column)], -bound, bound);
      };
      double low = 0, high = 0;
      const int64_t end = std::min(columns, (group + 1) * width);
      for (int64_t column = group * width; column < end; ++column) {
        low = std::min(low, double{value(column)});
        high = std::max(high, double{value(column)});
      }
      const PlainGroup plain(scheme, dtype, low, high);
      ASSERT_EQ(result.scale(row, group), plain.scale);
      ASSERT_EQ(result.zero(row, group), plain.zero);
      for (int64_t column = group * width; column < end; ++column) {
        ASSERT_EQ(result.code(row, column), plain.code(value(column))) << row << ", " << column;
      }
    }
  }
}

TEST(GroupQuantize, EqualsThePlainDefinition) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (const bool symmetric : {false, true}) {
      for (const int64_t group : {32, 64, 128, 256, -1}) {
        for (const int64_t columns : {1, 20, 256, 300}) {
          const auto seed = static_cast<uint32_t>(columns + group);
          expect_plain_definition(random_matrix(7, columns, seed), Tensor(),
                                  {.symmetric = symmetric, .group_size = group}, dtype);
        }
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
    expect_plain_definition(weight, clip, {.symmetric = symmetric, .group_size = 32}, DType::bf16);
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
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    const auto result = quantize_to_nearest(Tensor::of<float>({1, 64}, values), Tensor(), kAsymmetric, dtype);
    const Tensor dense = dequantize(result);
    for (const float value : dense.values<float>()) EXPECT_TRUE(std::isfinite(value));
  }
}

TEST(GroupQuantize, NonFiniteWeightsAreNamed) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    Tensor weight = random_matrix(40, 64, 1);
    weight.mutable_values<float>()[37 * 64 + 41] = bad;
    EXPECT_THAT([&] { quantize_to_nearest(weight, Tensor(), kAsymmetric, DType::f16); },
                throws_error(ErrorKind::invalid_argument, HasSubstr("row 37, column 41")));
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
  EXPECT_THAT([&] { quantize_to_nearest(weight, Tensor(), {.num_bits = 3}, DType::f16); },
              throws_error(ErrorKind::unsupported, HasSubstr("num_bits is 3")));
}

TEST(GroupQuantize, BytesDoNotDependOnTheNumberOfThreads) {
  const size_t threads = thread_count();
  const Tensor weight = random_matrix(130, 260, 9);
  set_thread_count(1);
  const auto one = quantize_to_nearest(weight, Tensor(), kAsymmetric, DType::f16);
  set_thread_count(5);
  const auto five = quantize_to_nearest(weight, Tensor(), kAsymmetric, DType::f16);
  set_thread_count(threads);
  EXPECT_EQ(std::memcmp(one.codes.bytes(), five.codes.bytes(), one.codes.byte_size()), 0);
  EXPECT_EQ(std::memcmp(one.scales.bytes(), five.scales.bytes(), one.scales.byte_size()), 0);
  EXPECT_EQ(std::memcmp(one.zeros.bytes(), five.zeros.bytes(), one.zeros.byte_size()), 0);
}

TEST(GroupQuantize, PaddingNibblesAreZero) {
  const auto result = quantize_to_nearest(random_matrix(3, 20, 2), Tensor(), {.group_size = -1}, DType::f16);
  for (int64_t row = 0; row < 3; ++row) {
    for (size_t byte = 10; byte < 12; ++byte) {
      EXPECT_EQ(result.codes.values<uint8_t>()[static_cast<size_t>(row) * 12 + byte], 0);
    }
  }
}

}  // namespace
}  // namespace salient
