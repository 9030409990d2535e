#include "awq/mse_clips.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/random.h"

namespace salient {
namespace {

constexpr int64_t kColumns = 64;
constexpr size_t kWidth = 32;

/// The sum of |Q(w) - w|^norm of one group under a bound.
double error_with(const RoundingRule& rule, std::span<const float> group, float clip, double norm) {
  RoundingRule whole = rule;
  whole.scheme.group_size = QuantizationScheme::kWholeRow;
  std::vector<float> rounded(group.size());
  fake_quantize_row(whole, group, {&clip, 1}, rounded);
  double sum = 0;
  for (size_t i = 0; i < group.size(); ++i) sum += std::pow(std::fabs(rounded[i] - group[i]), norm);
  return sum;
}

class MseClips : public ::testing::TestWithParam<bool> {
 protected:
  MseClips() {
    for (const size_t at : {3u, 70u, 200u}) weight_.mutable_values<float>()[at] *= 4;
    rule_.scheme = {.symmetric = GetParam(), .group_size = kWidth};
  }

  std::span<const float> group(size_t index) const {
    return weight_.values<float>().subspan(index * kWidth, kWidth);
  }

  Tensor weight_ = random_tensor({5, kColumns}, 3, 0.1f);
  RoundingRule rule_;
};

TEST_P(MseClips, AreTheBestOfAllCandidates) {
  const ObserverSettings settings{.maxshrink = 0.5, .grid = 20, .norm = 2, .patience = 100};
  const Tensor clips = search_mse_clips(rule_, weight_, settings);
  ASSERT_EQ(clips.shape(), (Shape{5, 2}));
  size_t shrunk = 0;
  for (size_t i = 0; i < clips.values<float>().size(); ++i) {
    float largest = 0;
    for (const float value : group(i)) largest = std::max(largest, std::fabs(value));
    const float found = clips.values<float>()[i];
    const double least = error_with(rule_, group(i), found, 2);
    for (int step = 0; step < 10; ++step) {
      const float candidate = largest * (1 - static_cast<float>(step) / 20);
      EXPECT_LE(least, error_with(rule_, group(i), candidate, 2) * (1 + 1e-6)) << i;
    }
    if (found < largest) ++shrunk;
  }
  EXPECT_GE(shrunk, 3u);
}

TEST_P(MseClips, PatienceEndsTheSearch) {
  const Tensor impatient =
      search_mse_clips(rule_, weight_, {.maxshrink = 0.9, .grid = 100, .norm = 2.4, .patience = 1});
  const Tensor patient =
      search_mse_clips(rule_, weight_, {.maxshrink = 0.9, .grid = 100, .norm = 2.4, .patience = 100});
  double a = 0;
  double b = 0;
  for (size_t i = 0; i < 10; ++i) {
    a += error_with(rule_, group(i), impatient.values<float>()[i], 2.4);
    b += error_with(rule_, group(i), patient.values<float>()[i], 2.4);
  }
  EXPECT_LT(b, a);
}

INSTANTIATE_TEST_SUITE_P(Symmetry, MseClips, ::testing::Bool());

}  // namespace
}  // namespace salient
