#include "runtime/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/error.h"
#include "base/json.h"

namespace salient {
namespace {

TEST(NextTokenDistribution, IsThatOfTransformersProcessors) {
  const Json cases = read_json_file(std::string(SALIENT_SOURCE_DIR) + "/tests/golden/runtime/sampler.json");
  ASSERT_GT(cases.size(), 8u);
  for (const Json& golden : cases) {
    const Json& given = golden.at("options");
    const SamplingOptions options{.repetition_penalty = given.value("repetition_penalty", 1.0),
                                  .temperature = given.value("temperature", 1.0),
                                  .top_k = given.value("top_k", int64_t{0}),
                                  .top_p = given.value("top_p", 1.0),
                                  .min_p = given.value("min_p", 0.0)};
    const auto logits = golden.at("logits").get<std::vector<float>>();
    const auto seen = golden.at("seen").get<std::vector<int32_t>>();
    const auto expected = golden.at("probabilities").get<std::vector<double>>();
    std::map<int32_t, double> found;
    for (const auto& [token, probability] : next_token_distribution(options, {logits, seen}))
      found[token] = probability;
    for (size_t i = 0; i < expected.size(); ++i) {
      const auto entry = found.find(static_cast<int32_t>(i));
      EXPECT_NEAR(entry == found.end() ? 0.0 : entry->second, expected[i], 1e-6)
          << given.dump() << " token " << i;
    }
  }
}

TEST(NextTokenDistribution, HoldsWhatIsAllowedOnly) {
  const std::vector<float> logits{9, 1, 8, 3, 7};
  const std::vector<uint8_t> allowed{0, 1, 0, 1};  // of the last token nothing is said: it is not allowed
  EXPECT_EQ(next_token_distribution({}, {.logits = logits, .allowed = allowed})[0].token, 3);
  const auto drawn =
      next_token_distribution({.temperature = 1.0, .top_k = 2}, {.logits = logits, .allowed = allowed});
  ASSERT_EQ(drawn.size(), 2u);
  EXPECT_EQ(drawn[0].token, 3);
  EXPECT_EQ(drawn[1].token, 1);
  EXPECT_NEAR(drawn[0].probability, 1 / (1 + std::exp(-2.0)), 1e-12);
  const std::vector<int32_t> forbidden{3};
  const auto both =
      next_token_distribution({}, {.logits = logits, .forbidden = forbidden, .allowed = allowed});
  EXPECT_EQ(both[0].token, 1);
}

TEST(NextTokenDistribution, GreedyTakesTheLowestIdAmongEquals) {
  const std::vector<float> logits{1, 5, NAN, 5, INFINITY};
  const auto greedy = next_token_distribution({}, {logits});
  ASSERT_EQ(greedy.size(), 1u);
  EXPECT_EQ(greedy[0].token, 1);
}

TEST(Sampler, ASeedFixesTheDraws) {
  const std::vector<float> logits{0, 1, 2, 3};
  const auto draw = [&](uint64_t seed) {
    Sampler sampler({.temperature = 1.0, .seed = seed});
    std::vector<int32_t> tokens;
    for (int i = 0; i < 50; ++i) tokens.push_back(sampler.sample({logits}));
    return tokens;
  };
  EXPECT_EQ(draw(1), draw(1));
  EXPECT_NE(draw(1), draw(2));
  // Written down once: the same on every machine.
  const auto first = draw(42);
  EXPECT_EQ(std::vector<int32_t>(first.begin(), first.begin() + 8),
            (std::vector<int32_t>{3, 3, 2, 3, 0, 2, 3, 3}));
}

TEST(Sampler, FrequenciesFollowTheDistribution) {
  const std::vector<float> logits{0, 1, 2};
  Sampler sampler({.temperature = 1.0, .seed = 7});
  std::vector<double> counts(3);
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) counts[static_cast<size_t>(sampler.sample({logits}))] += 1.0 / kDraws;
  for (const auto& [token, probability] : next_token_distribution({.temperature = 1.0}, {logits})) {
    EXPECT_NEAR(counts[static_cast<size_t>(token)], probability, 0.012);  // about four standard deviations
  }
}

TEST(Sampler, RefusesSenselessOptions) {
  const auto message = [](const SamplingOptions& options) -> std::string {
    try {
      Sampler sampler(options);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::invalid_argument);
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(message({.temperature = -1}), "temperature -1 is outside [0, 1000]");
  EXPECT_EQ(message({.temperature = NAN}), "temperature nan is outside [0, 1000]");
  EXPECT_EQ(message({.top_k = -3}), "top_k -3 is outside [0, ...)");
  EXPECT_EQ(message({.top_p = 1.1}), "top_p 1.1 is outside [0, 1]");
  EXPECT_EQ(message({.min_p = 2}), "min_p 2 is outside [0, 1]");
  EXPECT_EQ(message({.logit_bias = {{7, NAN}}}),
            "logit_bias nan of token 7 is neither within [-1000, 1000] nor -inf");
  EXPECT_EQ(message({.logit_bias = {{7, INFINITY}}}),
            "logit_bias inf of token 7 is neither within [-1000, 1000] nor -inf");
  EXPECT_EQ(message({.logit_bias = {{7, -INFINITY}, {8, -1000.0}}}), "accepted");
  EXPECT_EQ(message({.repetition_penalty = 0}), "repetition_penalty 0 is outside [0.001, 1000]");
  Sampler sampler({});
  const std::vector<float> nothing{NAN, NAN};
  EXPECT_THROW(sampler.sample({nothing}), Error);
}

TEST(NextTokenDistribution, ABiasIsAddedBeforeAnythingElse) {
  const std::vector<float> logits{0, 1, 2, 3};
  const std::vector<int32_t> seen{1};
  const SamplingOptions options{
      .logit_bias = {{1, 4.0}, {3, -INFINITY}}, .repetition_penalty = 2.0, .temperature = 0.5};
  const std::vector<float> changed{0, 5, 2};  // of the remaining tokens 0, 1, 2
  const auto expected =
      next_token_distribution({.repetition_penalty = 2.0, .temperature = 0.5}, {changed, seen});
  const auto found = next_token_distribution(options, {logits, seen});
  ASSERT_EQ(found.size(), 3u);
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].token, expected[i].token);
    EXPECT_NEAR(found[i].probability, expected[i].probability, 1e-12);
  }
  EXPECT_EQ(found[0].token, 1);
  EXPECT_EQ(next_token_distribution({.logit_bias = {{0, 100.0}}}, {logits})[0].token, 0);
}

