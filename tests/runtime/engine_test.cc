#include "runtime/engine.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>

#include "support/error_matcher.h"
#include "support/golden_model.h"

namespace salient {
namespace {

using testing::HasSubstr;

constexpr int64_t kContext = 1024;

/// A model with room for some pages.
struct Subject {
  explicit Subject(const std::string& name, KvType kv_type = KvType::fp32,
                   ActivationMode activations = ActivationMode::int16)
      : golden(name), backend(make_cpu_backend({.activations = activations})) {
    golden.widen_context(kContext);
    decoder.emplace(Decoder::load(golden.directory().string(), *backend, {.kv_type = kv_type}));
  }

  std::vector<int32_t> prompt(int64_t length, uint32_t seed) const {
    std::mt19937 generator(seed);
    std::vector<int32_t> tokens;
    for (int64_t i = 0; i < length; ++i)
      tokens.push_back(static_cast<int32_t>(generator() % static_cast<uint32_t>(decoder->spec().vocab_size)));
    return tokens;
  }

  GoldenModel golden;
  std::unique_ptr<Backend> backend;
  std::optional<Decoder> decoder;
};

/// Prompts and what is asked of them.
struct Work {
  std::vector<std::vector<int32_t>> prompts;
  std::vector<GenerateRequest> requests;

