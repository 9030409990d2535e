#include "recipe/report_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "evaluate/report_json.h"
#include "recipe/inspection.h"
#include "support/temporary_directory.h"
#include "support/tiny_model.h"

namespace salient {
namespace {

std::vector<std::string> keys(const Json& json) {
  std::vector<std::string> names;
  for (const auto& [key, value] : json.items()) names.push_back(key);
  return names;
}

/// Other programs read these: a name that changes here breaks them.
TEST(ReportJson, NamesStay) {
  OneshotReport report;
  report.layers.resize(1);
  report.layers[0].mappings.resize(1);
  const Json json = to_json(report);
  EXPECT_THAT(keys(json), ::testing::ElementsAre("result", "quantized_linears", "calibration_tokens",
                                                 "bytes_before", "bytes_after", "seconds", "peak_memory",
                                                 "resumed_layers", "warnings", "layers"));
  EXPECT_THAT(keys(json["layers"][0]),
              ::testing::ElementsAre("layer", "mappings", "clip_loss_before", "clip_loss_after",
                                     "equivalence_error", "pooled_experts", "seconds"));
  EXPECT_THAT(keys(json["layers"][0]["mappings"][0]),
              ::testing::ElementsAre("mapping", "loss_before", "loss_after", "ratio", "duo", "left_alone"));
}

TEST(ReportJson, TellsHowFarModelsAre) {
  Divergence divergence;
  divergence.model = {.perplexity = 5, .mean_loss = 1.6, .predictions = 70};
  divergence.reference.perplexity = 4;
  divergence.mean_kl = 0.25;
  divergence.same_top_share = 0.75;
  const Json json = to_json(divergence);
  EXPECT_THAT(keys(json), ::testing::ElementsAre("perplexity", "mean_loss", "predictions", "reference",
                                                 "mean_kl", "same_top"));
  EXPECT_EQ(json["reference"]["perplexity"], 4);
  EXPECT_EQ(json["same_top"], 0.75);
}

TEST(ReportJson, TellsWhatAModelHolds) {
  const TemporaryDirectory scratch;
  const std::string directory = (scratch.path() / "model").string();
  TinyModel{}.write(directory);
  const ModelWeights weights(directory);
  const Json json = inspection_json(weights);
  EXPECT_EQ(json["architecture"], "LlamaForCausalLM");
  EXPECT_EQ(json["parameters"], parameter_count(weights.spec()));
  EXPECT_EQ(json["dtypes"]["BF16"]["elements"], parameter_count(weights.spec()));
  EXPECT_TRUE(json["quantization"].is_null());
  const Json mappings = mappings_json(weights.spec());
  ASSERT_EQ(mappings.size(), 2u);
  EXPECT_EQ(mappings[1][0]["smooth_layer"], "model.layers.1.input_layernorm");
  EXPECT_EQ(tensors_json(weights.checkpoint()).size(), weights.checkpoint().tensor_names().size());
}

}  // namespace
}  // namespace salient
