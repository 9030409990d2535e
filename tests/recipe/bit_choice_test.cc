#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <limits>
#include <map>
#include <set>

#include "base/file.h"
#include "model/weights.h"
#include "quant/config_block.h"
#include "recipe/report_json.h"
#include "salient/oneshot.h"
#include "support/compare_checkpoints.h"
#include "support/error_matcher.h"
#include "support/temporary_directory.h"
#include "support/tiny_model.h"

namespace salient {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;

class BitChoice : public ::testing::Test {
 protected:
  BitChoice() { write_model({}); }

  void write_model(const TinyModel& model) {
    fs::remove_all(path("dense"));
    model.write(path("dense"));
    options_.model = path("dense");
    options_.output = path("out");
    options_.recipe.awq.emplace().n_grid = 4;
    options_.recipe.quantization.group_size = 32;
    options_.calibration.sequences = random_windows(4, 40, 96);
    options_.target_bits = 4.5;
  }
  std::string path(const std::string& name) const { return (scratch_.path() / name).string(); }

  /// Bits of codes, scales and zeros over the number of weights, as the files hold them.
  double stored_mean() const {
    const ModelWeights weights(path("out"));
    double bits = 0;
    double elements = 0;
    for (int64_t layer = 0; layer < weights.spec().layers; ++layer) {
      const LayerWeights own = weights.layer(layer);
      for (const auto& slot : weights.spec().linears(layer)) {
        if (!own[slot.id].quantized) continue;
        const QuantizedWeight& weight = *own[slot.id].quantized;
        const auto count = static_cast<double>(weight.out_features * weight.in_features);
        const auto grids = static_cast<double>(weight.scales.element_count());
        bits += count * weight.scheme.num_bits + grids * 16;
        if (!weight.scheme.symmetric) bits += grids * weight.scheme.num_bits;
        elements += count;
      }
    }
    return bits / elements;
  }

