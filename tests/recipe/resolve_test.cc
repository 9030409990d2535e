#include "recipe/resolve.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include "base/error.h"
#include "recipe/effort.h"
#include "support/error_matcher.h"

namespace salient {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

DecoderSpec spec_with(int64_t hidden_size, int64_t intermediate_size) {
  const Json config = {{"architectures", {"LlamaForCausalLM"}},
                       {"hidden_size", hidden_size},
                       {"intermediate_size", intermediate_size},
                       {"num_hidden_layers", 3},
                       {"num_attention_heads", 4},
                       {"num_key_value_heads", 2},
                       {"vocab_size", 100},
                       {"max_position_embeddings", 64},
                       {"rms_norm_eps", 1e-5}};
  return make_decoder_spec(JsonView(config, "config.json"));
}

ResolvedRecipe resolve(const Recipe& recipe, const DecoderSpec& spec) {
  return resolve_recipe({.recipe = recipe}, spec);
}

std::string error_of(const Recipe& recipe, const DecoderSpec& spec,
                     ErrorKind expected = ErrorKind::invalid_argument) {
  try {
    resolve(recipe, spec);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), expected) << error.what();
    return error.what();
  }
  return "nothing was thrown";
}

TEST(ResolveRecipe, HeadStaysDenseAndEverythingElseIsQuantized) {
  const auto resolved = resolve({}, spec_with(256, 512));
  EXPECT_EQ(resolved.quantized_linears, 21);
  ASSERT_EQ(resolved.dense.size(), 1u);
  EXPECT_EQ(resolved.dense[0].name, "lm_head");
}

TEST(ResolveRecipe, IgnoreTakesFullNamesAndPatterns) {
  const Recipe recipe{
      .quantization = {.ignore = {"lm_head", "model.layers.1.mlp.down_proj", "re:.*self_attn.v_proj$"}}};
  const auto resolved = resolve(recipe, spec_with(256, 512));
  EXPECT_EQ(resolved.quantized_linears, 21 - 1 - 3);
  EXPECT_FALSE(resolved.linears[1].contains(LinearRole::down));
  EXPECT_TRUE(resolved.linears[0].contains(LinearRole::down));
  for (const auto& linears : resolved.linears) EXPECT_FALSE(linears.contains(LinearRole::v));
}

TEST(ResolveRecipe, PatternsAreAnchoredAtTheStartAsInPython) {
  const Recipe recipe{.quantization = {.ignore = {"re:self_attn"}}};
  EXPECT_THAT(error_of(recipe, spec_with(256, 512)), HasSubstr("ignore: \"re:self_attn\" matches no module"));
}

TEST(ResolveRecipe, AnUnmatchedOrBrokenIgnoreEntryIsRefused) {
  EXPECT_THAT(error_of({.quantization = {.ignore = {"gate"}}}, spec_with(256, 512)),
              AllOf(HasSubstr("\"gate\" matches no module"), HasSubstr("model.layers.0.self_attn.q_proj")));
  EXPECT_THAT(error_of({.quantization = {.ignore = {"re:("}}}, spec_with(256, 512)),
              HasSubstr("is not a regular expression"));
  EXPECT_THAT(error_of({.quantization = {.ignore = {"lm_head", "re:.*_proj"}}}, spec_with(256, 512)),
              HasSubstr("nothing is left"));
}

TEST(ResolveRecipe, GroupSizeThatDoesNotDivideNamesLayersAndSizesThatFit) {
  const auto message = error_of({.quantization = {.group_size = 128}}, spec_with(576, 1536));
  EXPECT_THAT(message,
              AllOf(HasSubstr("group size 128 does not divide the columns of 18 linears"),
                    HasSubstr("3 x q_proj [576 columns]"), HasSubstr("sizes that fit: 16, 32, 64, -1")));
  EXPECT_THAT(message, ::testing::Not(HasSubstr("down_proj")));
}

TEST(ResolveRecipe, ColumnsFewerThanTheGroupAreRefusedToo) {
  EXPECT_THAT(error_of({.quantization = {.group_size = 256}}, spec_with(128, 256)),
              HasSubstr("q_proj [128 columns]"));
}

