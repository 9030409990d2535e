#include "runtime/moe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace salient {
namespace {

using testing::ElementsAre;
using testing::FloatNear;

Tensor row(const std::vector<float>& values) {
  return Tensor::of<float>({1, static_cast<int64_t>(values.size())}, values);
}

TEST(Route, WeighsTheBestBySoftmax) {
  MoeSpec moe{.experts = 3, .experts_per_token = 2};
  const Tensor scores = row({0.0f, std::log(3.0f), std::log(4.0f)});
  const Routing plain = route(moe, scores, {});
  EXPECT_THAT(plain.experts, ElementsAre(2, 1));
  EXPECT_THAT(plain.weights, ElementsAre(FloatNear(0.5f, 1e-6f), FloatNear(0.375f, 1e-6f)));
  moe.normalize = true;
  EXPECT_THAT(route(moe, scores, {}).weights,
              ElementsAre(FloatNear(4 / 7.0f, 1e-6f), FloatNear(3 / 7.0f, 1e-6f)));
}

/// Expert 0 has the best score but its group of two the worst sum; the correction chooses and does not weigh.
TEST(Route, ChoosesWithinTheBestGroupsByCorrectedScores) {
  const MoeSpec moe{
      .experts = 4, .experts_per_token = 1, .score = RouterScore::sigmoid, .scale = 2, .groups = 2};
  const Tensor scores = row({2.0f, -9.0f, 1.0f, 1.5f});
  const Routing plain = route(moe, scores, {});
  EXPECT_THAT(plain.experts, ElementsAre(3));
  EXPECT_THAT(plain.weights, ElementsAre(FloatNear(2 / (1 + std::exp(-1.5f)), 1e-6f)));
  const Routing corrected = route(moe, scores, row({0.0f, 0.0f, 0.5f, 0.0f}));
  EXPECT_THAT(corrected.experts, ElementsAre(2));
  EXPECT_THAT(corrected.weights, ElementsAre(FloatNear(2 / (1 + std::exp(-1.0f)), 1e-6f)));
}

/// The first group has the better pair, the second the best expert.
TEST(Route, AGroupMayBeAsGoodAsItsBestExpert) {
  MoeSpec moe{.experts = 4, .experts_per_token = 1, .groups = 2};
  const Tensor scores = row({1.0f, 1.0f, 1.5f, -9.0f});
  EXPECT_THAT(route(moe, scores, {}).experts, ElementsAre(0));
  moe.group_score = GroupScore::best;
  EXPECT_THAT(route(moe, scores, {}).experts, ElementsAre(2));
}

TEST(Route, WeightsAreNotDividedByLessThanTheLeastSum) {
  const MoeSpec moe{.experts = 4, .experts_per_token = 1, .normalize = true, .least_sum = 0.5};
  EXPECT_THAT(route(moe, row({0.0f, 0.0f, 0.0f, 0.0f}), {}).weights, ElementsAre(FloatNear(0.5f, 1e-6f)));
}

TEST(Route, ScoresThatAreNoNumbersLose) {
  const MoeSpec moe{.experts = 64, .experts_per_token = 2, .score = RouterScore::sigmoid, .groups = 32};
  std::vector<float> scores(64, NAN);
  scores[8] = 1.0f;
  scores[9] = 2.0f;
  EXPECT_THAT(route(moe, row(scores), {}).experts, ElementsAre(9, 8));
}

}  // namespace
}  // namespace salient
