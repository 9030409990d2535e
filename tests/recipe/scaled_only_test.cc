#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "runtime/decoder.h"
#include "salient/oneshot.h"
#include "support/compare_checkpoints.h"
#include "support/golden_model.h"
#include "support/tiny_model.h"

namespace salient {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class ScaledOnly : public ::testing::Test {
 protected:
  void write_model(const TinyModel& model) {
    fs::remove_all(path("dense"));
    model.write(path("dense"));
    options_.model = path("dense");
    options_.output = path("scaled");
    options_.overwrite = true;
    options_.result = OneshotResult::scaled;
    options_.recipe.awq.emplace().n_grid = 6;
    options_.recipe.quantization.group_size = 32;
    options_.calibration.sequences = random_windows(6, 50, 96);
  }
  std::string path(const std::string& name) const { return (scratch_.path() / name).string(); }

  Tensor logits_of(const std::string& name) const {
    const Decoder decoder = Decoder::load(path(name), *backend_);
    KvCache cache = decoder.make_cache();
    return decoder.forward(random_windows(1, 24, 96).front(), cache, {LogitRows::all});
  }

  TemporaryDirectory scratch_;
  std::unique_ptr<Backend> backend_ = make_cpu_backend({.precision = MatmulPrecision::f32});
  OneshotOptions options_;
};

class ScaledFamilies : public ScaledOnly, public ::testing::WithParamInterface<const char*> {};

/// Tensors keep their names, shapes and types, also fused, transposed and per expert.
TEST_P(ScaledFamilies, ComputeWhatTheyDidBefore) {
  write_model({.architecture = GetParam(), .dtype = DType::f32, .extra = expert_keys()});
  options_.recipe.awq->clip = ClipSearch::off;
  const OneshotPlan plan = plan_oneshot(options_);
  const OneshotReport report = oneshot(options_);
  EXPECT_LT(relative_error(logits_of("scaled").values<float>(), logits_of("dense").values<float>()), 1e-3);
  const Checkpoint before(path("dense"));
  const Checkpoint after(path("scaled"));
  EXPECT_EQ(before.config(), after.config());
  EXPECT_EQ(plan.bytes_after, after.byte_size());
  EXPECT_EQ(report.bytes_after, before.byte_size());
  EXPECT_EQ(plan.quantized_linears + report.quantized_linears, 0);
  ASSERT_EQ(before.tensor_names(), after.tensor_names());
  int changed = 0;
  for (const auto& name : before.tensor_names()) {
    EXPECT_EQ(before.tensor(name).shape(), after.tensor(name).shape()) << name;
    EXPECT_EQ(before.tensor(name).dtype(), after.tensor(name).dtype()) << name;
    if (!same_bytes(before.tensor(name), after.tensor(name))) ++changed;
  }
  EXPECT_GT(changed, 0);
}

INSTANTIATE_TEST_SUITE_P(Architectures, ScaledFamilies,
                         ::testing::Values("LlamaForCausalLM", "Phi3ForCausalLM", "OPTForCausalLM",
                                           "BloomForCausalLM", "GPT2LMHeadModel", "Gemma2ForCausalLM",
                                           "CohereForCausalLM", "Qwen2_5_VLForConditionalGeneration",
                                           "MixtralForCausalLM", "Qwen2MoeForCausalLM",
                                           "DeepseekV2ForCausalLM", "Qwen3NextForCausalLM"));

/// Experts that a file keeps in one tensor stay there.
TEST_F(ScaledOnly, AStackOfExpertsStaysOne) {
  const GoldenModel golden("qwen3_5_moe");
  write_model({});
  options_.model = golden.directory().string();
  options_.recipe.quantization.group_size = -1;
  options_.recipe.awq->clip = ClipSearch::off;
  oneshot(options_);
  const Checkpoint before(options_.model);
  const Checkpoint after(path("scaled"));
  EXPECT_EQ(before.tensor_names(), after.tensor_names());
  const std::vector<int32_t> ids = golden.input_ids();
  const Decoder decoder = Decoder::load(path("scaled"), *backend_);
  KvCache cache = decoder.make_cache();
  const Tensor logits = decoder.forward(ids, cache, {LogitRows::all});
  EXPECT_LT(relative_error(logits.values<float>(), golden.logits().values<float>()), 1e-3);
}

/// Rounding the directory to nearest is what one run with nearest rounding writes, up to the rounding of the
/// scaled weights to their own type: in f32 that is nothing but the last bit.
TEST_F(ScaledOnly, RoundedLaterGivesWhatOneRunGives) {
  write_model({.dtype = DType::f32});
  oneshot(options_);
  options_.result = OneshotResult::quantized;
  options_.recipe.awq->rounding = Rounding::nearest;
  options_.output = path("at-once");
  oneshot(options_);
  options_.recipe.awq.reset();
  options_.model = path("scaled");
  options_.output = path("later");
  oneshot(options_);
  expect_same_checkpoints(path("later"), path("at-once"));
}

TEST_F(ScaledOnly, WeightsStayWithinTheirClips) {
  write_model({});
  options_.recipe.awq->mappings.emplace();  // nothing is smoothed
  options_.calibration.propagation = Propagation::original;
  const OneshotReport report = oneshot(options_);
  EXPECT_LT(report.layers[1].clip_loss_after, report.layers[1].clip_loss_before);
  const ModelWeights before(path("dense"));
  const ModelWeights after(path("scaled"));
  EXPECT_FALSE(after.quantization().has_value());
  int64_t clamped = 0;
  for (const auto& slot : before.spec().linears(1)) {
    const Tensor a = before.layer(1)[slot.id].dense.to(DType::f32);
    const Tensor b = after.layer(1)[slot.id].dense.to(DType::f32);
    const auto old_values = a.values<float>();
    const auto new_values = b.values<float>();
    for (size_t group = 0; group < old_values.size(); group += 32) {
      float bound = 0;
      for (const float value : new_values.subspan(group, 32)) bound = std::max(bound, std::fabs(value));
      for (size_t i = group; i < group + 32; ++i) {
        EXPECT_EQ(new_values[i], std::clamp(old_values[i], -bound, bound)) << slot.name;
        if (new_values[i] != old_values[i]) ++clamped;
      }
    }
  }
  EXPECT_GT(clamped, 0);
}

/// Whoever rounds applies the observer; a head is rounded later, too.
TEST_F(ScaledOnly, WhatIsNoPartOfAwqIsLeftForLater) {
  write_model({});
  options_.recipe_format = Format::autoawq_gemm;  // AutoAWQ's export_compatible beside its quant_config
  oneshot(options_);
  EXPECT_EQ(Checkpoint(path("scaled")).tensor("model.norm.weight").dtype(), DType::bf16);
  options_.recipe_format = Format::pack_quantized;
  options_.recipe.awq->mappings.emplace();
  options_.recipe.quantization = {
      .config_groups = {
          {.name = "g", .weights = {.num_bits = 4, .group_size = 32, .observer = Observer::mse}}}};
  options_.recipe.quantization.ignore.clear();
  EXPECT_FALSE(plan_oneshot(options_).head.has_value());
  oneshot(options_);
  expect_same_checkpoints(path("scaled"), path("dense"));
}

TEST_F(ScaledOnly, TheRecordGivesTheSameBytes) {
  write_model({});
  options_.calibration.propagation = Propagation::quantized;
  oneshot(options_);
  const std::string record = read_text_file(path("scaled") + "/recipe.yaml");
  EXPECT_THAT(record, HasSubstr("result: scaled"));
  OneshotOptions again;
  parse_recipe(record, "recipe.yaml", again);
  EXPECT_EQ(again.result, OneshotResult::scaled);
  again.model = path("dense");
  again.output = path("again");
  again.calibration.sequences = options_.calibration.sequences;
  oneshot(again);
  expect_same_checkpoints(path("scaled"), path("again"));
  EXPECT_EQ(record, read_text_file(path("again") + "/recipe.yaml"));
}

/// What is wrong with the options.
std::string refusal(const OneshotOptions& options) {
  try {
    plan_oneshot(options);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::invalid_argument);
    return error.what();
  }
  return "nothing was thrown";
}