  void add(std::vector<int32_t> prompt, GenerateRequest request) {
    prompts.push_back(std::move(prompt));
    requests.push_back(request);
  }
  GenerateRequest request(size_t i) const {
    GenerateRequest request = requests[i];
    request.prompt = prompts[i];
    return request;
  }
};

/// Prompts of less than a page, of a page and of several; greedy and sampled; short texts and long ones.
Work mixed_work(const Subject& subject) {
  Work work;
  for (const int64_t length : {5, 128, 300, 1, 129, 256, 40, 391}) {
    const auto seed = static_cast<uint64_t>(length);
    work.add(subject.prompt(length, static_cast<uint32_t>(length)),
             {.max_tokens = 3 + length % 17,
              .sampling = {.temperature = length % 2 == 0 ? 0.0 : 1.2, .seed = seed}});
  }
  return work;
}

std::vector<std::vector<int32_t>> alone(const Subject& subject, const Work& work) {
  std::vector<std::vector<int32_t>> texts;
  for (size_t i = 0; i < work.requests.size(); ++i)
    texts.push_back(generate(*subject.decoder, work.request(i), [](int32_t) { return true; }).tokens);
  return texts;
}

/// Steps until nothing is left; tokens by request, which the results must agree with.
std::map<int64_t, GenerateResult> run_all(
    Engine& engine, const std::function<void()>& before_step = [] {}) {
  std::map<int64_t, std::vector<int32_t>> streamed;
  std::map<int64_t, GenerateResult> results;
  while (!engine.idle()) {
    before_step();
    for (const auto& [id, text, token] : engine.step()) {
      EXPECT_FALSE(results.contains(id)) << id;
      if (token) {
        streamed[id].push_back(*token);
      } else {
        results[id] = text->result();
      }
    }
  }
  for (const auto& [id, result] : results) EXPECT_EQ(result.tokens, streamed[id]) << id;
  return results;
}

class EngineOf : public testing::TestWithParam<std::string> {};

TEST_P(EngineOf, GivesEveryRequestTheTextThatItGetsAlone) {
  for (const KvType type : {KvType::fp32, KvType::int8}) {
    const Subject subject(GetParam(), type);
    const Work work = mixed_work(subject);
    const auto expected = alone(subject, work);
    for (const EngineOptions& options :
         {EngineOptions{}, EngineOptions{.max_num_seqs = 3, .max_num_batched_tokens = 130},
          EngineOptions{.max_num_seqs = 2, .max_num_batched_tokens = 1},
          EngineOptions{.max_num_seqs = 1, .max_num_batched_tokens = 4096, .enable_prefix_caching = false}}) {
      Engine engine(*subject.decoder, options);
      for (size_t i = 0; i < work.requests.size(); ++i)
        EXPECT_EQ(engine.submit(work.request(i)), static_cast<int64_t>(i));
      const auto results = run_all(engine, [&] { EXPECT_LE(engine.running(), options.max_num_seqs); });
      ASSERT_EQ(results.size(), expected.size());
      for (const auto& [request, result] : results) {
        EXPECT_EQ(result.tokens, expected[static_cast<size_t>(request)])
            << request << ", " << options.max_num_batched_tokens << " tokens a pass";
        EXPECT_EQ(result.reason, FinishReason::max_tokens);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, EngineOf,
                         testing::Values("llama_gqa", "ct_asym_32", "mistral_window", "qwen3_next",
                                         "rope_dynamic", "mixtral"),
                         [](const auto& test) { return test.param; });

/// Log-probabilities tell of the last bit.
TEST(Engine, AsAloneHoldsForWeightsAndActivationsInFloatingPoint) {
  struct Case {
    std::string model;
    ActivationMode activations;
  };
  for (const Case& one : {Case{"llama_gqa", ActivationMode::fp32}, Case{"llama_gqa", ActivationMode::int16},
                          Case{"ct_asym_32", ActivationMode::fp32}, Case{"mixtral", ActivationMode::int16},
                          Case{"ct_asym_32", ActivationMode::int8}}) {
    const Subject subject(one.model, KvType::fp32, one.activations);
    Work work = mixed_work(subject);
    for (int64_t i = 0; i < 12; ++i)
      work.add(subject.prompt(500 + 25 * i, static_cast<uint32_t>(i)), {.max_tokens = 6});
    work.add(work.prompts.back(), {.max_tokens = 9});
    for (GenerateRequest& request : work.requests) request.logprobs = 1;
    for (const int64_t room : {64, 512, 4096}) {
      Engine engine(*subject.decoder, {.max_num_seqs = 32, .max_num_batched_tokens = room, .as_alone = true});
      for (size_t i = 0; i < work.requests.size(); ++i) engine.submit(work.request(i));
      for (const auto& [id, result] : run_all(engine)) {
        const auto expected =
            generate(*subject.decoder, work.request(static_cast<size_t>(id)), [](int32_t) { return true; });
        ASSERT_EQ(result.tokens, expected.tokens) << one.model << id;
        for (size_t i = 0; i < result.logprobs.size(); ++i)
          ASSERT_EQ(result.logprobs[i].chosen.logprob, expected.logprobs[i].chosen.logprob)
              << one.model << id;
      }
    }
  }
}

TEST(Engine, RequestsMayComeWhileOthersRun) {
  const Subject subject("ct_asym_32");
  const Work work = mixed_work(subject);
  const auto expected = alone(subject, work);
  Engine engine(*subject.decoder, {});
  size_t submitted = 0;
  engine.submit(work.request(submitted++));
  const auto results = run_all(engine, [&] {
    if (submitted < work.requests.size()) engine.submit(work.request(submitted++));
  });
  ASSERT_EQ(results.size(), expected.size());
  for (const auto& [request, result] : results)
    EXPECT_EQ(result.tokens, expected[static_cast<size_t>(request)]) << request;
}

TEST(Engine, APrefixIsRunOnce) {
  const Subject subject("ct_asym_32");
  Engine engine(*subject.decoder, {});
  const std::vector<int32_t> prompt = subject.prompt(300, 1);
  Work work;
  work.add(prompt, {.max_tokens = 100});
  engine.submit(work.request(0));
  const GenerateResult first = run_all(engine).at(0);
  EXPECT_EQ(first.cached_tokens, 0);
  EXPECT_EQ(engine.kept_blocks(), 3u);  // 399 positions: the last token was never run
  // The same prompt; one that is a page of it and not a token more; one that goes on behind the text; one
  // that differs in its first page.
  work.add(prompt, {.max_tokens = 100});
  work.add({prompt.begin(), prompt.begin() + 128}, {.max_tokens = 5});
  std::vector<int32_t> longer = prompt;
  longer.insert(longer.end(), first.tokens.begin(), first.tokens.end());
  work.add(longer, {.max_tokens = 5});
  std::vector<int32_t> other = prompt;
  other[100] = other[100] == 0 ? 1 : 0;
  work.add(other, {.max_tokens = 5});
  const auto expected = alone(subject, work);
  for (size_t i = 1; i < work.requests.size(); ++i) engine.submit(work.request(i));
  const auto results = run_all(engine);
  const std::vector<int64_t> cached{0, 256, 0, 384, 0};
  for (const auto& [request, result] : results) {
    EXPECT_EQ(result.cached_tokens, cached[static_cast<size_t>(request)]) << request;
    EXPECT_EQ(result.tokens, expected[static_cast<size_t>(request)]) << request;
  }
}

/// However they come in, whatever is cut: what is alike is run for one of them.
TEST(Engine, PromptsThatComeTogetherRunWhatTheyHaveInCommonOnce) {
  const Subject subject("ct_asym_32");
  const std::vector<int32_t> prompt = subject.prompt(300, 1);
  std::vector<int32_t> other = prompt;
  other[200] = other[200] == 0 ? 1 : 0;
  Work work;
  for (const uint64_t seed : {1, 2, 3, 4})
    work.add(prompt, {.max_tokens = 20, .sampling = {.temperature = 1.0, .seed = seed}});
  work.add(other, {.max_tokens = 5});
  work.add({prompt.begin(), prompt.begin() + 256}, {.max_tokens = 5});
  const auto expected = alone(subject, work);
  for (const EngineOptions& options :
       {EngineOptions{}, EngineOptions{.max_num_batched_tokens = 128},
        EngineOptions{.max_num_seqs = 2, .max_num_batched_tokens = 128}, EngineOptions{.max_num_seqs = 1}}) {
    Engine engine(*subject.decoder, options);
    for (size_t i = 0; i < work.requests.size(); ++i) engine.submit(work.request(i));
    const auto results = run_all(engine);
    // The fifth begins otherwise in its second page; the sixth ends with its second page, the last token of
    // which has to be run.
    const std::vector<int64_t> cached{0, 300, 300, 300, 128, 128};
    for (const auto& [request, result] : results) {
      EXPECT_EQ(result.cached_tokens, cached[static_cast<size_t>(request)]) << request;
      EXPECT_EQ(result.tokens, expected[static_cast<size_t>(request)]) << request;
    }
  }
}

TEST(Engine, TheSamePromptIsRunOnceWhereNoPrefixesAreKept) {
  for (const std::string name : {"ct_asym_32", "qwen3_next", "rope_dynamic"}) {
    const Subject subject(name);
    Work work;
    for (const uint64_t seed : {1, 2, 3})
      work.add(subject.prompt(40, 1), {.max_tokens = 10, .sampling = {.temperature = 1.0, .seed = seed}});
    const auto expected = alone(subject, work);
    Engine engine(*subject.decoder, {.max_num_seqs = 2, .enable_prefix_caching = false});
    for (size_t i = 0; i < work.requests.size(); ++i) engine.submit(work.request(i));
    for (const auto& [request, result] : run_all(engine)) {
      EXPECT_EQ(result.cached_tokens, request == 0 ? 0 : 40) << name << request;
      EXPECT_EQ(result.tokens, expected[static_cast<size_t>(request)]) << name << request;
    }
  }
}

TEST(Engine, APromptThatOthersWaitForMayBeCancelled) {
  const Subject subject("ct_asym_32");
  const std::vector<int32_t> prompt = subject.prompt(300, 1);
  CancellationFlag flag = false;
  Engine engine(*subject.decoder, {.max_num_batched_tokens = 128});
  engine.submit({.prompt = prompt, .max_tokens = 5, .cancelled = &flag});
  engine.submit({.prompt = prompt, .max_tokens = 5});
  engine.step();
  flag = true;
  const auto results = run_all(engine);
  EXPECT_EQ(results.at(0).reason, FinishReason::cancelled);
  EXPECT_EQ(
      results.at(1).tokens,
      generate(*subject.decoder, {.prompt = prompt, .max_tokens = 5}, [](int32_t) { return true; }).tokens);
  EXPECT_EQ(results.at(1).cached_tokens, 128);
}

TEST(Engine, BlocksOfAnotherTypeAreNotShared) {
  const Subject subject("ct_asym_32", KvType::int8);
  const std::vector<int32_t> prompt = subject.prompt(200, 1);
  Engine engine(*subject.decoder, {});
  // As a state that was saved with another type.
  engine.submit(std::make_shared<TokenStream>(*subject.decoder,
                                              GenerateRequest{.prompt = prompt, .max_tokens = 5},
                                              SequenceState(KvCache(subject.decoder->spec(), KvType::fp32))));
  run_all(engine);
  EXPECT_EQ(engine.kept_blocks(), 0u);
  engine.submit({.prompt = prompt, .max_tokens = 5});
  EXPECT_EQ(run_all(engine).at(1).cached_tokens, 0);
  EXPECT_EQ(engine.kept_blocks(), 1u);
}

TEST(Engine, RefusesTextsOfOthersAndThoseThatItHas) {
  const Subject subject("ct_asym_32");
  const Subject other("llama_gqa");
  const std::vector<int32_t> prompt = subject.prompt(20, 1);
  Engine engine(*subject.decoder, {});
  const auto text =
      std::make_shared<TokenStream>(*subject.decoder, GenerateRequest{.prompt = prompt, .max_tokens = 5});
  engine.submit(text);
  const auto foreign =
      std::make_shared<TokenStream>(*other.decoder, GenerateRequest{.prompt = prompt, .max_tokens = 5});
  for (const auto& bad : {text, foreign}) {
    EXPECT_THAT([&] { engine.submit(bad); },
                throws_error(ErrorKind::invalid_argument, HasSubstr("another model, or one that is in")));
  }
  EXPECT_EQ(run_all(engine).size(), 1u);
}

/// A text of which no token can be drawn.
TEST(Engine, ATextThatFailsEndsAloneAndNothingOfOthersIsLost) {
  const Subject subject("ct_asym_32");
  Work work = mixed_work(subject);
  const auto expected = alone(subject, work);
  GenerateRequest hopeless{.max_tokens = 5};
  for (int32_t token = 0; token < subject.decoder->spec().vocab_size; ++token)
    hopeless.sampling.logit_bias[token] = -INFINITY;
  const std::vector<int32_t> prompt = subject.prompt(3, 1);
  hopeless.prompt = prompt;
  Engine engine(*subject.decoder, {});
  engine.submit(work.request(0));
  engine.submit(hopeless);
  for (size_t i = 1; i < work.requests.size(); ++i) engine.submit(work.request(i));
  const auto results = run_all(engine);
  ASSERT_EQ(results.size(), expected.size() + 1);
  EXPECT_EQ(results.at(1).reason, FinishReason::error);
  EXPECT_THAT(
      [&] { throw Error(results.at(1).failure.value()); },
      throws_error(ErrorKind::invalid_argument, HasSubstr("no token may come next: all are forbidden")));
  EXPECT_EQ(results.at(0).tokens, expected[0]);
  for (size_t i = 1; i < expected.size(); ++i)
    EXPECT_EQ(results.at(static_cast<int64_t>(i) + 1).tokens, expected[i]) << i;
}

TEST(Engine, ALongPromptAdvancesBesideATextHoweverFewTokensAPassTakes) {
  const Subject subject("ct_asym_32");
  Engine engine(*subject.decoder, {.max_num_batched_tokens = 2});
  const std::vector<int32_t> prompt = subject.prompt(300, 1);
  const auto text = std::make_shared<TokenStream>(
      *subject.decoder, GenerateRequest{.prompt = std::span(prompt).first(5), .max_tokens = 40});
  const auto late =
      std::make_shared<TokenStream>(*subject.decoder, GenerateRequest{.prompt = prompt, .max_tokens = 2});
  engine.submit(text);
  engine.submit(late);
  for (int step = 0; step < 8; ++step) engine.step();
  EXPECT_FALSE(text->ended());
  EXPECT_TRUE(late->ended());
}

/// What a rejected guess left behind is no prefix.
TEST(Engine, RejectedGuessesAreNotKept) {
  const Subject subject("llama_gqa");
  const Subject other("llama_tied");
  const std::vector<int32_t> prompt = subject.prompt(120, 4);
  int64_t rejected = 0;
  for (int64_t drawn = 6; drawn <= 10; ++drawn) {  // the page ends behind the eighth
    Engine engine(*subject.decoder, {});
    const auto text = std::make_shared<TokenStream>(
        *subject.decoder,
        GenerateRequest{
            .prompt = prompt, .max_tokens = 40, .speculation = {.tokens = 4, .draft = &*other.decoder}});
    engine.submit(text);
    while (std::ssize(text->result().tokens) < drawn) engine.step();
    const bool certain = text->certain_positions() >= kPageRows;
    rejected += text->cache().length() > text->certain_positions() ? 1 : 0;
    text->stop();
    engine.step();
    EXPECT_EQ(engine.kept_blocks(), certain ? 1u : 0u) << drawn;
  }
  EXPECT_GT(rejected, 0);
}

TEST(Engine, MemoryBoundsWhatRunsAndWhatIsKept) {
  const Subject subject("ct_asym_32");
  const uint64_t block = subject.decoder->make_cache().block_bytes();
  Engine engine(*subject.decoder, {.kv_cache_memory_bytes = 5 * block + block / 2});
  Work work;
  for (uint32_t seed = 0; seed < 4; ++seed) work.add(subject.prompt(300, seed), {.max_tokens = 30});
  const auto expected = alone(subject, work);
  for (size_t i = 0; i < work.requests.size(); ++i) engine.submit(work.request(i));
  const auto results = run_all(engine, [&] {
    EXPECT_LE(engine.running(), 1);  // three blocks each
    EXPECT_LE(engine.kept_blocks(), 5u);
  });
  for (const auto& [request, result] : results)
    EXPECT_EQ(result.tokens, expected[static_cast<size_t>(request)]) << request;
  const std::vector<int32_t> prompt = subject.prompt(300, 9);
  EXPECT_THAT([&] { engine.submit({.prompt = prompt, .max_tokens = 500}); },
              throws_error(ErrorKind::invalid_argument,
                           HasSubstr("a prompt of 300 tokens and 500 more take 7 blocks")));
  const TokenStream large(*subject.decoder, {.prompt = prompt, .max_tokens = 500});
  EXPECT_EQ(most_cache_bytes(large), 7 * block);
  const TokenStream endless(*subject.decoder, {.prompt = prompt, .max_tokens = INT64_MAX});
  EXPECT_EQ(most_cache_bytes(endless), kContext / kPageRows * block);
  EXPECT_THAT([&] { Engine(*subject.decoder, {.kv_cache_memory_bytes = block - 1}); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("kv_cache_memory_bytes is")));
}

TEST(Engine, CancelsWaitingAndRunningTexts) {
  const Subject subject("llama_gqa");
  Engine engine(*subject.decoder, {.max_num_seqs = 2});
  const std::vector<int32_t> prompt = subject.prompt(20, 1);
  CancellationFlag flag = false;
  const auto waiting =
      std::make_shared<TokenStream>(*subject.decoder, GenerateRequest{.prompt = prompt, .max_tokens = 50});
  engine.submit({.prompt = prompt, .max_tokens = 50});
  engine.submit({.prompt = prompt, .max_tokens = 50, .cancelled = &flag});
  engine.submit(waiting);
  int64_t steps = 0;
  const auto results = run_all(engine, [&] {
    if (++steps != 3) return;
    EXPECT_EQ(engine.running(), 2);
    EXPECT_EQ(engine.waiting(), 1);
    waiting->stop();
    flag = true;
  });
  EXPECT_EQ(results.at(0).reason, FinishReason::max_tokens);
  EXPECT_EQ(results.at(0).tokens.size(), 50u);
  EXPECT_EQ(results.at(1).reason, FinishReason::cancelled);
  EXPECT_EQ(results.at(1).tokens.size(), 2u);
  EXPECT_EQ(results.at(2).reason, FinishReason::callback);
  EXPECT_TRUE(results.at(2).tokens.empty());
}

TEST(Engine, ABadRequestOrACancelledStepLeavesOthersAsTheyWere) {
  const Subject subject("ct_asym_32");
  const Work work = mixed_work(subject);
  const auto expected = alone(subject, work);
  Engine engine(*subject.decoder, {});
  for (size_t i = 0; i < work.requests.size(); ++i) engine.submit(work.request(i));
  const std::vector<int32_t> bad{5, 1 << 20};
  EXPECT_THAT([&] { engine.submit({.prompt = bad}); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("token 1 is 1048576")));
  EXPECT_THAT([&] { engine.submit(GenerateRequest{}); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("the prompt is empty")));
  const CancellationFlag raised = true;
  const auto results = run_all(engine, [&] {
    EXPECT_THAT([&] { engine.step(&raised); }, throws_error(ErrorKind::cancelled, HasSubstr("stopped")));
  });
  ASSERT_EQ(results.size(), expected.size());
  for (const auto& [request, result] : results)
    EXPECT_EQ(result.tokens, expected[static_cast<size_t>(request)]) << request;
}

TEST(Engine, RequestsThatSpeculateRunBesideOthers) {
  const Subject subject("ct_asym_32");
  Work work = mixed_work(subject);
  const auto expected = alone(subject, work);
  for (size_t i = 0; i < work.requests.size(); i += 2) work.requests[i].speculation.tokens = 3;
  Engine engine(*subject.decoder, {});
  for (size_t i = 0; i < work.requests.size(); ++i) engine.submit(work.request(i));
  const auto results = run_all(engine);
  for (const auto& [request, result] : results)
    EXPECT_EQ(result.tokens, expected[static_cast<size_t>(request)]) << request;
}

TEST(Engine, RefusesOptionsThatMakeNoSense) {
  const Subject subject("llama_gqa");
  EXPECT_THAT([&] { Engine(*subject.decoder, {.max_num_seqs = 0}); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("max_num_seqs is 0")));
  EXPECT_THAT([&] { Engine(*subject.decoder, {.max_num_batched_tokens = -1}); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("max_num_batched_tokens is -1")));
}

}  // namespace
}  // namespace salient
