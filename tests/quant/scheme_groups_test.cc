#include "quant/scheme_groups.h"

#include <gtest/gtest.h>

namespace salient {
namespace {

size_t entry_of(const TargetList& targets, std::string_view name) {
  const auto match = targets.find(name, kLinearClasses);
  return match ? match->entry : 99;
}

/// The order is that of compressed_tensors.utils.match.match_targets, version 0.19.
TEST(TargetList, TheMostSpecificTargetCounts) {
  const std::vector<std::vector<std::string>> groups{
      {"Linear"}, {"re:.*_proj$"}, {"a.q_proj"}, {"re:.*q_proj$"}};
  const TargetList targets(groups);
  EXPECT_EQ(entry_of(targets, "a.q_proj"), 2u);
  EXPECT_EQ(entry_of(targets, "b.q_proj"), 1u);  // patterns go by their text, not by how much they say
  EXPECT_EQ(entry_of(targets, "b.up_proj"), 1u);
  EXPECT_EQ(entry_of(targets, "b.router"), 0u);
  EXPECT_EQ(targets.find("b.router", kLinearClasses)->target, "Linear");
  EXPECT_FALSE(targets.find("b.router", {}).has_value());
}

TEST(TargetList, ATargetOfTwoGroupsBelongsToTheLast) {
  const std::vector<std::vector<std::string>> groups{{"Linear"}, {"Linear"}};
  EXPECT_EQ(entry_of(TargetList(groups), "x"), 1u);
}

}  // namespace
}  // namespace salient