TEST(ResolveRecipe, TheWholeRowAlwaysFits) {
  const Recipe recipe{.quantization = {.group_size = QuantizationScheme::kWholeRow}};
  EXPECT_EQ(resolve(recipe, spec_with(104, 172)).quantized_linears, 21);
}

TEST(ResolveRecipe, GemmRefusesRowsThatDoNotFillAWord) {
  const Recipe recipe{.quantization = {.group_size = QuantizationScheme::kWholeRow}};
  try {
    resolve_recipe({.recipe = recipe, .format = Format::autoawq_gemm}, spec_with(128, 172));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::unsupported);
    EXPECT_THAT(error.what(), AllOf(HasSubstr("model.layers.0.mlp.gate_proj"), HasSubstr("172")));
  }
}

TEST(ResolveRecipe, BadSchemesAndGrids) {
  EXPECT_THAT(error_of({.quantization = {.scheme = "W4A61"}}, spec_with(256, 512)), HasSubstr("W4A61"));
  EXPECT_THAT(error_of({.quantization = {.group_size = 100}}, spec_with(256, 512)), HasSubstr("100"));
  EXPECT_THAT(error_of({.awq = AwqModifier{.n_grid = 1}}, spec_with(256, 512)), HasSubstr("n_grid: 1"));
}

TEST(ResolveRecipe, TheMostSpecificTargetDecides) {
  Recipe recipe;
  const auto group = [](std::string name, std::vector<std::string> targets, int64_t size) {
    return ConfigGroup{.name = std::move(name),
                       .targets = std::move(targets),
                       .weights = {.num_bits = 4, .group_size = size}};
  };
  recipe.quantization.config_groups = {group("all", {"Linear"}, 128), group("downs", {"re:.*down_proj$"}, 64),
                                       group("one", {"model.layers.1.mlp.down_proj"}, 32)};
  const auto resolved = resolve(recipe, spec_with(256, 512));
  EXPECT_EQ(resolved.linears[0].at(LinearRole::down).scheme.group_size, 64);
  EXPECT_EQ(resolved.linears[1].at(LinearRole::down).scheme.group_size, 32);
  EXPECT_EQ(resolved.linears[1].at(LinearRole::up).scheme.group_size, 128);
  EXPECT_EQ(resolved.planned[1].back().group, "one");
  EXPECT_EQ(resolved.planned[1].back().target, "model.layers.1.mlp.down_proj");
  EXPECT_TRUE(resolved.warnings.empty());
}

TEST(ResolveRecipe, LinearsThatNoTargetMatchesStayDense) {
  const auto resolved = resolve({.quantization = {.targets = {"re:.*mlp\\..*_proj$"}}}, spec_with(256, 512));
  EXPECT_EQ(resolved.quantized_linears, 9);
  EXPECT_EQ(resolved.dense.front().name, "model.layers.0.self_attn.q_proj");
  EXPECT_EQ(resolved.dense.front().reason, "no target matches it");
}

TEST(ResolveRecipe, WhatVllmRunsAsOneMatrixShouldBeAlike) {
  const auto resolved =
      resolve({.quantization = {.ignore = {"lm_head", "re:.*v_proj$"}}}, spec_with(256, 512));
  ASSERT_EQ(resolved.warnings.size(), 1u);
  EXPECT_THAT(
      resolved.warnings[0],
      AllOf(HasSubstr("k_proj, q_proj, v_proj differ in 3 layers, the first being 0"), HasSubstr("vLLM")));
}

