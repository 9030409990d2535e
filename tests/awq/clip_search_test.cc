#include "awq/clip_search.h"

#include <gtest/gtest.h>

#include <cmath>

#include "calibrate/activation_statistics.h"
#include "support/random.h"

namespace salient {
namespace {

constexpr int64_t kRows = 20;
constexpr int64_t kColumns = 64;
constexpr int64_t kGroup = 32;
constexpr int64_t kTokens = 50;

class ClipSearchTest : public ::testing::Test {
 protected:
  ClipSearchTest() {
    // A few weights far outside the rest are what clipping is for.
    for (size_t row = 0; row < kRows; row += 3) weight_.mutable_values<float>()[row * kColumns + row] = 0.5f;
    statistics_.add(*backend_, MatmulPrecision::f32, x_);
  }

  /// Mean squared output error of one group of one row under a clip, by definition.
  double group_error(size_t row, size_t group, float clip) const {
    RoundingRule rule = rule_;
    rule.scheme.group_size = QuantizationScheme::kWholeRow;
    const auto source = weight_.values<float>().subspan(row * kColumns + group * kGroup, kGroup);
    std::vector<float> rounded(kGroup);
    fake_quantize_row(rule, source, {&clip, 1}, rounded);
    double error = 0;
    for (size_t token = 0; token < kTokens; ++token) {
      double y = 0;
      for (size_t c = 0; c < kGroup; ++c)
        y += (rounded[c] - source[c]) * x_.values<float>()[token * kColumns + group * kGroup + c];
      error += y * y;
    }
    return error;
  }

  std::unique_ptr<Backend> backend_ = make_cpu_backend();
  RoundingRule rule_{.scheme = {.group_size = kGroup}, .scale_dtype = DType::f16};
  Tensor weight_ = random_tensor({kRows, kColumns}, 3, 0.05f);
  Tensor x_ = random_tensor({kTokens, kColumns}, 4);
  ActivationStatistics statistics_{kColumns};
};

TEST_F(ClipSearchTest, FindsTheBestOfTenPerGroup) {
  const ClipSearchResult found = search_clips({.backend = *backend_,
                                               .rounding = rule_,
                                               .weight = weight_,
                                               .gram = statistics_.gram(),
                                               .tokens = kTokens});
  double before = 0;
  double after = 0;
  int clipped = 0;
  for (size_t row = 0; row < kRows; ++row) {
    for (size_t group = 0; group < kColumns / kGroup; ++group) {
      float largest = 0;
      for (size_t c = 0; c < kGroup; ++c) {
        largest = std::max(largest, std::fabs(weight_.values<float>()[row * kColumns + group * kGroup + c]));
      }
      double best = group_error(row, group, largest);
      before += best;
      for (int i = 1; i < 10; ++i)
        best = std::min(best, group_error(row, group, largest * (1 - 0.05f * static_cast<float>(i))));
      after += best;
      const float chosen = found.clip.values<float>()[row * 2 + group];
      EXPECT_NEAR(group_error(row, group, chosen), best, 1e-3 * best) << "row " << row << " group " << group;
      if (chosen < largest) ++clipped;
    }
  }
  EXPECT_GT(clipped, 0);
  EXPECT_NEAR(found.loss_before, before / (kTokens * kRows), 1e-4 * found.loss_before);
  EXPECT_NEAR(found.loss_after, after / (kTokens * kRows), 1e-4 * found.loss_after);
  EXPECT_LT(found.loss_after, found.loss_before);
}

TEST_F(ClipSearchTest, AGroupOfZerosIsLeftAlone) {
  for (float& value : weight_.mutable_values<float>()) value = 0;
  const ClipSearchResult found = search_clips({.backend = *backend_,
                                               .rounding = rule_,
                                               .weight = weight_,
                                               .gram = statistics_.gram(),
                                               .tokens = kTokens});
  EXPECT_EQ(found.loss_after, 0.0);
  for (const float clip : found.clip.values<float>()) EXPECT_EQ(clip, 0.0f);
}

}  // namespace
}  // namespace salient
