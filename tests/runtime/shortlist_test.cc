#include "runtime/shortlist.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <random>

#include "base/error.h"

namespace salient {
namespace {

/// Rows of logits as models give them, and as they never should.
class Rows {
 public:
  explicit Rows(uint32_t seed) : generator_(seed) {}

  double uniform() { return std::uniform_real_distribution<double>(0, 1)(generator_); }
  int64_t below(int64_t count) { return static_cast<int64_t>(generator_() % static_cast<uint64_t>(count)); }

  std::vector<float> logits(size_t count) {
    std::normal_distribution<float> normal(0.0f, static_cast<float>(std::exp(4 * uniform() - 2)));
    std::vector<float> result(count);
    for (float& logit : result) logit = normal(generator_);
    const int64_t kind = below(8);
    for (float& logit : result) {
      if (kind == 0) logit = std::round(logit);  // many ties
      if (kind == 1 && below(20) == 0) logit = NAN;
      if (kind == 2 && below(20) == 0) logit = below(2) == 0 ? INFINITY : -INFINITY;
      if (kind == 3 && below(50) != 0) logit = -INFINITY;
      if (kind == 4) logit = 1e20f * std::round(logit);
    }
    return result;
  }

 private:
  std::mt19937 generator_;
};

SamplingOptions random_options(Rows& random) {
  SamplingOptions options{.seed = static_cast<uint64_t>(random.below(1000))};
  const double temperatures[] = {0, 0.3, 0.7, 1, 1.5, 1e-3, 100};
  options.temperature = temperatures[random.below(7)];
  const int64_t ks[] = {0, 0, 0, 1, 5, 20, 63, 64, 65};
  options.top_k = ks[random.below(9)];
  const double ps[] = {1, 1, 0.95, 0.8, 0.5, 0};
  options.top_p = ps[random.below(6)];
  const double mins[] = {0, 0, 0.05, 0.5, 1};
  options.min_p = mins[random.below(5)];
  const double penalties[] = {1, 1, 1, 1.1, 2, 0.8};
  options.repetition_penalty = penalties[random.below(6)];
  for (int64_t i = random.below(4) == 0 ? 3 : 0; i > 0; --i)
    options.logit_bias[static_cast<int32_t>(random.below(300))] =
        random.below(3) == 0   ? -std::numeric_limits<double>::infinity()
        : random.below(2) == 0 ? -2.0
                               : 1.5;
  return options;
}

/// What a draw may look at beside the logits.
struct Surroundings {
  std::vector<int32_t> seen;
  std::vector<int32_t> forbidden;
  std::vector<uint8_t> allowed;