TEST(ResolveRecipe, AHeadThatIsNotIgnoredBecomesIntegers) {
  const auto resolved = resolve({.quantization = {.ignore = {}}}, spec_with(256, 512));
  EXPECT_EQ(resolved.quantized_linears, 22);
  ASSERT_TRUE(resolved.planned_head && resolved.head);
  EXPECT_EQ(resolved.planned_head->name, "lm_head");
  EXPECT_EQ(resolved.planned_head->target, "Linear");
  EXPECT_TRUE(resolved.dense.empty());
  const auto targeted =
      resolve({.quantization = {.targets = {"re:.*mlp.*"}, .ignore = {}}}, spec_with(256, 512));
  EXPECT_FALSE(targeted.head.has_value());
  EXPECT_EQ(targeted.dense.back().reason, "no target matches it");
  EXPECT_THAT(error_of({.quantization = {.group_size = 128, .ignore = {}}}, spec_with(64, 128)),
              HasSubstr("lm_head [64 columns]"));
}

TEST(ResolveRecipe, WhatCannotBecomeIntegersIsRefusedByName) {
  EXPECT_THAT(
      error_of({.quantization = {.targets = {"re:model"}}}, spec_with(256, 512), ErrorKind::unsupported),
      AllOf(HasSubstr("the target \"re:model\" includes model.embed_tokens"),
            HasSubstr("add \"model.embed_tokens\" to ignore")));
  const auto with_target = [](const std::string& target) {
    OneshotOptions options;
    options.format = Format::autoawq_gemm;
    options.recipe.quantization.targets = {"re:.*_proj$", target};
    options.recipe.quantization.ignore = {};
    return options;
  };
  EXPECT_THAT([&] { resolve_recipe(with_target("lm_head"), spec_with(256, 512)); },
              throws_error(ErrorKind::unsupported, HasSubstr("AutoAWQ's files keep the head dense")));
  const ResolvedRecipe by_class = resolve_recipe(with_target("Linear"), spec_with(256, 512));
  ASSERT_EQ(by_class.warnings.size(), 1u);
  EXPECT_THAT(by_class.warnings[0],
              HasSubstr("lm_head is not ignored, but AutoAWQ's files keep the head dense"));
  EXPECT_FALSE(by_class.head.has_value());
}

TEST(ResolveRecipe, IgnoreMayNameWhatIsBesideTheDecoder) {
  OneshotOptions options;
  options.recipe.quantization.ignore = {"lm_head", "re:vision_tower.*"};
  EXPECT_THAT([&] { resolve_recipe(options, spec_with(256, 512)); },
              throws_error(ErrorKind::invalid_argument,
                           AllOf(HasSubstr("re:vision_tower.*"), HasSubstr("leave it out"))));
  const std::vector<std::string> foreign{"vision_tower.layers.0.q_proj"};
  EXPECT_EQ(resolve_recipe(options, spec_with(256, 512), foreign).quantized_linears, 21);
}

TEST(ResolveRecipe, NothingIsSmoothedForLinearsThatStayDense) {
  const auto resolved = resolve({.quantization = {.targets = {"re:.*[qkv]_proj$"}}}, spec_with(256, 512));
  for (const auto& mappings : resolved.mappings) {
    ASSERT_EQ(mappings.size(), 1u);
    EXPECT_EQ(mappings[0].smooth, (std::variant<NormRole, LinearId>(NormRole::attention)));
  }
}

TEST(ResolveRecipe, TargetsAndGroupsThatAreOfNoUseAreRefused) {
  EXPECT_THAT(error_of({.quantization = {.targets = {"Linear", "re:.*fc1$"}}}, spec_with(256, 512)),
              HasSubstr("group_0: targets: \"re:.*fc1$\" matches no module of LlamaForCausalLM"));
  const ConfigGroup group{.name = "a", .weights = {.num_bits = 4, .group_size = 128}};
  ConfigGroup shadowed = group;
  shadowed.name = "b";
  shadowed.targets = {"re:.*q_proj$"};
  EXPECT_THAT(error_of({.quantization = {.config_groups = {group, shadowed}, .ignore = {"re:.*q_proj$"}}},
                       spec_with(256, 512)),
              HasSubstr("b: gets no linear: all that its targets match are ignored"));
  ConfigGroup late = shadowed;
  late.targets = {"re:.*v_proj$"};
  ConfigGroup early = group;
  early.targets = {"re:.*[qkv]_proj$"};
  EXPECT_THAT(
      error_of({.quantization = {.config_groups = {early, late}}}, spec_with(256, 512)),
      HasSubstr("b: gets no linear: model.layers.0.self_attn.v_proj goes to a (\"re:.*[qkv]_proj$\")"));
  late.targets.push_back("re:.*up_proj$");
  const auto partly = resolve({.quantization = {.config_groups = {early, late}}}, spec_with(256, 512));
  ASSERT_EQ(partly.warnings.size(), 2u);  // and that gate and up differ
  EXPECT_THAT(partly.warnings[0], HasSubstr("b: the target \"re:.*v_proj$\" chooses nothing"));
  EXPECT_THAT(error_of({.quantization = {.config_groups = {group, group}}}, spec_with(256, 512)),
              HasSubstr("\"a\" stands twice"));
}

