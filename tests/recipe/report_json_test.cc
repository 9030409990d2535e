#include "recipe/report_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "evaluate/report_json.h"
#include "recipe/inspection.h"
#include "recipe/report_reader.h"
#include "support/error_matcher.h"
#include "support/example_report.h"
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
  report.layers[0].linears.resize(1);
  report.layers[0].linears[0].largest_channels.resize(1);
  const Json json = to_json(report);
  EXPECT_THAT(keys(json),
              ::testing::ElementsAre("result", "model", "method", "quantized_linears", "calibration_tokens",
                                     "masked_tokens", "gram_block", "bytes_before", "bytes_after", "seconds",
                                     "peak_memory", "bits", "resumed_layers", "warnings", "layers"));
  const Json& layer = json["layers"][0];
  EXPECT_THAT(keys(layer),
              ::testing::ElementsAre("layer", "mappings", "linears", "clip_loss_before", "clip_loss_after",
                                     "equivalence_error", "pooled_experts", "seconds"));
  EXPECT_THAT(keys(layer["mappings"][0]),
              ::testing::ElementsAre("mapping", "loss_before", "loss_after", "ratio", "duo", "left_alone",
                                     "failure", "scale_quantiles"));
  EXPECT_TRUE(layer["mappings"][0]["failure"].is_null());
  const Json& linear = layer["linears"][0];
  EXPECT_THAT(keys(linear),
              ::testing::ElementsAre("name", "num_bits", "symmetric", "group_size", "signal", "loss_nearest",
                                     "loss_scaled", "loss_clipped", "loss", "snr_db_nearest", "snr_db",
                                     "dead_channels", "largest_channels"));
  EXPECT_THAT(keys(linear["largest_channels"][0]),
              ::testing::ElementsAre("channel", "mean_absolute", "times_median"));
}

TEST(ReportJson, RatiosAreInDecibelsWhereThereAreAny) {
  OneshotReport report;
  report.layers.resize(1);
  report.layers[0].linears.resize(4);
  auto& linears = report.layers[0].linears;
  linears[0] = {.signal = 2, .loss_nearest = 0.2, .loss = 0.002};
  linears[1] = {.signal = 2, .loss_nearest = 0.2, .loss = 0};
  linears[2] = {.signal = 0, .loss_nearest = 0.2, .loss = 0.1};
  linears[3] = {.signal = 2, .loss_nearest = std::nan(""), .loss = INFINITY};
  const Json written = to_json(report)["layers"][0]["linears"];
  EXPECT_NEAR(written[0]["snr_db_nearest"].get<double>(), 10, 1e-9);
  EXPECT_NEAR(written[0]["snr_db"].get<double>(), 30, 1e-9);
  EXPECT_TRUE(written[1]["snr_db"].is_null());
  EXPECT_TRUE(written[2]["snr_db"].is_null());
  const Json back = parse_json(written.dump(), "linears");
  for (const char* key : {"loss_nearest", "loss", "snr_db_nearest", "snr_db"})
    EXPECT_TRUE(back[3][key].is_null()) << key;
}

TEST(ReportJson, IsReadBackAsItWasWritten) {
  OneshotReport report = ExampleReport(3, 2).get();
  report.warnings = {"careful"};
  report.layers[1].mappings[0].failure = "channel 3 is NaN";
  report.layers[2].pooled_experts = {0, 1};
  report.bits =
      ChosenBits{.target_bits = 4.5,
                 .mean_bits = 4.25,
                 .units = {{.linears = {"a", "b"}, .elements = 12, .num_bits = 3, .errors = {7, 6, 5}}}};
  const Json json = parse_json(to_json(report).dump(), "report.json");
  EXPECT_EQ(to_json(read_report({json, "report.json"})), json);
}

TEST(ReportJson, WhatIsNoReportIsRefusedByPath) {
  const auto read = [](std::string_view text) {
    const Json json = parse_json(text, "r.json");
    return read_report({json, "r.json"});
  };
  EXPECT_TRUE(std::isnan(read(R"({"layers": [{"linears": [{"loss": null}]}]})").layers[0].linears[0].loss));
  EXPECT_THAT([&] { read(R"([1])"); }, throws_error(ErrorKind::bad_format, ::testing::HasSubstr("r.json")));
  EXPECT_THAT([&] { read(R"({"layers": {}})"); },
              throws_error(ErrorKind::bad_format, ::testing::HasSubstr("layers")));
  EXPECT_THAT([&] { read(R"({"bytes_after": -1})"); },
              throws_error(ErrorKind::bad_format, ::testing::HasSubstr("bytes_after")));
  EXPECT_THAT([&] { read(R"({"layers": [{"linears": [{"loss": "small"}]}]})"); },
              throws_error(ErrorKind::bad_format, ::testing::HasSubstr("loss")));
  EXPECT_THAT(
      [&] { read(R"({"layers": [{"mappings": [{"scale_quantiles": [1, 2]}]}]})"); },
      throws_error(ErrorKind::bad_format, ::testing::HasSubstr("scale_quantiles has 2 numbers, not 7")));
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
