#include "runtime/json_constraint.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>

#include "base/error.h"
#include "runtime/generate.h"
#include "salient/model.h"
#include "support/error_matcher.h"
#include "support/shared_data.h"
#include "support/temporary_directory.h"
#include "support/tiny_model.h"
#include "text/json_prefix.h"

namespace salient {
namespace {

const std::string kDemo = SALIENT_SOURCE_DIR "/examples/demo/model";

bool begins_an_object(std::string_view text) {
  JsonPrefix prefix;
  return std::ranges::all_of(text, [&](char byte) { return prefix.push(byte); });
}

bool is_object(const std::string& text) {
  return nlohmann::json::accept(text) && nlohmann::json::parse(text).is_object();
}

/// Against every token pushed byte by byte, along texts drawn from what is allowed.
void expect_exact_masks(const Tokenizer& tokenizer, uint32_t seed) {
  const auto vocabulary = std::make_shared<const JsonVocabulary>(tokenizer);
  const std::vector<std::string> bytes = tokenizer.token_bytes();
  const auto constraint = make_json_constraint(vocabulary);
  JsonPrefix prefix;
  std::mt19937 random(seed);
  for (int step = 0; step < 60 && !constraint->complete(); ++step) {
    const auto allowed = constraint->allowed();
    ASSERT_EQ(allowed.size(), bytes.size());
    std::vector<int32_t> possible;
    for (size_t i = 0; i < bytes.size(); ++i) {
      JsonPrefix next = prefix;
      const bool is_special = tokenizer.is_special(static_cast<int32_t>(i));
      const bool fits = !bytes[i].empty() && !is_special &&
                        std::ranges::all_of(bytes[i], [&](char byte) { return next.push(byte); });
      ASSERT_EQ(allowed[i], fits ? 1 : 0) << step << ": token " << i << " \"" << bytes[i] << '"';
      if (fits) possible.push_back(static_cast<int32_t>(i));
    }
    const int32_t token = possible[random() % possible.size()];
    for (const char byte : bytes[static_cast<size_t>(token)]) prefix.push(byte);
    constraint->advance(token);
    EXPECT_EQ(constraint->complete(), prefix.complete());
  }
}

TEST(JsonConstraint, AllowsExactlyTheTokensThatFit) {
  const auto tokenizer = Tokenizer::from_directory(kDemo);
  for (uint32_t seed = 0; seed < 40; ++seed) expect_exact_masks(tokenizer, seed);
}

TEST(JsonConstraint, AllowsExactlyTheTokensThatFitWithByteTokens) {
  SALIENT_SHARED_OR_SKIP(path, "models/stories260k");
  const auto tokenizer = Tokenizer::from_directory(path.string());
  for (uint32_t seed = 0; seed < 40; ++seed) expect_exact_masks(tokenizer, seed);
}

TEST(JsonConstraint, RefusesAVocabularyWithoutBraces) {
  const auto tokenizer = Tokenizer::from_json(
      R"({"model": {"type": "BPE", "vocab": {"a": 0, "[": 1, "\"": 2}, "merges": []}})", "tokenizer.json");
  EXPECT_THAT([&] { JsonVocabulary{tokenizer}; },
              throws_error(ErrorKind::unsupported, testing::HasSubstr("it has no token for { alone")));
}

TEST(JsonConstraint, ACopyGoesItsOwnWay) {
  const auto tokenizer = Tokenizer::from_directory(kDemo);
  const auto first = make_json_constraint(std::make_shared<const JsonVocabulary>(tokenizer));
  const int32_t open = tokenizer.token_id("{").value();
  const int32_t close = tokenizer.token_id("}").value();
  first->advance(open);
  const auto second = first->copy();
  first->advance(close);
  EXPECT_TRUE(first->complete());
  EXPECT_FALSE(second->complete());
  EXPECT_EQ(second->allowed()[static_cast<size_t>(open)], 0);
  EXPECT_EQ(second->allowed()[static_cast<size_t>(close)], 1);
}

/// Texts of a model at a temperature where it raves.
void expect_json_only(const Model& model, std::map<int32_t, double> logit_bias) {
  int complete = 0;
  for (uint64_t first = 0; first < 64; first += 8) {
    const GenerateOptions options{.max_tokens = 120,
                                  .temperature = 2.0,
                                  .seed = first,
                                  .logit_bias = logit_bias,
                                  .response_format = ResponseFormat::json_object};
    for (const Generation& text : model.generate_several("Once upon a time", 8, options)) {
      if (text.reason == FinishReason::complete) {
        ++complete;
        EXPECT_TRUE(is_object(text.text)) << text.seed << ": " << text.text;
      } else {
        EXPECT_EQ(text.reason, FinishReason::max_tokens);
        EXPECT_TRUE(begins_an_object(text.text) || text.text.ends_with("\xEF\xBF\xBD")) << text.text;
      }
    }
  }
  EXPECT_GT(complete, 8);
}

/// Else strings hardly ever end.
std::map<int32_t, double> towards_the_end(const Tokenizer& tokenizer) {
  std::map<int32_t, double> biases;
  const std::vector<std::string> bytes = tokenizer.token_bytes();
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] == "\"" || bytes[i] == "}" || bytes[i] == "]") biases[static_cast<int32_t>(i)] = 12;
  }
  return biases;
}