TEST(ResolveRecipe, GemmHasOneScheme) {
  OneshotOptions options;
  options.format = Format::autoawq_gemm;
  const ConfigGroup group{.name = "a", .weights = {.num_bits = 4, .group_size = 128}};
  ConfigGroup other{.name = "b", .targets = {"re:.*q_proj$"}, .weights = {.num_bits = 4, .group_size = 64}};
  options.recipe.quantization.config_groups = {group, other};
  const auto resolve_options = [&] { resolve_recipe(options, spec_with(256, 512)); };
  EXPECT_THAT(resolve_options,
              throws_error(ErrorKind::invalid_argument, HasSubstr("b: autoawq-gemm has one scheme")));
  options.recipe.quantization.config_groups[1].weights.group_size = 128;
  EXPECT_NO_THROW(resolve_options());
}

TEST(ResolveRecipe, ActivationOrderNeedsCompensation) {
  Recipe recipe;
  recipe.quantization.config_groups = {
      {.name = "a", .weights = {.num_bits = 4, .group_size = 128, .actorder = ActivationOrder::weight}}};
  EXPECT_NO_THROW(resolve(recipe, spec_with(256, 512)));
  recipe.awq->rounding = Rounding::nearest;
  EXPECT_THAT(error_of(recipe, spec_with(256, 512)),
              HasSubstr("a: actorder is the order of compensated rounding"));
}

TEST(ResolveRecipe, CompensatedRoundingTakesTheStrongestColumnsFirstUnlessToldOtherwise) {
  Recipe recipe;
  recipe.quantization.config_groups = {{.name = "a", .weights = {.num_bits = 4, .group_size = 128}}};
  const auto order = [&] { return resolve(recipe, spec_with(256, 512)).linears[0].begin()->second.order; };
  recipe.awq->rounding = Rounding::compensated;
  EXPECT_EQ(order(), ActivationOrder::weight);
  recipe.awq->rounding = Rounding::matched;
  EXPECT_EQ(order(), ActivationOrder::weight);
  recipe.awq->rounding = Rounding::nearest;
  EXPECT_EQ(order(), ActivationOrder::none);
  recipe.awq->rounding = Rounding::compensated;
  recipe.quantization.config_groups[0].weights.actorder = ActivationOrder::none;
  EXPECT_EQ(order(), ActivationOrder::none);
}

TEST(Effort, DecidesWhatIsLeftOpen) {
  const auto with = [](Effort effort, OneshotOptions options = {}) {
    options.effort = effort;
    return settled(std::move(options));
  };
  EXPECT_EQ(with(Effort::fast).recipe.awq->rounding, Rounding::nearest);
  EXPECT_EQ(with(Effort::fast).recipe.awq->sweeps, 0);
  EXPECT_EQ(with(Effort::standard).recipe.awq->sweeps, 0);
  EXPECT_EQ(with(Effort::best).recipe.awq->sweeps, 2);
  EXPECT_EQ(with(Effort::fast).calibration.propagation, Propagation::original);
  EXPECT_EQ(with(Effort::standard).recipe.awq->rounding, Rounding::compensated);
  EXPECT_EQ(with(Effort::best).recipe.awq->rounding, Rounding::matched);
  EXPECT_EQ(with(Effort::best).calibration.propagation, Propagation::quantized);
  OneshotOptions said;
  said.recipe.awq->rounding = Rounding::compensated;
  said.calibration.propagation = Propagation::quantized;
  EXPECT_EQ(with(Effort::fast, said).recipe.awq->rounding, Rounding::compensated);
  EXPECT_EQ(with(Effort::fast, said).calibration.propagation, Propagation::quantized);
  said.recipe.awq->sweeps = 5;
  EXPECT_EQ(with(Effort::standard, said).recipe.awq->sweeps, 5);
  said.recipe.awq->sweeps.reset();
  said.recipe.awq->rounding = Rounding::nearest;
  EXPECT_EQ(with(Effort::best, said).recipe.awq->sweeps, 0);
  OneshotOptions scaled;
  scaled.result = OneshotResult::scaled;
  EXPECT_FALSE(with(Effort::best, scaled).recipe.awq->sweeps.has_value());
  EXPECT_FALSE(with(Effort::best, scaled).recipe.awq->rounding.has_value());
}