  TemporaryDirectory scratch_;
  OneshotOptions options_;
};

TEST_F(BitChoice, KeepsTheTargetInTheFilesThatAreWritten) {
  double last = 1e9;
  options_.overwrite = true;
  for (const double target : {7.5, 5.0, 4.5, 3.25}) {
    options_.target_bits = target;
    const OneshotReport report = oneshot(options_);
    ASSERT_TRUE(report.bits.has_value());
    EXPECT_EQ(report.bits->target_bits, target);
    EXPECT_LE(report.bits->mean_bits, target);
    EXPECT_GT(report.bits->mean_bits, target - 0.5);
    EXPECT_NEAR(stored_mean(), report.bits->mean_bits, 1e-9);
    EXPECT_LT(report.bits->mean_bits, last);
    last = report.bits->mean_bits;
    std::set<int> widths;
    for (const MeasuredWidths& unit : report.bits->units) widths.insert(unit.num_bits);
    EXPECT_GT(widths.size(), 1u) << target;
  }
}

/// vLLM runs q, k and v as one matrix, gate and up as another.
TEST_F(BitChoice, FusedLinearsShareAWidth) {
  const OneshotReport report = oneshot(options_);
  EXPECT_THAT(report.warnings, ::testing::Not(Contains(HasSubstr("runs them as one matrix"))));
  ASSERT_EQ(report.bits->units.size(), 2u * 4);
  const auto names = [&](size_t unit) { return report.bits->units[unit].linears; };
  const std::string attention = "model.layers.0.self_attn.";
  EXPECT_THAT(names(0),
              ::testing::ElementsAre(attention + "q_proj", attention + "k_proj", attention + "v_proj"));
  EXPECT_THAT(names(1), ::testing::ElementsAre(attention + "o_proj"));
  EXPECT_THAT(names(2), ::testing::ElementsAre("model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj"));
  EXPECT_EQ(report.bits->units[0].elements, 64 * (64 + 32 + 32));
  const ModelWeights weights(path("out"));
  const LayerWeights layer = weights.layer(0);
  for (const LinearRole role : {LinearRole::q, LinearRole::k, LinearRole::v}) {
    EXPECT_EQ(layer[role].quantized->scheme.num_bits, report.bits->units[0].num_bits);
    EXPECT_EQ(layer[role].quantized->scheme.group_size, 32);
    EXPECT_FALSE(layer[role].quantized->scheme.symmetric);
  }
}

TEST_F(BitChoice, ThePlanNamesWhatTheRunThenDoes) {
  const OneshotPlan plan = plan_oneshot(options_);
  const OneshotReport report = oneshot(options_);
  ASSERT_TRUE(plan.bits && report.bits);
  EXPECT_EQ(to_json(plan, options_)["bits"], to_json(report)["bits"]);
  EXPECT_EQ(plan.bytes_after, Checkpoint(path("out")).byte_size());
  std::map<std::string, int> planned;
  for (const PlannedLayer& layer : plan.layers) {
    for (const PlannedLinear& linear : layer.linears) planned[linear.name] = linear.scheme.num_bits;
  }
  for (const MeasuredWidths& unit : report.bits->units) {
    for (const std::string& name : unit.linears) EXPECT_EQ(planned.at(name), unit.num_bits) << name;
    for (size_t i = 1; i < unit.errors.size(); ++i) EXPECT_LT(unit.errors[i], unit.errors[i - 1]);
  }
  const Json units = to_json(report)["bits"]["units"];
  EXPECT_EQ(units[0]["errors"].size(), 7u);
  EXPECT_EQ(units[0]["errors"]["2"], report.bits->units[0].errors[0]);
}

TEST_F(BitChoice, TheRecordGivesTheSameBytesWithoutMeasuringAgain) {
  oneshot(options_);
  const std::string record = read_text_file(path("out") + "/recipe.yaml");
  EXPECT_THAT(record, AllOf(HasSubstr("# Its numbers of bits were chosen for target_bits 4.5."),
                            ::testing::Not(HasSubstr("\n  target_bits"))));
  OneshotOptions again;
  again.model = options_.model;
  again.output = path("again");
  read_recipe_file(path("out") + "/recipe.yaml", again);
  EXPECT_FALSE(again.target_bits.has_value());
  again.calibration.sequences = options_.calibration.sequences;
  bool measured = false;
  again.on_measured = [&](int64_t, int64_t) { measured = true; };
  oneshot(again);
  EXPECT_FALSE(measured);
  expect_same_checkpoints(path("out"), path("again"));
}

TEST_F(BitChoice, UnderACapTheRecordOfARunWithoutOneIsTheWay) {
  OneshotOptions capped = options_;
  capped.max_memory = uint64_t{1} << 34;
  EXPECT_THAT([&] { plan_oneshot(capped); },
              throws_error(ErrorKind::invalid_argument,
                           AllOf(HasSubstr("target_bits beside max_memory: the errors that it chooses by"),
                                 HasSubstr("run the recipe.yaml of that run"))));
  oneshot(options_);
  OneshotOptions again = capped;
  again.target_bits.reset();
  read_recipe_file(path("out") + "/recipe.yaml", again);
  EXPECT_EQ(plan_oneshot(again).memory.cap, capped.max_memory);
}

TEST_F(BitChoice, ARecipeAsksForItAndEveryLayerIsMeasured) {
  options_.target_bits.reset();
  parse_recipe(R"(
AWQModifier: {n_grid: 4}
QuantizationModifier: {scheme: W3A16, config_groups: null, ignore: [lm_head]}
salient: {target_bits: 4.25, max_seq_length: 40}
)",
               "recipe.yaml", options_);
  EXPECT_EQ(options_.target_bits, 4.25);
  options_.recipe.quantization.group_size = 32;
  std::vector<int64_t> done;
  options_.on_measured = [&](int64_t layers_done, int64_t layers) {
    EXPECT_EQ(layers, 2);
    done.push_back(layers_done);
  };
  const OneshotReport report = oneshot(options_);
  EXPECT_THAT(done, ::testing::ElementsAre(1, 2));
  EXPECT_LE(stored_mean(), 4.25);
  EXPECT_TRUE(ModelWeights(path("out")).layer(1)[LinearRole::o].quantized->scheme.symmetric);
  EXPECT_EQ(report.bits->target_bits, 4.25);
}

/// Groups, observers and dense linears of the recipe stay; only their numbers of bits change.
TEST_F(BitChoice, GroupsOfTheRecipeKeepWhatTheySay) {
  QuantizationModifier& quantization = options_.recipe.quantization;
  quantization = {.config_groups = {{.name = "rest", .weights = {.num_bits = 4, .group_size = 32}},
                                    {.name = "downs",
                                     .targets = {"re:.*down_proj$"},
                                     .weights = {.num_bits = 8, .symmetric = false, .group_size = 64}}},
                  .ignore = {"lm_head", "re:.*layers.0.self_attn.o_proj$"}};
  options_.target_bits = 4;
  const OneshotReport report = oneshot(options_);
  EXPECT_LE(stored_mean(), 4);
  const ModelWeights weights(path("out"));
  EXPECT_FALSE(weights.layer(0)[LinearRole::o].quantized.has_value());
  EXPECT_EQ(report.bits->units.size(), 7u);
  for (int64_t layer = 0; layer < 2; ++layer) {
    const LayerWeights own = weights.layer(layer);
    EXPECT_EQ(own[LinearRole::down].quantized->scheme.group_size, 64);
    EXPECT_FALSE(own[LinearRole::down].quantized->scheme.symmetric);
    EXPECT_EQ(own[LinearRole::up].quantized->scheme.group_size, 32);
    EXPECT_TRUE(own[LinearRole::up].quantized->scheme.symmetric);
  }
}