TEST(JsonConstraint, TextsThatEndAreObjects) {
  expect_json_only(Model::load(kDemo), towards_the_end(Tokenizer::from_directory(kDemo)));
}

TEST(JsonConstraint, TextsOfAModelWithByteTokensAreObjects) {
  SALIENT_SHARED_OR_SKIP(path, "models/stories260k");
  expect_json_only(Model::load(path.string()), towards_the_end(Tokenizer::from_directory(path.string())));
}

TEST(JsonConstraint, TextsOfARandomModelAreObjects) {
  const TemporaryDirectory scratch;
  const std::string path = (scratch.path() / "random").string();
  const auto tokenizer = Tokenizer::from_directory(kDemo);
  TinyModel{.extra = {{"vocab_size", tokenizer.vocabulary_size() + 5}}}.write(
      path);  // rows that are no token's
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"})
    std::filesystem::copy(kDemo + "/" + name, path + "/" + name);
  expect_json_only(Model::load(path), towards_the_end(tokenizer));
}

class ConstrainedGeneration : public testing::Test {
 protected:
  GenerateResult run(GenerateRequest request) {
    request.prompt = prompt_;
    request.constraint = constraint_.get();
    return generate(decoder_, request, [](int32_t) { return true; });
  }

  std::unique_ptr<Backend> backend_ = make_cpu_backend();
  Decoder decoder_ = Decoder::load(kDemo, *backend_);
  Tokenizer tokenizer_ = Tokenizer::from_directory(kDemo);
  std::unique_ptr<TokenConstraint> constraint_ =
      make_json_constraint(std::make_shared<const JsonVocabulary>(tokenizer_));
  std::vector<int32_t> prompt_ = tokenizer_.encode("The cat", Tokenizer::SpecialTokens::add);
  std::map<int32_t, double> bias_ = towards_the_end(tokenizer_);
};

TEST_F(ConstrainedGeneration, GreedyTakesTheLikeliestTokenThatFits) {
  const auto result = run({.max_tokens = 20, .logprobs = 0});
  const auto constraint = constraint_->copy();
  std::vector<int32_t> text = prompt_;
  double sum = 0;
  for (const int32_t token : result.tokens) {
    KvCache cache = decoder_.make_cache();
    const Tensor logits = decoder_.forward(text, cache, {LogitRows::last});
    const auto values = logits.values<float>();
    const auto allowed = constraint->allowed();
    int32_t best = -1;
    for (size_t i = 0; i < allowed.size(); ++i) {
      if (allowed[i] != 0 && (best < 0 || values[i] > values[static_cast<size_t>(best)]))
        best = static_cast<int32_t>(i);
    }
    EXPECT_EQ(token, best);
    for (const float value : values) sum += std::exp(static_cast<double>(value));
    const double expected = static_cast<double>(values[static_cast<size_t>(token)]) - std::log(sum);
    EXPECT_NEAR(result.logprobs[text.size() - prompt_.size()].chosen.logprob, expected, 1e-4);
    sum = 0;
    constraint->advance(token);
    text.push_back(token);
  }
}

TEST_F(ConstrainedGeneration, SpeculationChangesNoToken) {
  for (uint64_t seed = 0; seed < 12; ++seed) {
    const SamplingOptions sampling{.logit_bias = bias_, .temperature = 1.0, .seed = seed};
    const auto plain = run({.max_tokens = 80, .sampling = sampling});
    const auto looked_up = run({.max_tokens = 80, .sampling = sampling, .speculation = {.tokens = 4}});
    const auto drafted =
        run({.max_tokens = 80, .sampling = sampling, .speculation = {.tokens = 4, .draft = &decoder_}});
    EXPECT_EQ(looked_up.tokens, plain.tokens);
    EXPECT_EQ(drafted.tokens, plain.tokens);
    EXPECT_EQ(drafted.accepted_tokens, drafted.proposed_tokens) << "none that JSON forbids";
    EXPECT_EQ(looked_up.reason, plain.reason);
  }
}

TEST_F(ConstrainedGeneration, EndsWithTheObjectAndNotBefore) {
  const std::vector<int32_t> stop{tokenizer_.token_id("\"").value()};
  const std::map<int32_t, double> bias{{stop[0], 100}, {tokenizer_.token_id("}").value(), 50}};
  const auto result =
      run({.max_tokens = 60, .min_tokens = 60, .sampling = {.logit_bias = bias}, .stop_tokens = {}});
  EXPECT_EQ(result.reason, FinishReason::complete);
  EXPECT_TRUE(is_object(tokenizer_.decode(result.tokens, Tokenizer::SkipSpecial::yes)));
  EXPECT_FALSE(result.stop_token);
  // A stop token that would cut the object off is as good as forbidden.
  const auto without = run({.max_tokens = 60, .sampling = {.logit_bias = bias}, .stop_tokens = stop});
  EXPECT_EQ(without.reason, FinishReason::complete);
  EXPECT_EQ(std::ranges::count(without.tokens, stop[0]), 0);
}

}  // namespace
}  // namespace salient