/// What an effort would decide must not be decided already, and there must be something to decide.
TEST(Effort, BesideARecipeDecidesAllOrIsRefused) {
  const auto message = [](std::string_view salient, Effort effort = Effort::best) -> std::string {
    OneshotOptions options;
    parse_recipe(fmt::format("AWQModifier: {{scheme: W4A16}}\nsalient: {}", salient), "r.yaml", options);
    try {
      take_effort("--effort", effort, options);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::invalid_argument);
      return error.what();
    }
    EXPECT_EQ(options.effort, effort);
    return "";
  };
  EXPECT_EQ(message("{objective: block_output, effort: fast}"), "");
  EXPECT_EQ(
      message("{rounding: nearest}"),
      "--effort best stands beside r.yaml, which names rounding itself; leave --effort out, or take that "
      "out of the recipe");
  EXPECT_EQ(message("{rounding: matched, propagate_error: true, sweeps: 1}"),
            "--effort best stands beside r.yaml, which names rounding and propagate_error and sweeps itself; "
            "leave --effort out, or take all of them out of the recipe");
  EXPECT_THAT(message("{propagate_error: true}"), HasSubstr("r.yaml, which names propagate_error itself"));
  EXPECT_EQ(message("{rounding: matched, propagate_error: true}", Effort::standard),
            "--effort default stands beside r.yaml, which names rounding and propagate_error itself; leave "
            "--effort out, or take both out of the recipe");
  EXPECT_THAT(message("{result: scaled}", Effort::standard),
              HasSubstr("--effort default is for integers, but the result is scaled"));
}

TEST(Effort, IsForRoundingWithAwq) {
  OneshotOptions options;
  options.result = OneshotResult::scaled;
  EXPECT_NO_THROW(check_effort(options));
  options.effort = Effort::fast;
  EXPECT_THAT([&] { check_effort(options); },
              throws_error(ErrorKind::invalid_argument,
                           HasSubstr("effort fast is for integers, but the result is scaled")));
  options.result = OneshotResult::quantized;
  EXPECT_NO_THROW(check_effort(options));
  options.recipe.awq.reset();
  EXPECT_THAT([&] { check_effort(options); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("effort fast is for AWQ")));
  EXPECT_THAT([&] { take_effort("effort", Effort::standard, options); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("effort default is for AWQ")));
}

TEST(ResolveRecipe, ScalesForDuoScalingComeInGroups) {
  Recipe recipe;
  recipe.quantization.config_groups = {
      {.name = "a", .weights = {.num_bits = 4, .strategy = QuantizationStrategy::tensor}}};
  EXPECT_THAT(
      error_of(recipe, spec_with(256, 512)),
      AllOf(HasSubstr("duo_scaling"), HasSubstr("model.layers.0.self_attn.q_proj has the strategy tensor")));
  recipe.awq->duo_scaling = DuoScaling::off;
  EXPECT_NO_THROW(resolve(recipe, spec_with(256, 512)));
}

