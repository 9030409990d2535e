#include "runtime/generate.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "runtime/engine.h"
#include "runtime/logprobs.h"
#include "support/error_matcher.h"
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

TEST_F(Generate, ABiasForbidsAndForcesTokens) {
  const auto free = run({.max_tokens = 3});
  const auto banned = run({.max_tokens = 3, .sampling = {.logit_bias = {{free.tokens[0], -INFINITY}}}});
  EXPECT_EQ(std::count(banned.tokens.begin(), banned.tokens.end(), free.tokens[0]), 0);
  EXPECT_EQ(run({.max_tokens = 3, .sampling = {.logit_bias = {{17, 100.0}}}}).tokens,
            (std::vector<int32_t>{17, 17, 17}));
  EXPECT_THAT(
      [&] {
        run({.sampling = {.logit_bias = {{96, 1.0}}}});
      },
      throws_error(ErrorKind::invalid_argument,
                   testing::StrEq("logit_bias is for token 96, but the vocabulary has 96 entries")));
}

/// Of the model's own logits, whatever is done to them before a token is drawn.
TEST_F(Generate, LogProbabilitiesAreThoseOfTheModel) {
  const auto result = run({.max_tokens = 4,
                           .min_tokens = 4,
                           .sampling = {.logit_bias = {{17, 100.0}}, .temperature = 0.7},
                           .stop_tokens = prompt_,
                           .logprobs = 2});
  ASSERT_EQ(result.logprobs.size(), 4u);
  KvCache cache = decoder_.make_cache();
  Tensor logits = decoder_.forward(prompt_, cache, {LogitRows::last});
  for (size_t i = 0; i < 4; ++i) {
    const TokenLogprobs expected = token_logprobs(logits.values<float>(), result.tokens[i], 2);
    const TokenLogprobs& found = result.logprobs[i];
    EXPECT_EQ(found.chosen.token, result.tokens[i]);
    EXPECT_EQ(found.chosen.logprob, expected.chosen.logprob);
    ASSERT_EQ(found.top.size(), 2u);
    EXPECT_EQ(found.top[1].token, expected.top[1].token);
    EXPECT_LE(found.top[1].logprob, found.top[0].logprob);
    logits = decoder_.forward({&result.tokens[i], 1}, cache, {LogitRows::last});
  }
  EXPECT_TRUE(run({.max_tokens = 2}).logprobs.empty());
}

/// More of them than share a pass, and one that ends early.
TEST_F(Generate, TextsOfOnePromptAreThoseThatComeAlone) {
  const auto request = [&](uint64_t seed) -> GenerateRequest {
    return {.prompt = prompt_, .max_tokens = 7, .sampling = {.temperature = 2.0, .seed = seed}};
  };
  TokenStream first(decoder_, request(0));
  first.prefill();
  std::vector<std::shared_ptr<TokenStream>> streams;
  Engine engine(decoder_, {});
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    streams.push_back(std::make_shared<TokenStream>(first.fork(seed)));
    engine.submit(streams.back());
  }
  streams[3]->stop();
  while (!engine.idle()) engine.step();
  for (size_t i = 0; i < streams.size(); ++i) {
    const auto alone = generate(decoder_, request(i + 1), [](int32_t) { return true; });
    const GenerateResult& found = streams[i]->result();
    EXPECT_EQ(found.tokens, i == 3 ? std::vector<int32_t>() : alone.tokens) << i;
    EXPECT_EQ(found.reason, i == 3 ? FinishReason::callback : FinishReason::max_tokens);
    EXPECT_EQ(found.decode_steps, i == 3 ? 0 : 6);
  }
}

TEST_F(Generate, CancellationEndsTextsThatShareAPass) {
  CancellationFlag flag = false;
  TokenStream first(decoder_, {.prompt = prompt_, .max_tokens = 9, .cancelled = &flag});
  first.prefill();
  std::vector<std::shared_ptr<TokenStream>> streams;
  Engine engine(decoder_, {});
  for (uint64_t seed = 0; seed < 3; ++seed) {
    streams.push_back(std::make_shared<TokenStream>(first.fork(seed)));
    engine.submit(streams.back());
  }
  engine.step(&flag);
  flag = true;
  engine.step(&flag);
  EXPECT_TRUE(engine.idle());
  for (const auto& stream : streams) {
    EXPECT_EQ(stream->result().reason, FinishReason::cancelled);
    EXPECT_EQ(stream->result().tokens.size(), 1u);
  }
}

