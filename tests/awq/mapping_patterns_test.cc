#include "awq/mapping_patterns.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/error_matcher.h"
#include "support/tiny_model.h"

namespace salient {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

DecoderSpec spec_of(const std::string& architecture, const Json& extra = Json::object()) {
  const Json config = TinyModel{.architecture = architecture, .extra = extra}.config();
  return make_decoder_spec(JsonView(config, "config.json"));
}

const std::vector<AwqMapping> kQkv{
    {"re:.*input_layernorm$", {"re:.*q_proj$", "re:.*k_proj$", "re:.*v_proj$"}}};

std::string error_of(const DecoderSpec& spec, const AwqMapping& mapping) {
  try {
    resolve_mappings(spec, {&mapping, 1});
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::invalid_argument);
    return error.what();
  }
  return "nothing was thrown";
}

TEST(ResolveMappings, EveryLayerOnItsOwn) {
  const DecoderSpec spec = spec_of("LlamaForCausalLM");
  const auto layers = resolve_mappings(spec, kQkv);
  ASSERT_EQ(layers.size(), 2u);
  ASSERT_EQ(layers[1].size(), 1u);
  EXPECT_EQ(layers[1][0].smooth_name(spec, 1), "model.layers.1.input_layernorm");
  EXPECT_THAT(layers[1][0].balance_names(spec, 1),
              ::testing::ElementsAre("model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.k_proj",
                                     "model.layers.1.self_attn.v_proj"));
}

TEST(ResolveMappings, ANameInFullIsOneLayer) {
  const AwqMapping mapping{"model.layers.1.mlp.up_proj", {"model.layers.1.mlp.down_proj"}};
  const auto layers = resolve_mappings(spec_of("LlamaForCausalLM"), {&mapping, 1});
  EXPECT_TRUE(layers[0].empty());
  EXPECT_EQ(layers[1].size(), 1u);
}

TEST(ResolveMappings, EveryExpertIsPairedWithItself) {
  const DecoderSpec spec = spec_of("MixtralForCausalLM", expert_keys());
  const AwqMapping mapping{"re:.*w3$", {"re:.*w2$"}};
  const auto layers = resolve_mappings(spec, {&mapping, 1});
  ASSERT_EQ(layers[0].size(), 3u);
  for (int64_t expert = 0; expert < 3; ++expert) {
    const ResolvedMapping& own = layers[0][static_cast<size_t>(expert)];
    EXPECT_EQ(own.smooth, (std::variant<NormRole, LinearId>(LinearId(LinearRole::expert_up, expert))));
    EXPECT_THAT(own.balance, ::testing::ElementsAre(LinearId(LinearRole::expert_down, expert)));
  }
}

TEST(ResolveMappings, AFusedMatrixStandsForTheRowsThatFeedTheBalanceLayer) {
  const DecoderSpec spec = spec_of("Phi3ForCausalLM");
  const std::vector<AwqMapping> mappings{{"re:.*qkv_proj$", {"re:.*o_proj$"}},
                                         {"re:.*gate_up_proj$", {"re:.*down_proj$"}}};
  const auto layers = resolve_mappings(spec, mappings);
  ASSERT_EQ(layers[0].size(), 2u);
  EXPECT_EQ(std::get<LinearId>(layers[0][0].smooth).role, LinearRole::v);
  EXPECT_EQ(std::get<LinearId>(layers[0][1].smooth).role, LinearRole::up);
}

TEST(ResolveMappings, AForgottenReaderIsRefused) {
  EXPECT_THAT(
      error_of(spec_of("LlamaForCausalLM"), {"re:.*input_layernorm$", {"re:.*q_proj$", "re:.*k_proj$"}}),
      AllOf(
          HasSubstr("mapping re:.*input_layernorm$ -> re:.*q_proj$, re:.*k_proj$"),
          HasSubstr("model.layers.0.self_attn.v_proj reads the output of model.layers.0.input_layernorm too"),
          HasSubstr("layer 0 would compute something else")));
}

TEST(ResolveMappings, ALinearThatReadsSomethingElseIsRefused) {
  EXPECT_THAT(
      error_of(spec_of("LlamaForCausalLM"), {"re:.*input_layernorm$", {"re:.*[qkvo]_proj$"}}),
      HasSubstr(
          "model.layers.0.self_attn.o_proj does not read the output of model.layers.0.input_layernorm"));
}

