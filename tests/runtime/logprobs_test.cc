#include "runtime/logprobs.h"

#include <gtest/gtest.h>

#include <cmath>

namespace salient {
namespace {

TEST(TokenLogprobs, AreThoseOfTheSoftmax) {
  const std::vector<float> logits{std::log(0.1f), std::log(0.4f), std::log(0.1f), std::log(0.4f)};
  const TokenLogprobs found = token_logprobs(logits, 2, 3);
  EXPECT_EQ(found.chosen.token, 2);
  EXPECT_NEAR(found.chosen.logprob, std::log(0.1), 1e-6);
  ASSERT_EQ(found.top.size(), 3u);
  EXPECT_EQ(found.top[0].token, 1);  // the lower id of two that are as likely
  EXPECT_EQ(found.top[1].token, 3);
  EXPECT_EQ(found.top[2].token, 0);
  EXPECT_NEAR(found.top[1].logprob, std::log(0.4), 1e-6);
}

TEST(TokenLogprobs, LogitsThatAreNoNumbersHaveNoPart) {
  const std::vector<float> logits{NAN, 1000.0f, -INFINITY, 999.0f};
  const TokenLogprobs found = token_logprobs(logits, 2, 9);
  EXPECT_EQ(found.chosen.logprob, -INFINITY);
  ASSERT_EQ(found.top.size(), 2u);
  EXPECT_NEAR(found.top[0].logprob, -std::log1p(std::exp(-1.0)), 1e-12);
  EXPECT_TRUE(token_logprobs(logits, 1, 0).top.empty());
}

}  // namespace
}  // namespace salient
