#include "recipe/report_figures.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace salient {
namespace {

using ::testing::ElementsAre;

LayerReport layer_with(int64_t number, const std::vector<std::string>& names) {
  LayerReport layer;
  layer.layer = number;
  for (const std::string& name : names) layer.linears.push_back({.name = name});
  return layer;
}

TEST(ReportFigures, ExpertsShareARole) {
  const std::vector<LayerReport> layers{
      layer_with(0, {"model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj"}),
      layer_with(1, {"model.layers.1.self_attn.q_proj", "model.layers.1.mlp.experts.0.up_proj",
                     "model.layers.1.mlp.experts.1.up_proj"})};
  const LinearRoles roles = group_linears(layers);
  EXPECT_THAT(roles.names, ElementsAre("q_proj", "up_proj", "experts.*.up_proj"));
  ASSERT_EQ(roles.groups.size(), 4u);
  EXPECT_EQ(roles.groups[3].layer, 1);
  EXPECT_THAT(roles.groups[3].linears, ElementsAre(&layers[1].linears[1], &layers[1].linears[2]));
}

TEST(ReportFigures, NamesThatTwoBlocksShareStayWhole) {
  const std::vector<LayerReport> layers{layer_with(0, {"h.0.attn.c_proj", "h.0.mlp.c_proj", "h.0.mlp.c_fc"})};
  EXPECT_THAT(group_linears(layers).names, ElementsAre("attn.c_proj", "mlp.c_proj", "c_fc"));
}

TEST(ReportFigures, MappingsOfExpertsShareARole) {
  LayerReport layer;
  for (const char* name : {"experts.0.up_proj -> experts.0.down_proj",
                           "experts.12.up_proj -> experts.12.down_proj", "fc1 -> fc2"})
    layer.mappings.push_back({.mapping = name});
  const std::vector<LayerReport> layers{layer};
  EXPECT_THAT(group_mappings(layers).names,
              ElementsAre("experts.*.up_proj -> experts.*.down_proj", "fc1 -> fc2"));
}

TEST(ReportFigures, MeansPassOverWhatIsNoNumber) {
  const LinearReport good{.signal = 1, .loss_nearest = 0.1, .loss = 0.05};
  const LinearReport better{.signal = 100, .loss_nearest = 0.1, .loss = 0.0125};
  const LinearReport broken{.signal = 1, .loss_nearest = 0.1, .loss = std::nan("")};
  const LinearReport exact{.signal = 1, .loss_nearest = 0, .loss = 0};
  const std::vector<const LinearReport*> linears{&good, &better, &broken, &exact};
  EXPECT_NEAR(*mean_share(linears, &LinearReport::loss), 0.25, 1e-12);  // sqrt(0.5 * 0.125)
  EXPECT_NEAR(*mean_db(linears, &LinearReport::loss_nearest), (10.0 + 30.0 + 10.0) / 3, 1e-12);
  const std::vector<const LinearReport*> none{&broken, &exact};
  EXPECT_FALSE(mean_share(none, &LinearReport::loss));
  EXPECT_FALSE(mean_db(none, &LinearReport::loss));
}

TEST(ReportFigures, RatiosOfExtremesDoNotOverflow) {
  EXPECT_NEAR(*signal_to_noise_db(1e300, 1e-300), 6000, 1e-9);
  EXPECT_FALSE(signal_to_noise_db(INFINITY, 1));
  EXPECT_FALSE(signal_to_noise_db(1, -1));
}

}  // namespace
}  // namespace salient
