#include "recipe/layer_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "support/error_matcher.h"

namespace salient {
namespace {

LayerReport full_report() {
  LayerReport report{.layer = 7,
                     .clip_loss_before = 0.1,
                     .clip_loss_after = 1.0 / 3,
                     .equivalence_error = 1e-300,
                     .pooled_experts = {2, 5},
                     .seconds = {.forward = 4,
                                 .statistics = 0.5,
                                 .scales = 1,
                                 .clips = 2,
                                 .rounding = 3,
                                 .checks = 1.5,
                                 .total = 12.5}};
  report.mappings = {{.mapping = "a -> \"b\"",
                      .loss_before = INFINITY,
                      .loss_after = 0.25,
                      .ratio = 0.7,
                      .duo = true,
                      .left_alone = true,
                      .failure = "why",
                      .scale_quantiles = {1, 2, 3, 4, 5, 6, 7}}};
  LinearReport linear{.name = "q", .signal = 1, .loss_nearest = 2, .loss_scaled = 3};
  linear.scheme = {.num_bits = 8, .symmetric = true, .group_size = 32};
  linear.loss_clipped = -INFINITY;
  linear.loss = 5;
  linear.largest_channels = {{.channel = 3, .mean_absolute = 0.1, .times_median = 40}};
  report.linears = {linear};
  return report;
}

/// Everything comes back: what the record of the copy says, bit for bit, is what that of the original says.
TEST(LayerRecord, ComesBackWhole) {
  const LayerReport report = full_report();
  const Json record = layer_record(report);
  const LayerReport back = read_layer_record({parse_json(record.dump(), "record"), "record"});
  EXPECT_EQ(layer_record(back), record);
  EXPECT_EQ(back.layer, 7);
  EXPECT_EQ(back.clip_loss_after, 1.0 / 3);
  EXPECT_EQ(back.pooled_experts, report.pooled_experts);
  ASSERT_EQ(back.mappings.size(), 1u);
  EXPECT_EQ(back.mappings[0].loss_before, INFINITY);
  EXPECT_EQ(back.mappings[0].scale_quantiles, report.mappings[0].scale_quantiles);
  ASSERT_EQ(back.linears.size(), 1u);
  EXPECT_EQ(back.linears[0].scheme, report.linears[0].scheme);
  EXPECT_EQ(back.linears[0].loss_clipped, -INFINITY);
  ASSERT_EQ(back.linears[0].largest_channels.size(), 1u);
  EXPECT_EQ(back.linears[0].largest_channels[0].times_median, 40);
  LayerReport nothing;
  nothing.equivalence_error = NAN;
  const Json empty = layer_record(nothing);
  EXPECT_TRUE(std::isnan(read_layer_record({empty, "record"}).equivalence_error));
}

/// Calls `change` for every value anywhere in the record.
void for_every_value(Json& json, const std::function<void(Json& parent, const std::string& key)>& change) {
  if (json.is_array()) {
    for (Json& element : json) for_every_value(element, change);
  }
  if (!json.is_object()) return;
  std::vector<std::string> keys;
  for (const auto& [key, value] : json.items()) keys.push_back(key);
  for (const std::string& key : keys) {
    change(json, key);
    for_every_value(json[key], change);
  }
}

TEST(LayerRecord, NothingMayBeMissingOrOfAnotherType) {
  Json record = layer_record(full_report());
  int values = 0;
  for_every_value(record, [&](Json& parent, const std::string& key) {
    ++values;
    const Json before = parent;
    parent.erase(key);
    EXPECT_THAT(
        [&] {
          read_layer_record({record, "record"});
        },
        throws_error(ErrorKind::bad_format, ::testing::HasSubstr(key)));
    parent = before;
    parent[key] = Json::object();
    EXPECT_THROW(read_layer_record({record, "record"}), Error) << key;
    parent = before;
  });
  EXPECT_EQ(values, 8 + 7 + 8 + 9 + 3 + 3);  // layer, seconds, mapping, linear, scheme, channel
}

}  // namespace
}  // namespace salient
