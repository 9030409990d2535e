#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/name_pattern.h"
#include "base/spelling.h"
#include "support/error_matcher.h"

namespace salient {
namespace {

using ::testing::HasSubstr;

TEST(NamePattern, IsANameOrAPatternFromTheStart) {
  EXPECT_TRUE(NamePattern("lm_head").matches("lm_head"));
  EXPECT_FALSE(NamePattern("head").matches("lm_head"));
  EXPECT_FALSE(NamePattern("lm_.*").matches("lm_head"));
  EXPECT_TRUE(NamePattern("re:lm_").matches("lm_head"));
  EXPECT_FALSE(NamePattern("re:head").matches("lm_head"));
  EXPECT_TRUE(NamePattern("re:.*layers\\.(1|3)\\..*_proj$").matches("model.layers.3.mlp.up_proj"));
  EXPECT_FALSE(NamePattern("re:.*layers\\.(1|3)\\..*_proj$").matches("model.layers.2.mlp.up_proj"));
  EXPECT_TRUE(NamePattern("re:.*mlp\\.(?!gate$).*").matches("model.mlp.gate_proj"));
  EXPECT_FALSE(NamePattern("re:.*mlp\\.(?!gate$).*").matches("model.mlp.gate"));
}

TEST(NamePattern, BrokenAndEndlessPatternsAreRefused) {
  EXPECT_THAT([] { NamePattern("re:("); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("\"re:(\" is not a regular expression")));
  const NamePattern endless("re:(a+)+$");
  EXPECT_THAT([&] { endless.matches(std::string(5000, 'a') + "b"); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("cannot be matched")));
}

TEST(Spelling, SuggestsTheClosestWord) {
  constexpr std::string_view kKnown[] = {"duo_scaling", "n_grid", "mappings"};
  EXPECT_EQ(suggest("n_gird", kKnown), "did you mean \"n_grid\"?");
  EXPECT_EQ(suggest("DuoScaling", kKnown), "did you mean \"duo_scaling\"?");
  EXPECT_EQ(suggest("maping", kKnown), "did you mean \"mappings\"?");
  EXPECT_EQ(suggest("temperature", kKnown), "the known ones are duo_scaling, n_grid, mappings");
  EXPECT_EQ(closest_word("", kKnown), "");
  EXPECT_EQ(closest_word("x", kKnown), "");
}

TEST(Spelling, TextsAreCutBetweenCharacters) {
  EXPECT_EQ(shortened("abc", 3), "abc");
  EXPECT_EQ(shortened("abcd", 3), "abc...");
  const std::string text = "a\u00e9\u20ac\U0001F600";  // characters of 1, 2, 3 and 4 bytes
  const std::pair<size_t, size_t> expected[] = {{0, 0}, {1, 1}, {2, 1}, {3, 3}, {4, 3},  {5, 3},
                                                {6, 6}, {7, 6}, {8, 6}, {9, 6}, {10, 10}};
  for (const auto& [limit, end] : expected)
    EXPECT_EQ(whole_characters(text, limit), text.substr(0, end)) << limit;
  EXPECT_LE(whole_characters(std::string(100, '\x80'), 50).size(), 50u);
  EXPECT_GE(whole_characters(std::string(100, '\x80'), 50).size(), 40u);
}

}  // namespace
}  // namespace salient