TEST(ResolveRecipe, TheRegistryHasMappingsForRecipesWithout) {
  OneshotOptions options;
  options.mapping_registry["LlamaForCausalLM"] = {{"re:.*up_proj$", {"re:.*down_proj$"}}};
  const std::vector<AwqMapping> mappings = options.mapping_registry["LlamaForCausalLM"];
  EXPECT_EQ(resolve_recipe(options, spec_with(256, 512)).mappings[2].size(), 1u);
  options.recipe.awq->mappings = {{"re:.*v_proj$", {"re:.*o_proj$"}}, mappings[0]};
  EXPECT_EQ(resolve_recipe(options, spec_with(256, 512)).mappings[2].size(), 2u);
  options.recipe.awq->mappings.reset();
  options.mapping_registry = {{"MistralForCausalLM", mappings}};
  EXPECT_EQ(resolve_recipe(options, spec_with(256, 512)).mappings[2].size(), 4u);
}

/// Everything that a recipe can say.
OneshotOptions unusual_options() {
  OneshotOptions options;
  options.format = Format::autoawq_gemm;
  options.recipe.awq = AwqModifier{
      .mappings = std::vector<AwqMapping>{{"re:.*input_layernorm$", {"re:.*[qkv]_proj$"}, "self_attn"}},
      .duo_scaling = DuoScaling::both,
      .n_grid = 12,
      .objective = Objective::block_output,
      .clip = ClipSearch::off,
      .rounding = Rounding::nearest};
  options.recipe.quantization.ignore = {"lm_head", "re:.*layers\\.0\\..*"};
  options.recipe.quantization.config_groups = {
      {.name = "rows",
       .targets = {"Linear"},
       .weights = {.num_bits = 4, .symmetric = false, .group_size = -1}},
      {.name = "searched",
       .targets = {"re:.*down_proj$"},
       .weights = {.num_bits = 4,
                   .symmetric = false,
                   .group_size = 32,
                   .actorder = ActivationOrder::weight,
                   .observer = Observer::mse,
                   .observer_kwargs = {.maxshrink = 0.3, .grid = 50, .norm = 2, .patience = 9}}},
      {.name = "plain",
       .targets = {"re:.*up_proj$"},
       .weights = {.num_bits = 4,
                   .group_size = 64,
                   .actorder = ActivationOrder::none,
                   .observer = Observer::minmax}}};
  options.calibration = {.num_samples = 7,
                         .max_seq_length = 99,
                         .propagation = Propagation::original,
                         .precision = CalibrationPrecision::f32,
                         .experts = ExpertCalibration::routed,
                         .min_tokens_per_expert = 77};
  return options;
}

TEST(RecipeToYaml, SaysEverythingThatTheReaderTakes) {
  const OneshotOptions options = unusual_options();
  const DecoderSpec spec = spec_with(256, 512);
  const std::string text = recipe_to_yaml(options, spec, 1234);
  OneshotOptions back;
  parse_recipe(text, "recipe.yaml", back);
  EXPECT_EQ(recipe_to_yaml(back, spec, 1234), text);
  EXPECT_EQ(back.format, options.format);
  EXPECT_EQ(back.recipe.awq->mappings, options.recipe.awq->mappings);
  EXPECT_EQ(back.recipe.awq->rounding, Rounding::nearest);
  EXPECT_EQ(back.recipe.awq->clip, ClipSearch::off);
  EXPECT_EQ(back.recipe.quantization.ignore, options.recipe.quantization.ignore);
  ASSERT_EQ(back.recipe.quantization.config_groups.size(), 3u);
  const QuantizationArgs& searched = back.recipe.quantization.config_groups[1].weights;
  EXPECT_EQ(searched.observer, Observer::mse);
  EXPECT_EQ(searched.observer_kwargs, options.recipe.quantization.config_groups[1].weights.observer_kwargs);
  EXPECT_EQ(searched.actorder, ActivationOrder::weight);
  EXPECT_EQ(back.recipe.quantization.config_groups[0].weights.actorder, ActivationOrder::automatic);
  EXPECT_EQ(back.recipe.quantization.config_groups[2].weights.actorder, ActivationOrder::none);
  EXPECT_EQ(back.recipe.awq->objective, Objective::block_output);
  EXPECT_EQ(back.calibration.num_samples, 7);
  EXPECT_EQ(back.calibration.propagation, Propagation::original);
  EXPECT_EQ(back.calibration.experts, ExpertCalibration::routed);
  EXPECT_EQ(back.calibration.min_tokens_per_expert, 77);
  EXPECT_EQ(back.calibration.precision, CalibrationPrecision::f32);
}