  Surroundings(Rows& random, size_t count) {
    const auto token = [&] { return static_cast<int32_t>(random.below(static_cast<int64_t>(count))); };
    for (int64_t i = random.below(100); i > 0; --i) seen.push_back(token());
    for (int64_t i = random.below(4) == 0 ? 5 : 0; i > 0; --i) forbidden.push_back(token());
    if (random.below(5) != 0) return;
    for (size_t i = 0; i + 7 < count; ++i) allowed.push_back(random.below(3) == 0 ? 1 : 0);
  }
  DrawContext context(std::span<const float> logits) const {
    return {.logits = logits, .seen = seen, .forbidden = forbidden, .allowed = allowed};
  }
};

std::optional<int32_t> drawn_from_row(Sampler sampler, const DrawContext& context) {
  try {
    return sampler.sample(context);
  } catch (const Error&) {
    return std::nullopt;
  }
}

/// How often a list decided, of so many draws each of which it may not get wrong.
int64_t decided(int64_t draws, const std::function<SamplingOptions(Rows&)>& options_of,
                const std::function<std::vector<float>(Rows&)>& logits_of, bool surrounded) {
  const auto backend = make_cpu_backend();
  Rows random(static_cast<uint32_t>(draws));
  int64_t result = 0;
  for (int64_t i = 0; i < draws; ++i) {
    const std::vector<float> logits = logits_of(random);
    const SamplingOptions options = options_of(random);
    const Surroundings around(random, logits.size());
    const DrawContext context = surrounded ? around.context(logits) : DrawContext{.logits = logits};
    ShortlistNeeds needs = shortlist_needs(options);
    if (needs.wanted == 0) continue;
    if (surrounded) needs.wanted = kMostLargest;
    const Tensor row = Tensor::of<float>({1, static_cast<int64_t>(logits.size())}, logits);
    const Shortlists lists(*backend, row, {&needs, 1});
    Shortlist list = lists[0];
    if (list.sum) *list.sum *= static_cast<float>(1 + kSumError * (2 * random.uniform() - 1) * 0.99);
    Sampler sampler(options, static_cast<uint64_t>(i));
    DrawContext without = context;
    without.logits = {};
    const auto expected = drawn_from_row(sampler, context);
    const auto found = sampler.sample(list, without);
    if (!found) continue;
    ++result;
    EXPECT_EQ(found, expected) << "draw " << i << ": temperature " << options.temperature << ", top_k "
                               << options.top_k << ", top_p " << options.top_p << ", min_p " << options.min_p
                               << ", penalty " << options.repetition_penalty;
    EXPECT_EQ(sampler.draws(), static_cast<uint64_t>(i) + 1);
  }
  return result;
}

TEST(Shortlist, NeverDrawsAnotherTokenThanTheWholeRow) {
  const auto logits = [](Rows& random) { return random.logits(static_cast<size_t>(1 + random.below(900))); };
  EXPECT_GT(decided(6000, random_options, logits, true), 2000);
  EXPECT_GT(decided(6001, random_options, logits, false), 2500);
}

/// As of a model: few likely tokens, many unlikely ones.
std::vector<float> model_logits(Rows& random) {
  std::vector<float> logits(5000);
  for (float& logit : logits) logit = static_cast<float>(-6 + 2 * random.uniform());
  for (int i = 0; i < 60; ++i)
    logits[static_cast<size_t>(random.below(5000))] = static_cast<float>(9 * random.uniform());
  return logits;
}

int64_t decided_of_400(const SamplingOptions& options) {
  return decided(
      400, [&](Rows&) { return options; }, model_logits, false);
}

TEST(Shortlist, IsEnoughForUsualSettings) {
  EXPECT_EQ(decided_of_400({}), 400);
  EXPECT_EQ(decided_of_400({.repetition_penalty = 1.1}), 400);
  EXPECT_EQ(decided_of_400({.temperature = 0.7, .top_k = 20, .top_p = 0.8}), 400);
  EXPECT_EQ(decided_of_400({.temperature = 1, .top_k = 50}), 400);
  EXPECT_EQ(decided_of_400({.temperature = 1, .top_k = 64, .top_p = 0.95}), 400);
  EXPECT_GE(decided_of_400({.temperature = 0.6, .top_p = 0.9}), 395);
  EXPECT_GE(decided_of_400({.temperature = 1, .min_p = 0.05}), 399);
  EXPECT_GE(decided_of_400({.temperature = 0.8}), 380);
}

TEST(Shortlist, IsNotAskedForWhereItCannotTell) {
  EXPECT_EQ(shortlist_needs({.repetition_penalty = 0.9}).wanted, 0);
  EXPECT_EQ(shortlist_needs({.logit_bias = {{3, 1.0}}}).wanted, 0);
  EXPECT_EQ(shortlist_needs({.temperature = 1, .top_k = 65}).wanted, 0);
  EXPECT_EQ(shortlist_needs({}).wanted, 1);
  EXPECT_EQ(shortlist_needs({.temperature = 1, .top_k = 20}).wanted, 21);
  EXPECT_FALSE(shortlist_needs({.temperature = 1, .top_k = 20}).scale);
  EXPECT_EQ(shortlist_needs({.temperature = 0.5}).scale, 2.0f);
}

/// A row that did not ask for a sum gets none, whoever else did.
TEST(Shortlists, KeepRowsApart) {
  const auto backend = make_cpu_backend();
  const Tensor logits = Tensor::of<float>({3, 4}, std::vector<float>{1, 2, 3, 4, 8, 7, 6, 5, 0, 9, 0, 9});
  const std::vector<ShortlistNeeds> needs{{.wanted = 1}, {.wanted = 2, .scale = 0.5f}, {}};
  const Shortlists lists(*backend, logits, needs);
  ASSERT_TRUE(lists.defined());
  EXPECT_EQ(lists[0].tokens[0], 3);
  EXPECT_FALSE(lists[0].sum);
  EXPECT_NEAR(lists[1].sum.value(), 1 + std::exp(-0.5) + std::exp(-1.0) + std::exp(-1.5), 1e-6);
  EXPECT_EQ(lists[1].tokens[1], 1);
  EXPECT_EQ(lists.from(2)[0].tokens[0], 1);
  EXPECT_EQ(lists.from(2)[0].reaching, 2);
  EXPECT_FALSE(Shortlists(*backend, logits, std::vector<ShortlistNeeds>(3)).defined());
}

}  // namespace
}  // namespace salient
