#include "runtime/proposer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "support/error_matcher.h"
#include "support/golden_model.h"

namespace salient {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<int32_t> look_up(const std::vector<int32_t>& seen, int64_t count) {
  return looked_up_tokens(seen, count);
}

TEST(LookedUpTokens, FollowTheLongestMatchAndOfThoseTheLast) {
  EXPECT_THAT(look_up({1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3}, 2), ElementsAre(4, 9)) << "three tokens before two";
  EXPECT_THAT(look_up({2, 3, 4, 9, 2, 3, 5, 7, 2, 3}, 3), ElementsAre(5, 7, 2)) << "the last of two places";
  EXPECT_THAT(look_up({3, 4, 9, 3}, 3), IsEmpty()) << "one token is too little";
  EXPECT_THAT(look_up({1, 2, 3}, 4), IsEmpty());
  EXPECT_THAT(look_up({1}, 4), IsEmpty());
  EXPECT_THAT(look_up({}, 4), IsEmpty());
}

TEST(LookedUpTokens, GoRoundWhereTheTextDoes) {
  EXPECT_THAT(look_up({8, 5, 6, 5, 6}, 5), ElementsAre(5, 6, 5, 6, 5));
  EXPECT_THAT(look_up({7, 7, 7}, 4), ElementsAre(7, 7, 7, 7));
}

class DraftProposals : public testing::Test {
 protected:
  GoldenModel golden_{"llama_gqa"};
  std::unique_ptr<Backend> backend_ = make_cpu_backend();
  Decoder draft_ = Decoder::load(golden_.directory().string(), *backend_);
  std::vector<int32_t> text_ = golden_.input_ids();

  std::vector<int32_t> drawn(std::vector<int32_t> seen, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      KvCache cache = draft_.make_cache();
      const Tensor logits = draft_.forward(seen, cache, {LogitRows::last});
      seen.push_back(Sampler({}).sample({logits.values<float>(), seen}));
    }
    return {seen.end() - count, seen.end()};
  }
};

/// Whatever became of the proposals before.
TEST_F(DraftProposals, AreWhatTheDraftWouldDraw) {
  const auto proposer = make_draft_proposer(draft_);
  std::vector<int32_t> seen(text_.begin(), text_.begin() + 20);
  const auto first = proposer->propose({seen, 4, Sampler({})});
  EXPECT_EQ(first, drawn(seen, 4));
  seen.insert(seen.end(), {first[0], first[1], (first[2] + 1) % 96});  // two were right
  EXPECT_EQ(proposer->propose({seen, 3, Sampler({})}), drawn(seen, 3));
  const auto other = proposer->copy();
  EXPECT_EQ(other->propose({seen, 3, Sampler({})}), drawn(seen, 3)) << "the same text again";
  seen.resize(10);  // another text altogether
  EXPECT_EQ(proposer->propose({seen, 2, Sampler({})}), drawn(seen, 2));
}

TEST_F(DraftProposals, EndWithTheDraftsContextAndVocabulary) {
  const auto proposer = make_draft_proposer(draft_);
  std::vector<int32_t> seen(63, 1);
  EXPECT_EQ(proposer->propose({seen, 5, Sampler({})}).size(), 2u);
  seen.assign(65, 1);
  EXPECT_THAT(proposer->propose({seen, 5, Sampler({})}), IsEmpty());
  seen.assign(5, 96);
  EXPECT_THAT(proposer->propose({seen, 5, Sampler({})}), IsEmpty());
}

/// Multiples of three, three of them.
class Threes : public TokenConstraint {
 public:
  std::span<const uint8_t> allowed() override { return allowed_; }
  void advance(int32_t token) override {
    EXPECT_EQ(token % 3, 0);
    ++taken_;
  }
  bool complete() const override { return taken_ == 3; }
  std::unique_ptr<TokenConstraint> copy() const override { return std::make_unique<Threes>(*this); }

 private:
  std::vector<uint8_t> allowed_ = [] {
    std::vector<uint8_t> allowed(90);
    for (size_t i = 0; i < allowed.size(); i += 3) allowed[i] = 1;
    return allowed;
  }();
  int taken_ = 0;
};

TEST_F(DraftProposals, AreWhatTheConstraintAllows) {
  const Threes threes;
  std::vector<int32_t> seen(text_.begin(), text_.begin() + 20);
  const auto found = make_draft_proposer(draft_)->propose({seen, 8, Sampler({}), &threes});
  EXPECT_THAT(found, testing::SizeIs(3));
  EXPECT_THAT(found, testing::Each(testing::ResultOf([](int32_t token) { return token % 3; }, 0)));
  SamplingOptions banning;
  for (int32_t token = 0; token < 90; token += 3) banning.logit_bias[token] = -INFINITY;
  EXPECT_THAT(make_draft_proposer(draft_)->propose({seen, 8, Sampler(banning), &threes}), IsEmpty());
}

TEST(LookedUpTokens, AreWhatTheConstraintAllows) {
  const Threes threes;
  const auto proposals = [&](const std::vector<int32_t>& seen) {
    return make_lookup_proposer()->propose({seen, 4, Sampler({}), &threes});
  };
  EXPECT_THAT(proposals({1, 2, 6, 9, 10, 1, 2}), ElementsAre(6, 9)) << "10 is no multiple";
  EXPECT_THAT(proposals({1, 2, 6, 9, 12, 15, 1, 2}), ElementsAre(6, 9, 12)) << "three are enough";
  EXPECT_THAT(proposals({1, 2, 93, 1, 2}), IsEmpty()) << "behind the end";
}

TEST(DraftProposer, LinearAttentionIsNoDraft) {
  const GoldenModel golden("qwen3_next");
  const auto backend = make_cpu_backend();
  const Decoder draft = Decoder::load(golden.directory().string(), *backend);
  EXPECT_THAT([&] { make_draft_proposer(draft); },
              throws_error(ErrorKind::unsupported, testing::HasSubstr("linear attention")));
}

}  // namespace
}  // namespace salient
