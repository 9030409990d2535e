#include "calibrate/gram_matrix.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "support/random_weights.h"
#include "support/split_input.h"

namespace salient {
namespace {

constexpr int64_t kColumns = 160;
constexpr int64_t kBlock = 64;  // and 32 at the end

class GramMatrixTest : public ::testing::Test {
 protected:
  GramMatrixTest() {
    for (const uint32_t seed : {1u, 2u}) {
      const Tensor x = split_input(150, kColumns, kBlock, seed);
      whole_.add(*backend_, MatmulPrecision::f32, x);
      blocks_.add(*backend_, MatmulPrecision::f32, x);
    }
  }

  static void expect_near(const std::vector<double>& found, const std::vector<double>& expected) {
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) {
      EXPECT_GT(expected[i], 0);
      EXPECT_NEAR(found[i] / expected[i], 1.0, 1e-4) << i;
    }
  }

  std::unique_ptr<Backend> backend_ = make_cpu_backend();
  GramMatrix whole_{kColumns};
  GramMatrix blocks_{kColumns, kBlock};
  Tensor weight_ = random_matrix(30, kColumns, 5);
  RoundingRule rule_{.scheme = {.symmetric = false, .group_size = 32}, .scale_dtype = DType::f16};
};

TEST_F(GramMatrixTest, BlocksLieOnTheDiagonal) {
  EXPECT_TRUE(whole_.is_whole());
  EXPECT_TRUE(GramMatrix(kColumns, kColumns).is_whole());
  EXPECT_EQ(whole_.features(), kColumns);
  EXPECT_EQ(blocks_.features(), kColumns);
  ASSERT_EQ(blocks_.blocks().size(), 3u);
  EXPECT_EQ(blocks_.blocks()[2].columns.begin, 128);
  EXPECT_EQ(blocks_.blocks()[2].values.shape(), (Shape{32, 32}));
  for (const GramMatrix::Block& block : blocks_.blocks()) {
    const int64_t width = block.columns.count();
    for (int64_t i = 0; i < width; ++i) {
      for (int64_t j = 0; j < width; ++j) {
        const int64_t at = (block.columns.begin + i) * kColumns + block.columns.begin + j;
        EXPECT_NEAR(block.values.values<float>()[static_cast<size_t>(i * width + j)],
                    whole_.whole().values<float>()[static_cast<size_t>(at)], 1e-2);
      }
    }
  }
  EXPECT_THROW(blocks_.whole(), Error);
}

TEST_F(GramMatrixTest, FormsAndLossesAreSumsOverBlocks) {
  std::vector<double> found(30);
  std::vector<double> expected(30);
  blocks_.quadratic_form(*backend_, weight_, found);
  whole_.quadratic_form(*backend_, weight_, expected);
  expect_near(found, expected);
  std::vector<float> scales(kColumns);
  for (size_t c = 0; c < scales.size(); ++c) scales[c] = 0.5f + 0.01f * static_cast<float>(c);
  Tensor clip = Tensor::empty(DType::f32, {30, 5});
  for (size_t i = 0; i < 150; ++i) clip.mutable_values<float>()[i] = 0.05f + 0.0005f * static_cast<float>(i);
  for (const MatmulPrecision precision : {MatmulPrecision::f32, MatmulPrecision::bf16}) {
    const RoundingTrial trial{.rule = rule_,
                              .weight = weight_,
                              .column_scales = scales,
                              .clip = clip,
                              .precision = precision,
                              .row_step = 4};
    found.resize(8);
    expected.resize(8);
    blocks_.rounding_loss(*backend_, trial, found);
    whole_.rounding_loss(*backend_, trial, expected);
    expect_near(found, expected);
  }
  // Of groups nothing else is looked at: the same sums to the last bits of their products.
  found.resize(2 * 30 * 5);
  expected.resize(2 * 30 * 5);
  const RoundingTrial trials[] = {{.rule = rule_, .weight = weight_, .clip = clip},
                                  {.rule = rule_, .weight = weight_, .column_scales = scales}};
  blocks_.rounding_losses_by_group(*backend_, trials, found);
  whole_.rounding_losses_by_group(*backend_, trials, expected);
  expect_near(found, expected);
  found.resize(2 * 30);
  expected.resize(2 * 30);
  blocks_.rounding_losses(*backend_, trials, found);
  whole_.rounding_losses(*backend_, trials, expected);
  expect_near(found, expected);
}

TEST_F(GramMatrixTest, ScalesOfTheInputAndSums) {
  std::vector<float> scales(kColumns);
  for (size_t c = 0; c < scales.size(); ++c) scales[c] = 0.5f + 0.02f * static_cast<float>(c);
  GramMatrix divided = blocks_.copy();
  divided.divide_input(scales);
  Tensor back = weight_.to(DType::f32);
  for (size_t i = 0; i < back.values<float>().size(); ++i)
    back.mutable_values<float>()[i] *= scales[i % kColumns];
  std::vector<double> found(30);
  std::vector<double> expected(30);
  divided.quadratic_form(*backend_, back, found);
  blocks_.quadratic_form(*backend_, weight_, expected);
  expect_near(found, expected);
  GramMatrix twice = blocks_.copy();
  twice.add(blocks_);
  twice.quadratic_form(*backend_, weight_, found);
  for (double& value : expected) value *= 2;
  expect_near(found, expected);
  EXPECT_THROW(twice.add(whole_), Error);
}

TEST_F(GramMatrixTest, AGroupInTwoBlocksIsRefused) {
  std::vector<double> losses(30);
  for (const int64_t size : {int64_t{128}, QuantizationScheme::kWholeRow}) {
    rule_.scheme.group_size = size;
    EXPECT_THROW(blocks_.rounding_loss(*backend_, {.rule = rule_, .weight = weight_}, losses), Error) << size;
  }
}

}  // namespace
}  // namespace salient