/// Without a group to search there is no clip search to speak of, which the reader would refuse.
TEST(RecipeToYaml, IsReadBackWhereEveryGroupHasAnObserver) {
  OneshotOptions options;
  parse_recipe(
      "AWQModifier: {}\nQuantizationModifier: {scheme: W4A16, ignore: [lm_head], weight_observer: mse}",
      "a.yaml", options);
  EXPECT_EQ(options.recipe_source, "a.yaml");
  const std::string text = recipe_to_yaml(options, spec_with(256, 512), 1);
  EXPECT_THAT(text, HasSubstr("maxshrink: 0.2\n"));
  OneshotOptions back;
  parse_recipe(text, "recipe.yaml", back);
  EXPECT_EQ(recipe_to_yaml(back, spec_with(256, 512), 1), text);
}

TEST(ResolveRecipe, MistakesNameTheFileOfTheRecipe) {
  OneshotOptions options;
  parse_recipe("QuantizationModifier: {scheme: W4A16, ignore: [lm_heat]}", "a.yaml", options);
  EXPECT_THAT(
      [&] { resolve_recipe(options, spec_with(256, 512)); },
      throws_error(ErrorKind::invalid_argument, HasSubstr("a.yaml: ignore: \"lm_heat\" matches no module")));
}

TEST(ResolveRecipe, WhatOnlySalientReadsBackIsWarnedOf) {
  DecoderSpec spec = spec_with(256, 512);
  spec.storage = LinearStorage::transposed;
  const auto resolved = resolve({}, spec);
  ASSERT_EQ(resolved.warnings.size(), 1u);
  EXPECT_THAT(resolved.warnings[0], HasSubstr("read by Salient only"));
}

TEST(ResolveRecipe, ATiedHeadThatComesApartIsWarnedOf) {
  DecoderSpec spec = spec_with(256, 512);
  spec.tie_word_embeddings = true;
  const auto resolved = resolve({.quantization = {.ignore = {}}}, spec);
  ASSERT_EQ(resolved.warnings.size(), 1u);
  EXPECT_THAT(resolved.warnings[0],
              HasSubstr("lm_head becomes integers and no longer shares the embedding's tensor"));
}

/// llm-compressor looks at keys that end in _stage only, so what it does not know must stand elsewhere.
TEST(RecipeToYaml, IsTheRecipeThatLlmCompressorReads) {
  OneshotOptions options;
  options.recipe.quantization.group_size = 64;
  const std::string text = recipe_to_yaml(options, spec_with(256, 512), 1234);
  EXPECT_THAT(text, HasSubstr("# Calibrated on 1234 tokens"));
  const YAML::Node yaml = YAML::Load(text);
  const auto modifiers = yaml["default_stage"]["default_modifiers"];
  ASSERT_EQ(modifiers["AWQModifier"].size(), 2u);
  EXPECT_EQ(modifiers["AWQModifier"]["n_grid"].as<int>(), 20);
  EXPECT_TRUE(modifiers["AWQModifier"]["duo_scaling"].as<bool>());
  EXPECT_EQ(modifiers["QuantizationModifier"].size(), 2u);
  EXPECT_EQ(modifiers["QuantizationModifier"]["ignore"][0].as<std::string>(), "lm_head");
  const auto weights = modifiers["QuantizationModifier"]["config_groups"]["group_0"]["weights"];
  EXPECT_EQ(weights["group_size"].as<int>(), 64);
  EXPECT_EQ(weights["strategy"].as<std::string>(), "group");
  EXPECT_FALSE(weights["symmetric"].as<bool>());
}

}  // namespace
}  // namespace salient
