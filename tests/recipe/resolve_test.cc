#include "recipe/resolve.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include "base/error.h"

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

std::string error_of(const Recipe& recipe, const DecoderSpec& spec,
                     ErrorKind expected = ErrorKind::invalid_argument) {
  try {
    resolve_recipe(recipe, Format::pack_quantized, spec);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), expected) << error.what();
    return error.what();
  }
  return "nothing was thrown";
}

TEST(ResolveRecipe, HeadStaysDenseAndEverythingElseIsQuantized) {
  const auto resolved = resolve_recipe({}, Format::pack_quantized, spec_with(256, 512));
  EXPECT_EQ(resolved.quantized_linears, 21);
  ASSERT_EQ(resolved.dense.size(), 1u);
  EXPECT_EQ(resolved.dense[0].name, "lm_head");
}

TEST(ResolveRecipe, IgnoreTakesFullNamesAndPatterns) {
  const Recipe recipe{
      .quantization = {.ignore = {"lm_head", "model.layers.1.mlp.down_proj", "re:.*self_attn.v_proj$"}}};
  const auto resolved = resolve_recipe(recipe, Format::pack_quantized, spec_with(256, 512));
  EXPECT_EQ(resolved.quantized_linears, 21 - 1 - 3);
  EXPECT_FALSE(resolved.schemes[1].contains(LinearRole::down));
  EXPECT_TRUE(resolved.schemes[0].contains(LinearRole::down));
  for (const auto& schemes : resolved.schemes) EXPECT_FALSE(schemes.contains(LinearRole::v));
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
  EXPECT_THAT(error_of({.quantization = {.ignore = {"re:.*_proj"}}}, spec_with(256, 512)),
              HasSubstr("nothing is left"));
}

TEST(ResolveRecipe, GroupSizeThatDoesNotDivideNamesLayersAndSizesThatFit) {
  const auto message = error_of({.quantization = {.group_size = 128}}, spec_with(576, 1536));
  EXPECT_THAT(message, AllOf(HasSubstr("group size 128 does not divide the columns of 18 linears"),
                             HasSubstr("q_proj [576 columns] in 3 layers"),
                             HasSubstr("sizes that fit: 16, 32, 64, -1")));
  EXPECT_THAT(message, ::testing::Not(HasSubstr("down_proj")));
}

TEST(ResolveRecipe, ColumnsFewerThanTheGroupAreRefusedToo) {
  EXPECT_THAT(error_of({.quantization = {.group_size = 256}}, spec_with(128, 256)),
              HasSubstr("q_proj [128 columns]"));
}

TEST(ResolveRecipe, TheWholeRowAlwaysFits) {
  const Recipe recipe{.quantization = {.group_size = QuantizationScheme::kWholeRow}};
  EXPECT_EQ(resolve_recipe(recipe, Format::pack_quantized, spec_with(104, 172)).quantized_linears, 21);
}

TEST(ResolveRecipe, GemmRefusesRowsThatDoNotFillAWord) {
  const Recipe recipe{.quantization = {.group_size = QuantizationScheme::kWholeRow}};
  try {
    resolve_recipe(recipe, Format::autoawq_gemm, spec_with(128, 172));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::unsupported);
    EXPECT_THAT(error.what(), AllOf(HasSubstr("model.layers.0.mlp.gate_proj"), HasSubstr("172")));
  }
}

TEST(ResolveRecipe, BadSchemesAndGrids) {
  EXPECT_THAT(error_of({.quantization = {.scheme = "W4A61"}}, spec_with(256, 512)), HasSubstr("W4A61"));
  EXPECT_THAT(error_of({.quantization = {.group_size = 100}}, spec_with(256, 512), ErrorKind::unsupported),
              HasSubstr("100"));
  EXPECT_THAT(error_of({.awq = AwqModifier{.n_grid = 1}}, spec_with(256, 512)), HasSubstr("n_grid: 1"));
}

TEST(RecipeToYaml, IsTheRecipeThatLlmCompressorReads) {
  OneshotOptions options;
  options.recipe.awq->duo_scaling = DuoScaling::both;
  const std::string text = recipe_to_yaml(options, {.symmetric = false, .group_size = 64}, 1234, "lm_head");
  EXPECT_THAT(text, HasSubstr("calibration on 1234 tokens in windows of 512"));
  const YAML::Node yaml = YAML::Load(text);
  const auto modifiers = yaml["default_stage"]["default_modifiers"];
  EXPECT_EQ(modifiers["AWQModifier"]["duo_scaling"].as<std::string>(), "both");
  EXPECT_EQ(modifiers["AWQModifier"]["n_grid"].as<int>(), 20);
  EXPECT_EQ(modifiers["QuantizationModifier"]["ignore"][0].as<std::string>(), "lm_head");
  const auto weights = modifiers["QuantizationModifier"]["config_groups"]["group_0"]["weights"];
  EXPECT_EQ(weights["group_size"].as<int>(), 64);
  EXPECT_EQ(weights["strategy"].as<std::string>(), "group");
  EXPECT_FALSE(weights["symmetric"].as<bool>());
}

}  // namespace
}  // namespace salient