TEST_F(ScaledOnly, NeedsAwq) {
  write_model({});
  options_.recipe.awq.reset();
  EXPECT_THAT(refusal(options_), HasSubstr("scaled weights come from AWQ"));
}

/// Whoever names it: the recipe, a flag or a program.
TEST_F(ScaledOnly, WhatOnlyIntegersHaveIsRefused) {
  write_model({});
  const auto with_recipe = [&](const std::string& group, const std::string& extras) {
    OneshotOptions options = options_;
    parse_recipe(fmt::format("AWQModifier: {{}}\n"
                             "QuantizationModifier:\n"
                             "  config_groups:\n"
                             "    g: {{targets: [Linear], weights: {{num_bits: 4, group_size: 32{}}}}}\n"
                             "salient: {{{}}}",
                             group, extras),
                 "recipe.yaml", options);
    return options;
  };
  plan_oneshot(with_recipe("", ""));
  plan_oneshot(with_recipe("", "result: scaled, apply_clip: false"));
  for (const char* result : {"", ", result: scaled"}) {
    EXPECT_THAT(refusal(with_recipe("", fmt::format("format: autoawq-gemm{}", result))),
                HasSubstr("the format autoawq-gemm is for integers, but the result is scaled"));
    EXPECT_THAT(refusal(with_recipe("", fmt::format("rounding: nearest{}", result))),
                HasSubstr("the rounding nearest is for integers"));
    EXPECT_THAT(refusal(with_recipe("", fmt::format("rounding: compensated{}", result))),
                HasSubstr("the rounding compensated is for integers"));
  }
  EXPECT_THAT(refusal(with_recipe(", actorder: weight", "")), HasSubstr("actorder of g is for integers"));
  options_.format = Format::pack_quantized;
  EXPECT_THAT(refusal(with_recipe("", "")), HasSubstr("the format pack-quantized is for integers"));
  options_.result = OneshotResult::quantized;
  EXPECT_THAT(refusal(with_recipe("", "result: scaled")),
              HasSubstr("the format pack-quantized is for integers"));
  plan_oneshot(with_recipe("", "format: autoawq-gemm, rounding: nearest"));
}

}  // namespace
}  // namespace salient