TEST_F(BitChoice, TheHeadKeepsWhatItsGroupSays) {
  options_.recipe.quantization = {
      .config_groups = {{.name = "all", .weights = {.num_bits = 6, .group_size = 32}}}, .ignore = {}};
  options_.target_bits = 3.5;
  oneshot(options_);
  const ModelWeights weights(path("out"));
  ASSERT_TRUE(weights.head().quantized.has_value());
  EXPECT_EQ(weights.head().quantized->scheme.num_bits, 6);
  EXPECT_LE(stored_mean(), 3.5);
}

TEST_F(BitChoice, ExpertsOfALayerShareAWidthAndATarget) {
  write_model({.architecture = "Qwen3MoeForCausalLM", .extra = expert_keys()});
  const OneshotReport report = oneshot(options_);
  EXPECT_LE(stored_mean(), 4.5);
  const auto config = ModelWeights(path("out")).quantization();
  std::vector<std::string> targets;
  for (const SchemeGroup& group : config->groups)
    targets.insert(targets.end(), group.targets.begin(), group.targets.end());
  EXPECT_THAT(targets, Contains("re:model\\.layers\\.1\\.mlp\\.experts\\.\\d+\\.down_proj$"));
  EXPECT_THAT(targets, ::testing::Not(Contains(HasSubstr("experts.2."))));
  const LayerWeights layer = ModelWeights(path("out")).layer(1);
  std::set<int> widths;
  for (int64_t expert = 0; expert < 4; ++expert) {
    for (const LinearRole role : {LinearRole::expert_gate, LinearRole::expert_up, LinearRole::expert_down}) {
      widths.insert(layer[LinearId(role, expert)].quantized->scheme.num_bits);
    }
  }
  EXPECT_EQ(widths.size(), 1u);
}

/// Matrices that hold several linears have one width, whatever else they are run with.
TEST_F(BitChoice, EveryFamilyKeepsTheTarget) {
  options_.overwrite = true;
  for (const char* architecture : {"Phi3ForCausalLM", "GPT2LMHeadModel", "Qwen3NextForCausalLM",
                                   "DeepseekV2ForCausalLM", "Qwen2_5_VLForConditionalGeneration"}) {
    write_model({.architecture = architecture, .extra = expert_keys()});
    const OneshotReport report = oneshot(options_);
    EXPECT_LE(report.bits->mean_bits, 4.5) << architecture;
    EXPECT_NEAR(stored_mean(), report.bits->mean_bits, 1e-9) << architecture;
  }
}

TEST_F(BitChoice, TheSameForAnyOrderOfRuns) {
  EXPECT_EQ(to_json(plan_oneshot(options_), options_)["bits"],
            to_json(plan_oneshot(options_), options_)["bits"]);
}

TEST_F(BitChoice, WhatCannotBeReachedNamesBothEnds) {
  const auto refused = [&](double target) {
    options_.target_bits = target;
    for (const auto& call :
         {+[](const OneshotOptions& o) { oneshot(o); }, +[](const OneshotOptions& o) { check_oneshot(o); }}) {
      EXPECT_THAT(
          [&] { call(options_); },
          throws_error(ErrorKind::invalid_argument, AllOf(HasSubstr(fmt::format("target_bits is {}", target)),
                                                          HasSubstr("take 2.5625 to 8.7500 bits"))));
    }
    EXPECT_FALSE(fs::exists(path("out")));
  };
  refused(2.5);
  refused(8.8);
  refused(-1);
  refused(std::numeric_limits<double>::quiet_NaN());
  for (const double end : {2.5625, 8.75}) {
    options_.target_bits = end;
    EXPECT_EQ(plan_oneshot(options_).bits->mean_bits, end);
  }
}

TEST_F(BitChoice, NeedsDataAndAFormatWithManyWidths) {
  const auto error = [&](const OneshotOptions& options, ErrorKind kind, const std::string& message) {
    EXPECT_THAT([&] { oneshot(options); }, throws_error(kind, HasSubstr(message)));
  };
  OneshotOptions nearest = options_;
  nearest.recipe.awq.reset();
  error(nearest, ErrorKind::invalid_argument, "target_bits chooses numbers of bits by errors measured on");
  OneshotOptions without_data = options_;
  without_data.calibration.sequences.clear();
  error(without_data, ErrorKind::invalid_argument, "needs calibration text");
  OneshotOptions gemm = options_;
  gemm.format = Format::autoawq_gemm;
  error(gemm, ErrorKind::invalid_argument, "autoawq-gemm holds 4-bit codes only");
  OneshotOptions scaled = options_;
  scaled.result = OneshotResult::scaled;
  error(scaled, ErrorKind::invalid_argument, "target_bits is for integers");
}

TEST_F(BitChoice, IsStoppedWhileItMeasures) {
  std::atomic<bool> cancelled = false;
  options_.cancelled = &cancelled;
  options_.on_measured = [&](int64_t, int64_t) { cancelled = true; };
  EXPECT_THAT([&] { oneshot(options_); }, throws_error(ErrorKind::cancelled, HasSubstr("")));
  EXPECT_FALSE(fs::exists(path("out")));
}

}  // namespace
}  // namespace salient