TEST_F(Generate, ACancelledSpeculationCanBeGoneOnWith) {
  const GenerateRequest request{
      .prompt = prompt_, .max_tokens = 12, .speculation = {.tokens = 3, .draft = &decoder_}};
  const auto expected = generate(decoder_, request, [](int32_t) { return true; }).tokens;
  CancellationFlag flag = false;
  TokenStream stream(decoder_, request);
  stream.set_cancelled(&flag);
  std::vector<int32_t> found;
  for (int i = 0; i < 5; ++i) found.push_back(*stream.next());
  flag = true;
  EXPECT_FALSE(stream.next().has_value());
  EXPECT_EQ(stream.result().reason, FinishReason::cancelled);
  TokenStream rest(decoder_, {.max_tokens = 7}, stream.state());
  while (const auto token = rest.next()) found.push_back(*token);
  EXPECT_EQ(found, expected);
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

/// Texts with and without speculation, of one model by another of the same vocabulary, by itself, and by what
/// stands in the text.
class Speculation : public testing::TestWithParam<std::string> {
 protected:
  static Decoder load(const GoldenModel& golden, Backend& backend) {
    return Decoder::load(golden.directory().string(), backend);
  }

  GoldenModel golden_{GetParam()};
  GoldenModel other_{"qwen2"};
};

TEST_P(Speculation, GivesTheTextThatComesWithoutIt) {
  for (const ActivationMode mode : {ActivationMode::fp32, ActivationMode::int8}) {
    const auto backend = make_cpu_backend({.activations = mode});
    const Decoder decoder = load(golden_, *backend);
    const Decoder other = load(other_, *backend);
    const auto ids = golden_.input_ids();
    const std::span<const int32_t> prompt = std::span(ids).first(12);
    for (const double temperature : {0.0, 0.9}) {
      GenerateRequest request{
          .prompt = prompt,
          .max_tokens = 60,  // beyond the context of most
          .min_tokens = 5,
          .sampling = {.repetition_penalty = 1.05, .temperature = temperature, .seed = 11},
          .logprobs = 1};
      const auto all = [](int32_t) { return true; };
      const GenerateResult plain = generate(decoder, request, all);
      EXPECT_EQ(plain.proposed_tokens, 0);
      for (const Decoder* draft : std::initializer_list<const Decoder*>{nullptr, &decoder, &other}) {
        for (const int64_t count : {3, 11}) {
          request.speculation = {.tokens = count, .draft = draft};
          const GenerateResult found = generate(decoder, request, all);
          ASSERT_EQ(found.tokens, plain.tokens) << temperature << " " << count;
          EXPECT_EQ(found.reason, plain.reason);
          ASSERT_EQ(found.logprobs.size(), plain.logprobs.size());
          EXPECT_EQ(found.logprobs.back().chosen.logprob, plain.logprobs.back().chosen.logprob);
          if (draft == nullptr) continue;
          EXPECT_GT(found.proposed_tokens, 0);
          EXPECT_EQ(found.decode_steps + found.accepted_tokens, plain.decode_steps);
          if (draft == &decoder) {
            EXPECT_EQ(found.accepted_tokens, found.proposed_tokens) << temperature;
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Speculation,
                         testing::Values("llama_gqa", "mistral_window", "gemma3", "qwen3_moe", "deepseek_v3",
                                         "bloom", "rope_yarn", "ct_asym_32", "autoawq_32"),
                         [](const auto& test) { return test.param; });

TEST_F(Generate, ProposalsBehindAStopTokenDoNotCount) {
  const auto free = run({.max_tokens = 12});
  const std::vector<int32_t> stop{free.tokens[5]};
  const auto plain = run({.max_tokens = 12, .stop_tokens = stop});
  const auto found =
      run({.max_tokens = 12, .stop_tokens = stop, .speculation = {.tokens = 8, .draft = &decoder_}});
  EXPECT_EQ(found.tokens, plain.tokens);
  EXPECT_EQ(found.reason, FinishReason::stop_token);
}

TEST(SpeculationOptions, LinearAttentionIsRefused) {
  const GoldenModel golden("qwen3_next");
  const auto backend = make_cpu_backend();
  const Decoder decoder = Decoder::load(golden.directory().string(), *backend);
  const std::vector<int32_t> prompt{1, 2, 3};
  EXPECT_THAT([&] { TokenStream(decoder, {.prompt = prompt, .speculation = {.tokens = 2}}); },
              throws_error(ErrorKind::unsupported, testing::HasSubstr("no speculation")));
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

TEST_F(Generate, AStreamThatForgetsKeepsItsTokens) {
  TokenStream text(decoder_, {.prompt = prompt_, .max_tokens = 4, .speculation = {.tokens = 2}});
  while (text.next()) continue;
  const std::vector<int32_t> tokens(text.tokens().begin(), text.tokens().end());
  text.forget();
  EXPECT_EQ(text.cache().length(), 0);
  EXPECT_FALSE(text.next());
  EXPECT_FALSE(text.fork(1).next());
  EXPECT_EQ(text.result().tokens.size(), 4u);
  const SequenceState state = text.state();
  EXPECT_EQ(state.tokens, tokens);
  EXPECT_FALSE(state.logits.defined());
}

}  // namespace
}  // namespace salient