TEST(ResolveMappings, TwoSmoothLayersInASetAreRefused) {
  EXPECT_THAT(
      error_of(spec_of("LlamaForCausalLM"), {"re:.*layernorm$", {"re:.*[qkv]_proj$"}}),
      AllOf(HasSubstr(
                "matches both model.layers.0.input_layernorm and model.layers.0.post_attention_layernorm"),
            HasSubstr("a set has one smooth layer")));
}

TEST(ResolveMappings, WhatCannotCarryAScaleIsRefused) {
  EXPECT_THAT(
      error_of(spec_of("LlamaForCausalLM"), {"re:.*gate_proj$", {"re:.*down_proj$"}}),
      AllOf(HasSubstr(
                "the output of model.layers.0.mlp.gate_proj does not go into linears through products alone"),
            HasSubstr("up_proj -> down_proj")));
  EXPECT_THAT(
      error_of(spec_of("Gemma2ForCausalLM"), {"re:.*post_attention_layernorm$", {"re:.*(gate|up)_proj$"}}),
      HasSubstr("model.layers.0.post_attention_layernorm does not go into linears"));
}

TEST(ResolveMappings, ARecipeForAnotherFamilyIsRecognised) {
  EXPECT_THAT(
      error_of(spec_of("LlamaForCausalLM"), {"re:.*final_layer_norm$", {"re:.*fc1$"}}),
      AllOf(HasSubstr("smooth_layer: \"re:.*final_layer_norm$\" matches no module of LlamaForCausalLM"),
            HasSubstr("another family"), HasSubstr("input_layernorm -> q_proj, k_proj, v_proj")));
  EXPECT_THAT(error_of(spec_of("LlamaForCausalLM"), {"re:.*up_proj$", {"re:.*down_proj$", "re:.*w2$"}}),
              HasSubstr("balance_layers: \"re:.*w2$\" matches no module"));
}

TEST(ResolveMappings, OtherMistakes) {
  const DecoderSpec spec = spec_of("LlamaForCausalLM");
  EXPECT_THAT(error_of(spec, {"re:.*up_proj$", {}}), HasSubstr("balance_layers is empty"));
  EXPECT_THAT(error_of(spec, {"re:(", {"a"}}), HasSubstr("is not a regular expression"));
  EXPECT_THAT(error_of(spec, {"re:.*up_proj$", {"re:.*input_layernorm$"}}), HasSubstr("is no linear"));
  EXPECT_THAT(error_of(spec, {"model.layers.0.mlp.up_proj", {"model.layers.1.mlp.down_proj"}}),
              HasSubstr("no decoder layer has both"));
  const std::vector<AwqMapping> twice{kQkv[0], kQkv[0]};
  EXPECT_THAT([&] { resolve_mappings(spec, twice); },
              throws_error(ErrorKind::invalid_argument,
                           HasSubstr("layer 0 has input_layernorm -> q_proj, k_proj, v_proj twice")));
}

TEST(ResolveMappings, TheHookMustLeadToTheSmoothedTensor) {
  const DecoderSpec spec = spec_of("Qwen3MoeForCausalLM", expert_keys());
  AwqMapping mapping{"re:.*post_attention_layernorm$", {"re:.*mlp\\.gate$", "re:.*(gate|up)_proj$"}, "gate"};
  EXPECT_EQ(resolve_mappings(spec, {&mapping, 1})[0].size(), 1u);
  mapping.activation_hook_target = "experts";
  EXPECT_EQ(resolve_mappings(spec, {&mapping, 1})[0].size(), 1u);
  mapping.activation_hook_target = "o_proj";
  EXPECT_THAT(
      error_of(spec, mapping),
      HasSubstr("activation_hook_target \"o_proj\" leads to model.layers.0.mlp.o_proj, which does not read"));
  AwqMapping attention = kQkv[0];
  attention.activation_hook_target = "q_proj";
  EXPECT_EQ(resolve_mappings(spec_of("LlamaForCausalLM"), {&attention, 1})[0].size(), 1u);
}

}  // namespace
}  // namespace salient