TEST(NextTokenDistribution, ForbiddenTokensHaveNoPart) {
  const std::vector<float> logits{0, 1, 2, 3};
  const std::vector<int32_t> forbidden{3, 1, 900};
  const auto found =
      next_token_distribution({.temperature = 1.0}, {.logits = logits, .forbidden = forbidden});
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].token, 2);
  EXPECT_EQ(found[1].token, 0);
  const std::vector<int32_t> all{0, 1, 2, 3};
  EXPECT_THROW(next_token_distribution({}, {.logits = logits, .forbidden = all}), Error);
}

TEST(Sampler, DrawsCanBeLookedAtAheadAndGoneOnWith) {
  const std::vector<float> logits{0, 1, 2, 3};
  const SamplingOptions options{.temperature = 1.0, .seed = 42};
  Sampler sampler(options);
  std::vector<int32_t> ahead;
  for (uint64_t i = 0; i < 20; ++i) ahead.push_back(sampler.peek({logits}, i));
  std::vector<int32_t> drawn;
  for (int i = 0; i < 12; ++i) drawn.push_back(sampler.sample({logits}));
  Sampler rest(options, sampler.draws());
  for (int i = 12; i < 20; ++i) drawn.push_back(rest.sample({logits}));
  EXPECT_EQ(drawn, ahead);
}

TEST(Sampler, ATinyTemperatureStillPicksTheLikeliest) {
  const std::vector<float> logits{1.0f, 5.0f, 2.0f};
  Sampler sampler({.temperature = 1e-310});
  EXPECT_EQ(sampler.sample({logits}), 1);
}

TEST(DrawToken, FollowsTheSoftmax) {
  const std::vector<float> logits{std::log(0.2f), NAN, std::log(0.5f), -INFINITY, std::log(0.3f)};
  EXPECT_EQ(draw_token(logits, 1, 0.0), 0);
  EXPECT_EQ(draw_token(logits, 1, 0.199), 0);
  EXPECT_EQ(draw_token(logits, 1, 0.201), 2);
  EXPECT_EQ(draw_token(logits, 1, 0.699), 2);
  EXPECT_EQ(draw_token(logits, 1, 0.701), 4);
  EXPECT_EQ(draw_token(logits, 1, 0x1.fffffffffffffp-1), 4);
  EXPECT_EQ(draw_token(logits, 0.01, 0.001), 2) << "colder is likelier";
  const std::vector<float> none{NAN, INFINITY};
  EXPECT_THROW(draw_token(none, 1, 0.5), Error);
}

}  // namespace
}  // namespace salient
