#include "runtime/generate.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "support/golden_model.h"

namespace salient {
namespace {

class Generate : public testing::Test {
 protected:
  GenerateResult run(
      GenerateRequest request, const TokenCallback& callback = [](int32_t) { return true; }) {
    request.prompt = prompt_;
    return generate(decoder_, request, callback);
  }

  GoldenModel golden_{"llama_gqa"};
  std::unique_ptr<Backend> backend_ = make_cpu_backend();
  Decoder decoder_ = Decoder::load(golden_.directory().string(), *backend_);
  std::vector<int32_t> prompt_ = golden_.input_ids();
};

TEST_F(Generate, GreedyFollowsTheLargestLogitOfAFreshPass) {
  std::vector<int32_t> streamed;
  const auto result = run({.max_tokens = 6}, [&](int32_t token) {
    streamed.push_back(token);
    return true;
  });
  EXPECT_EQ(result.reason, FinishReason::max_tokens);
  EXPECT_EQ(result.tokens, streamed);
  EXPECT_EQ(result.prompt_tokens, 40);
  EXPECT_EQ(result.decode_steps, 5);
  EXPECT_GT(result.prefill_tokens_per_second(), 0);
  EXPECT_GT(result.decode_tokens_per_second(), 0);
  std::vector<int32_t> text = prompt_;
  for (const int32_t token : result.tokens) {
    KvCache cache = decoder_.make_cache();
    const Tensor logits = decoder_.forward(text, cache, {LogitRows::last});
    const auto values = logits.values<float>();
    EXPECT_EQ(token, std::max_element(values.begin(), values.end()) - values.begin());
    text.push_back(token);
  }
}

TEST_F(Generate, StopsBeforeAStopToken) {
  const auto free = run({.max_tokens = 6});
  const std::vector<int32_t> stop{free.tokens[3]};
  const auto stopped = run({.max_tokens = 6, .stop_tokens = stop});
  EXPECT_EQ(stopped.reason, FinishReason::stop_token);
  EXPECT_EQ(stopped.stop_token, stop[0]);
  EXPECT_FALSE(free.stop_token.has_value());
  const auto first = std::find(free.tokens.begin(), free.tokens.end(), stop[0]);
  EXPECT_EQ(stopped.tokens, std::vector<int32_t>(free.tokens.begin(), first));
}

TEST_F(Generate, DrawsNoStopTokenBeforeTheMinimum) {
  const auto free = run({.max_tokens = 6});
  const std::vector<int32_t> stop{free.tokens[1]};
  const auto longer = run({.max_tokens = 6, .min_tokens = 4, .stop_tokens = stop});
  EXPECT_GE(longer.tokens.size(), 4u);
  EXPECT_EQ(std::count(longer.tokens.begin(), longer.tokens.begin() + 4, stop[0]), 0);
  EXPECT_EQ(longer.tokens[0], free.tokens[0]);
}

TEST_F(Generate, AStreamGivesTokensUntilItEnds) {
  const auto expected = run({.max_tokens = 3}).tokens;
  TokenStream stream(decoder_, {.prompt = prompt_, .max_tokens = 3});
  for (const int32_t token : expected) EXPECT_EQ(stream.next(), token);
  EXPECT_FALSE(stream.next().has_value());
  EXPECT_FALSE(stream.next().has_value());
  EXPECT_EQ(stream.result().reason, FinishReason::max_tokens);
}

TEST_F(Generate, StopsAtTheEndOfTheContext) {
  const auto result = run({.max_tokens = 1000, .sampling = {.temperature = 1.0}});
  EXPECT_EQ(result.reason, FinishReason::context_limit);
  EXPECT_EQ(result.tokens.size(), 64u - 40u + 1u);  // the last token is drawn but never fed back
}

TEST_F(Generate, StopsWhenTheCallbackSaysSo) {
  int calls = 0;
  const auto result = run({.max_tokens = 20}, [&](int32_t) { return ++calls < 3; });
  EXPECT_EQ(result.reason, FinishReason::callback);
  EXPECT_EQ(result.tokens.size(), 3u);
}

TEST_F(Generate, CancellationKeepsWhatIsThere) {
  CancellationFlag flag = false;
  const auto result = run({.max_tokens = 20, .cancelled = &flag}, [&](int32_t) { return flag = true, true; });
  EXPECT_EQ(result.reason, FinishReason::cancelled);
  EXPECT_EQ(result.tokens.size(), 1u);
}

TEST_F(Generate, ASeedFixesTheText) {
  const auto draw = [&](uint64_t seed) {
    return run({.max_tokens = 12, .sampling = {.temperature = 2.0, .seed = seed}}).tokens;
  };
  EXPECT_EQ(draw(5), draw(5));
  EXPECT_NE(draw(5), draw(6));
}

TEST_F(Generate, RefusesBadRequests) {
  prompt_.clear();
  EXPECT_THROW(run({}), Error);
  prompt_.assign(65, 1);
  try {
    run({});
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "the prompt has 65 tokens, the model's context 64");
  }
  prompt_.assign(3, 1);
  EXPECT_THROW(run({.max_tokens = -1}), Error);
}

TEST(ContextLimit, GrowsWithTheScaling) {
  DecoderSpec spec;
  RopeSpec& rope = spec.ropes.emplace_back();
  spec.max_position_embeddings = rope.max_position_embeddings = 100;
  EXPECT_EQ(context_limit(spec), 100);
  rope.scaling = RopeScaling::linear;
  rope.factor = 4;
  EXPECT_EQ(context_limit(spec), 400);
  rope.scaling = RopeScaling::yarn;
  rope.original_max_position_embeddings = 25;
  EXPECT_EQ(context_limit(spec), 100);
}

}  // namespace
}  // namespace salient
