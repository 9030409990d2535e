#include "calibrate/self_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "base/parallel.h"
#include "support/error_matcher.h"
#include "support/temporary_directory.h"
#include "support/tiny_model.h"

namespace salient {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class SelfText : public ::testing::Test {
 protected:
  SelfText() {
    TinyModel{.dtype = DType::f32}.write(directory());
    decoder_.emplace(Decoder::load(directory(), *backend_));
    start_.vocabulary = 96;
    for (int32_t id = 10; id < 90; ++id) start_.first_tokens.push_back(id);
  }
  std::string directory() const { return (scratch_.path() / "model").string(); }
  std::vector<std::vector<int32_t>> sample(const SelfTextOptions& options) const {
    return sample_self_text(*decoder_, start_, options);
  }

  TemporaryDirectory scratch_;
  std::unique_ptr<Backend> backend_ = make_cpu_backend({.precision = MatmulPrecision::f32});
  std::optional<Decoder> decoder_;
  SelfTextStart start_;
};

TEST_F(SelfText, IsWhatSeedAndModelSayForAnyNumberOfThreads) {
  const SelfTextOptions options{.sequences = 70, .length = 24, .seed = 3};  // more than go together
  const size_t threads = thread_count();
  set_thread_count(1);
  const auto one = sample(options);
  set_thread_count(7);
  const auto seven = sample(options);
  set_thread_count(threads);
  EXPECT_EQ(one, seven);
  ASSERT_EQ(one.size(), 70u);
  std::set<std::vector<int32_t>> distinct;
  for (const auto& sequence : one) {
    EXPECT_EQ(sequence.size(), 24u);
    EXPECT_GE(sequence.front(), 10);
    EXPECT_LT(sequence.front(), 90);
    distinct.insert(sequence);
  }
  EXPECT_GT(distinct.size(), 40u) << "of 80 first tokens some come twice";
  EXPECT_NE(sample({.sequences = 70, .length = 24, .seed = 4}), one);
}

/// What is drawn beside a sequence does not change it.
TEST_F(SelfText, BeginsTheSameHoweverManyAreDrawn) {
  const auto few = sample({.sequences = 3, .length = 12});
  const auto more = sample({.sequences = 9, .length = 12});
  EXPECT_TRUE(std::equal(few.begin(), few.end(), more.begin()));
}

/// A model that is sure of itself says what greedy decoding says.
TEST_F(SelfText, FollowsTheModelsProbabilities) {
  const auto sequences = sample({.sequences = 64, .length = 2, .seed = 5});
  double surprise = 0;
  double uniform = 0;
  for (const auto& sequence : sequences) {
    KvCache cache = decoder_->make_cache();
    const Tensor logits = decoder_->forward({sequence.data(), 1}, cache, {});
    double sum = 0;
    for (const float logit : logits.values<float>()) sum += std::exp(static_cast<double>(logit));
    const auto value = [&](size_t id) {
      return std::log(sum) - static_cast<double>(logits.values<float>()[id]);
    };
    surprise += value(static_cast<size_t>(sequence[1]));
    for (size_t id = 0; id < 96; ++id) uniform += value(id) / 96;
  }
  EXPECT_LT(surprise, 0.8 * uniform);
}

TEST_F(SelfText, BeginsWithThePrefixOfTheTokenizer) {
  start_.prefix = {5, 6};
  for (const auto& sequence : sample({.sequences = 3, .length = 8})) {
    EXPECT_EQ(sequence[0], 5);
    EXPECT_EQ(sequence[1], 6);
  }
  EXPECT_EQ(sample({.sequences = 1, .length = 1}).front(), std::vector<int32_t>{5});
}

TEST_F(SelfText, DrawsTokensOfTheVocabularyOnly) {
  start_.vocabulary = 20;
  start_.first_tokens = {1};
  for (const auto& sequence : sample({.sequences = 8, .length = 30})) {
    for (const int32_t id : sequence) EXPECT_LT(id, 20);
  }
}

TEST_F(SelfText, TellsHowFarItIsAndStops) {
  std::vector<int64_t> told;
  CancellationFlag stop{false};
  sample({.sequences = 2, .length = 4, .on_progress = [&](int64_t done, int64_t tokens) {
            EXPECT_EQ(tokens, 8);
            told.push_back(done);
          }});
  EXPECT_THAT(told, ElementsAre(4, 6, 8));
  const auto stopped = [&] {
    sample({.sequences = 2,
            .length = 100,
            .on_progress = [&](int64_t done, int64_t) { stop = done >= 20; },
            .cancelled = &stop});
  };
  EXPECT_THAT(stopped, throws_error(ErrorKind::cancelled, HasSubstr("stopped on request")));
  EXPECT_THAT([&] { sample({.length = 500}); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("longer than the model's 128 positions")));
}

TEST(SelfTextStart, IsTheTokenizersBeginOrAnyTokenOfText) {
  const auto start_with = [](const std::string& processor) {
    const Tokenizer tokenizer = Tokenizer::from_json(
        R"({"added_tokens": [{"id": 2, "content": "<s>", "special": true}], "post_processor": )" + processor +
            R"(, "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}})",
        "t.json");
    const Json config = TinyModel{}.config();
    return self_text_start(tokenizer, make_decoder_spec({config, "config.json"}));
  };
  const SelfTextStart framed = start_with(
      R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}},
          {"SpecialToken": {"id": "<s>"}}], "special_tokens": {"<s>": {"ids": [2]}}})");
  EXPECT_THAT(framed.prefix, ElementsAre(2));
  const SelfTextStart plain = start_with("null");
  EXPECT_TRUE(plain.prefix.empty());
  EXPECT_THAT(plain.first_tokens, ElementsAre(0, 1));
  EXPECT_EQ(plain.vocabulary, 3);
}

}  // namespace
}  // namespace salient
