#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "recipe/schemes.h"
#include "salient/oneshot.h"
#include "support/error_matcher.h"

namespace salient {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

OneshotOptions read(const std::string& text, const std::string& source = "awq.yaml") {
  OneshotOptions options;
  parse_recipe(text, source, options);
  return options;
}

QuantizationScheme only_scheme(const OneshotOptions& options) {
  const auto groups = config_groups_of(options.recipe.quantization);
  EXPECT_EQ(groups.size(), 1u);
  return scheme_of(groups.front().weights);
}

/// What llm-compressor 0.14 writes beside a checkpoint, word for word.
constexpr const char* kWrittenByLlmCompressor = R"(
default_stage:
  default_modifiers:
    AWQModifier:
      requires_calibration_data: true
      mappings:
      - smooth_layer: re:.*input_layernorm$
        balance_layers: ['re:.*q_proj$', 're:.*k_proj$', 're:.*v_proj$']
        activation_hook_target: null
      - smooth_layer: re:.*v_proj$
        balance_layers: ['re:.*o_proj$']
        activation_hook_target: null
      duo_scaling: true
      n_grid: 20
    QuantizationModifier:
      config_groups:
        group_0:
          targets: [Linear]
          weights:
            num_bits: 4
            type: int
            symmetric: false
            group_size: 64
            strategy: group
            block_structure: null
            dynamic: false
            actorder: null
            scale_dtype: null
            zp_dtype: torch.int8
            observer: memoryless_minmax
            observer_kwargs: {}
          input_activations: null
          output_activations: null
          format: null
      targets: [Linear]
      ignore: [lm_head]
      bypass_divisibility_checks: false
      requires_calibration_data: false
)";

TEST(RecipeFile, ReadsWhatLlmCompressorWrites) {
  const OneshotOptions options = read(kWrittenByLlmCompressor);
  ASSERT_TRUE(options.recipe.awq && options.recipe.awq->mappings);
  EXPECT_EQ(options.recipe.awq->mappings->at(0),
            (AwqMapping{"re:.*input_layernorm$", {"re:.*q_proj$", "re:.*k_proj$", "re:.*v_proj$"}}));
  EXPECT_EQ(options.recipe.awq->duo_scaling, DuoScaling::on);
  EXPECT_EQ(only_scheme(options), (QuantizationScheme{.num_bits = 4, .symmetric = false, .group_size = 64}));
  EXPECT_EQ(options.recipe.quantization.config_groups[0].weights.observer, Observer::minmax);
  EXPECT_THAT(options.recipe.quantization.ignore, ElementsAre("lm_head"));
}

TEST(RecipeFile, JsonAndListsOfModifiersSayTheSame) {
  const OneshotOptions options = read(R"([{"AWQModifier": {"duo_scaling": "both", "n_grid": 10}},
      {"QuantizationModifier": {"scheme": "W4A16", "targets": "Linear", "ignore": "lm_head"}}])",
                                      "recipe.json");
  EXPECT_EQ(options.recipe.awq->duo_scaling, DuoScaling::both);
  EXPECT_EQ(options.recipe.awq->n_grid, 10);
  EXPECT_EQ(only_scheme(options), (QuantizationScheme{.num_bits = 4, .symmetric = true, .group_size = 128}));
  EXPECT_THAT(options.recipe.quantization.ignore, ElementsAre("lm_head"));
}

TEST(RecipeFile, TheOneModifierFormSplitsItself) {
  const OneshotOptions options = read(R"(
quant_stage:
  run_type: oneshot
  quant_modifiers:
    AWQModifier: {scheme: W4A16_ASYM, targets: [Linear], ignore: ['re:.*gate$'], duo_scaling: false}
)");
  EXPECT_EQ(options.recipe.awq->duo_scaling, DuoScaling::off);
  EXPECT_EQ(options.recipe.quantization.scheme, "W4A16_ASYM");
  EXPECT_THAT(options.recipe.quantization.ignore, ElementsAre("re:.*gate$"));
}

TEST(RecipeFile, ShorthandsOfTheFirstVersions) {
  EXPECT_EQ(only_scheme(read("AWQModifier: {bits: 4, symmetric: true}")),
            (QuantizationScheme{.num_bits = 4, .symmetric = true, .group_size = 128}));
  EXPECT_EQ(only_scheme(read("AWQModifier: {bits: 4, group_size: 64, ignore: [lm_head]}")),
            (QuantizationScheme{.num_bits = 4, .symmetric = false, .group_size = 64}));
  // The recipe of the guide: what the shorthands say again must agree.
  const std::string guide = R"([{"AWQModifier": {"bits": 4, "symmetric": false}}, {"QuantizationModifier":
      {"ignore": ["lm_head"], "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4,
      "type": "int", "dynamic": false, "symmetric": %, "strategy": "group", "group_size": 128}}}}}])";
  const auto with = [&](const std::string& symmetric) {
    std::string text = guide;
    return text.replace(text.find('%'), 1, symmetric);
  };
  EXPECT_FALSE(only_scheme(read(with("false"), "r.json")).symmetric);
  EXPECT_THAT([&] { read(with("true"), "r.json"); },
              throws_error(ErrorKind::invalid_argument,
                           AllOf(HasSubstr("r.json[0]: AWQModifier: symmetric: false contradicts group_0"))));
}

TEST(RecipeFile, PresetsForTargetsAreGroups) {
  const OneshotOptions options = read(
      "QuantizationModifier: {scheme: {W4A16: [Linear], W4A16_ASYM: ['re:.*down_proj$']}, ignore: "
      "[lm_head]}");
  EXPECT_FALSE(options.recipe.awq.has_value());
  const auto& groups = options.recipe.quantization.config_groups;
  ASSERT_EQ(groups.size(), 2u);
  EXPECT_TRUE(scheme_of(groups[0].weights).symmetric);
  EXPECT_FALSE(scheme_of(groups[1].weights).symmetric);
  EXPECT_THAT(groups[1].targets, ElementsAre("re:.*down_proj$"));
}

TEST(RecipeFile, ObserversOfTheModifier) {
  const auto observer_of = [](const std::string& keys) {
    return read("QuantizationModifier: {scheme: W4A16, " + keys + "}")
        .recipe.quantization.config_groups.at(0)
        .weights.observer;
  };
  EXPECT_EQ(observer_of("weight_observer: mse"), Observer::mse);
  EXPECT_EQ(observer_of("observer: {weights: minmax}"), Observer::minmax);
}

TEST(RecipeFile, StrategiesFollowFromTheGroupSize) {
  const auto scheme = [](const std::string& weights) {
    return only_scheme(
        read("QuantizationModifier: {config_groups: {g: {targets: [Linear], weights: {num_bits: 4, " +
             weights + "}}}}"));
  };
  EXPECT_EQ(scheme("group_size: 32").group_size, 32);
  EXPECT_EQ(scheme("group_size: -1").group_size, QuantizationScheme::kWholeRow);
  EXPECT_EQ(scheme("strategy: channel").group_size, QuantizationScheme::kWholeRow);
  EXPECT_EQ(scheme("strategy: tensor").group_size, QuantizationScheme::kWholeMatrix);
  EXPECT_EQ(scheme("symmetric: false").group_size, QuantizationScheme::kWholeMatrix);
}

TEST(RecipeFile, AutoAwqsQuantConfig) {
  const OneshotOptions options = read(
      R"({"zero_point": true, "q_group_size": 64, "w_bit": 4, "version": "GEMM", "modules_to_not_convert": ["gate"]})",
      "quant_config.json");
  EXPECT_EQ(options.integer_format(), Format::autoawq_gemm);
  EXPECT_FALSE(options.format.has_value());
  ASSERT_TRUE(options.recipe.awq.has_value());
  EXPECT_EQ(only_scheme(options), (QuantizationScheme{.num_bits = 4, .symmetric = false, .group_size = 64}));
  // A part of the name in whole words, not a piece of a word.
  EXPECT_THAT(options.recipe.quantization.ignore, ElementsAre("lm_head", "re:(.*\\.)?gate(\\..*)?$"));
  EXPECT_EQ(
      read("{bits: 4, group_size: 128, zero_point: true, quant_method: awq, version: gemm}").integer_format(),
      Format::autoawq_gemm);
}

TEST(RecipeFile, SmoothQuantsWayOfWritingMappings) {
  const OneshotOptions options = read(R"(
AWQModifier:
  scheme: W4A16
  mappings: [[['re:.*fc1'], 're:.*final_layer_norm'], {smooth_layer: a, balance_layers: b, activation_hook_target: mlp}]
)");
  EXPECT_THAT(*options.recipe.awq->mappings,
              ElementsAre(AwqMapping{"re:.*final_layer_norm", {"re:.*fc1"}}, AwqMapping{"a", {"b"}, "mlp"}));
}

/// Recipes on the page are whole, or parts that lack nothing but the rest.
TEST(RecipeFile, ThePageShowsRecipesThatAreRead) {
  const std::string page = read_text_file(SALIENT_SOURCE_DIR "/docs/recipes.md");
  const std::string mark = "```yaml\n";
  int whole = 0;
  int parts = 0;
  for (size_t begin = page.find(mark); begin != std::string::npos; begin = page.find(mark, begin + 1)) {
    const size_t from = begin + mark.size();
    const std::string text = page.substr(from, page.find("```", from) - from);
    try {
      read(text);
      ++whole;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), ::testing::AnyOf(HasSubstr("alone does not say how to quantize"),
                                                 HasSubstr("names no modifier")))
          << text;
      ++parts;
    }
  }
  EXPECT_EQ(whole, 1);
  EXPECT_EQ(parts, 2);
}

/// As in llm-compressor nothing is ignored unless the recipe says so; AutoAWQ never touches the head.
TEST(RecipeFile, IgnoreIsWhatTheFileSays) {
  for (const char* text : {"AWQModifier: {bits: 4}", "AWQModifier: {bits: 4, targets: [Linear]}",
                           "AWQModifier: {scheme: W4A16}", "QuantizationModifier: {scheme: W4A16}"}) {
    EXPECT_TRUE(read(text).recipe.quantization.ignore.empty()) << text;
  }
  EXPECT_THAT(read("{w_bit: 4}").recipe.quantization.ignore, ElementsAre("lm_head"));
}

TEST(RecipeFile, AKeyThatStandsTwiceInJsonIsRefused) {
  EXPECT_THAT([] { read(R"({"QuantizationModifier": {"scheme": "W4A16", "scheme": "W8A16"}})", "r.json"); },
              throws_error(ErrorKind::bad_format, HasSubstr("r.json: the key \"scheme\" stands twice")));
}

struct Mistake {
  std::string text;
  ErrorKind kind;
  std::vector<std::string> message;
};

/// Names of tests hold no addresses.
void PrintTo(const Mistake& mistake, std::ostream* out) { *out << mistake.text; }

class RecipeMistake : public ::testing::TestWithParam<Mistake> {};

TEST_P(RecipeMistake, IsNamedWithPathAndValue) {
  for (const std::string& part : GetParam().message) {
    EXPECT_THAT([&] { read(GetParam().text); },
                throws_error(GetParam().kind, AllOf(HasSubstr("awq.yaml"), HasSubstr(part))))
        << GetParam().text;
  }
}

std::string weights(const std::string& keys) {
  return "QuantizationModifier: {config_groups: {g: {targets: [Linear], weights: {" + keys + "}}}}";
}

constexpr auto kWrong = ErrorKind::invalid_argument;
constexpr auto kUnsupported = ErrorKind::unsupported;

INSTANTIATE_TEST_SUITE_P(
    Keys, RecipeMistake,
    ::testing::Values(
        Mistake{"AWQModifier: {n_gird: 20}",
                kWrong,
                {"awq.yaml: AWQModifier: n_gird: unknown key (its value: 20); did you mean \"n_grid\"?"}},
        Mistake{"quantize_stage: {}\ndefault_sage: {}",
                kWrong,
                {"default_sage", "did you mean \"default_stage\"?"}},
        Mistake{"q_stage: {quant_modifers: {}}",
                kWrong,
                {"q_stage: quant_modifers", "did you mean \"quant_modifiers\"?"}},
        Mistake{"q_stage: {m_modifiers: {AWQModifer: {}}}",
                kWrong,
                {"unknown modifier; did you mean \"AWQModifier\"?"}},
        Mistake{
            "GPTQModifier: {}", kUnsupported, {"GPTQModifier: Salient has no such modifier", "mappings: []"}},
        Mistake{"QuantizationModifier: {schema: W4A16}", kWrong, {"did you mean \"scheme\"?"}},
        Mistake{weights("num_bit: 4"),
                kWrong,
                {"config_groups: g: weights: num_bit", "did you mean \"num_bits\"?"}},
        Mistake{"salient: {sweep: 1}", kWrong, {"did you mean \"sweeps\"?"}},
        Mistake{"salient: {ronding: nearest}", kWrong, {"salient: ronding", "did you mean \"rounding\"?"}},
        Mistake{"{w_bit: 4, q_groupsize: 128}", kWrong, {"q_groupsize", "did you mean \"q_group_size\"?"}},
        Mistake{"AWQModifier: {mappings: [{smooth: x}]}", kWrong, {"mappings[0]: smooth", "unknown key"}},
        Mistake{"args: {x: 1}\nAWQModifier: {}", kUnsupported, {"args"}}));

INSTANTIATE_TEST_SUITE_P(
    Values, RecipeMistake,
    ::testing::Values(
        Mistake{"AWQModifier: {duo_scaling: sometimes}",
                kWrong,
                {"AWQModifier: duo_scaling: \"sometimes\" is none of"}},
        Mistake{"AWQModifier: {scheme: W4A16}\nsalient: {sweeps: 17}",
                ErrorKind::bad_format,
                {"salient: sweeps"}},
        Mistake{"AWQModifier: {n_grid: 1}", ErrorKind::bad_format, {"AWQModifier: n_grid"}},
        Mistake{"AWQModifier: {sequential_targets: [LlamaDecoderLayer]}",
                kUnsupported,
                {"sequential_targets", "leave it out"}},
        Mistake{"AWQModifier: {offload_device: cuda}", kUnsupported, {"offload_device: \"cuda\""}},
        Mistake{"AWQModifier: {requires_calibration_data: false}", kWrong, {"AWQ does need data"}},
        Mistake{"QuantizationModifier: {scheme: W4A61}", kWrong, {"QuantizationModifier: scheme", "W4A61"}},
        Mistake{"QuantizationModifier: {scheme: FP8}", kUnsupported, {"FP8"}},
        Mistake{"QuantizationModifier: {kv_cache_scheme: {num_bits: 8}}", kUnsupported, {"kv_cache_scheme"}},
        Mistake{"QuantizationModifier: {bypass_divisibility_checks: true}",
                kUnsupported,
                {"bypass_divisibility_checks"}},
        Mistake{"QuantizationModifier: {scheme: W4A16, input_observer: minmax}",
                kUnsupported,
                {"input_observer"}},
        Mistake{weights("num_bits: 9, group_size: 64"), kWrong, {"g: weights", "num_bits is 9"}},
        Mistake{weights("num_bits: 4, group_size: 24"), kWrong, {"group_size is 24"}},
        Mistake{weights("num_bits: 4, strategy: block"), kUnsupported, {"strategy block"}},
        Mistake{weights("num_bits: 4, strategy: token"), kUnsupported, {"strategy token"}},
        Mistake{weights("num_bits: 4, strategy: tensor_group"), kUnsupported, {"strategy: \"tensor_group\""}},
        Mistake{weights("num_bits: 4, strategy: groop"), kWrong, {"did you mean \"group\"?"}},
        Mistake{weights("num_bits: 4, type: float"), kUnsupported, {"type float"}},
        Mistake{weights("num_bits: 4, dynamic: true"), kUnsupported, {"dynamic true"}},
        Mistake{weights("num_bits: 4, dynamic: local"), kUnsupported, {"dynamic: \"local\""}},
        Mistake{weights("num_bits: 4, actorder: group"), kUnsupported, {"actorder: \"group\"", "\"weight\""}},
        Mistake{weights("num_bits: 4, actorder: true"), kUnsupported, {"actorder: true"}},
        Mistake{weights("num_bits: 4, observer: imatrix_mse"), kUnsupported, {"imatrix_mse"}},
        Mistake{weights("num_bits: 4, observer: mse, observer_kwargs: {maxshrink: 2}"),
                kWrong,
                {"maxshrink is 2"}},
        Mistake{weights("num_bits: 4, observer: mse, observer_kwargs: {gird: 2}"),
                kWrong,
                {"did you mean \"grid\"?"}},
        Mistake{weights("num_bits: 4, scale_dtype: torch.float32"), kUnsupported, {"scale_dtype"}},
        Mistake{weights("num_bits: 4, block_structure: [128, 128]"), kUnsupported, {"block_structure"}},
        Mistake{"QuantizationModifier: {config_groups: {g: {targets: [Linear], weights: {num_bits: 4, "
                "group_size: 64}, "
                "input_activations: {num_bits: 8}}}}",
                kUnsupported,
                {"g: input_activations"}},
        Mistake{"{w_bit: 4, version: marlin}", kUnsupported, {"version: \"marlin\"", "GEMM"}},
        Mistake{"{w_bit: 9}", kWrong, {"num_bits is 9"}}));

INSTANTIATE_TEST_SUITE_P(
    Contradictions, RecipeMistake,
    ::testing::Values(
        Mistake{"AWQModifier: {}", kWrong, {"AWQModifier alone does not say how to quantize"}},
        Mistake{"AWQModifier: {scheme: W4A16}\nsalient: {effort: bset}",
                kWrong,
                {"salient: effort: \"bset\"", "best"}},
        Mistake{"AWQModifier: {scheme: W4A16}\nsalient: {objective: output}",
                kWrong,
                {"salient: objective: \"output\"", "linear_output"}},
        Mistake{"QuantizationModifier: {scheme: W4A16}\nsalient: {effort: best}",
                kWrong,
                {"salient: effort: \"best\" is for AWQ"}},
        Mistake{"salient: {rounding: nearest}", ErrorKind::bad_format, {"names no modifier"}},
        Mistake{"", ErrorKind::bad_format, {"the file is empty"}},
        Mistake{"QuantizationModifier: {scheme: W4A16}\nAWQModifier: {}",
                kWrong,
                {"AWQ comes before the rounding"}},
        Mistake{"AWQModifier: {scheme: W4A16}\nQuantizationModifier: {}",
                kWrong,
                {"says how to quantize already"}},
        Mistake{"a_stage: {m_modifiers: {QuantizationModifier: {}}}\nb_stage: {m_modifiers: "
                "{QuantizationModifier: {}}}",
                kUnsupported,
                {"a second QuantizationModifier"}},
        Mistake{"QuantizationModifier: {scheme: W4A16, config_groups: {}}",
                kWrong,
                {"stands beside config_groups"}},
        Mistake{weights("num_bits: 4, group_size: 64, strategy: channel"),
                kWrong,
                {"group_size 64 contradicts strategy channel"}},
        Mistake{weights("num_bits: 4, strategy: group"), kWrong, {"strategy group needs a group_size"}},
        Mistake{weights("num_bits: 4, observer: minmax, observer_kwargs: {grid: 20}"),
                kWrong,
                {"is for the observer mse"}},
        Mistake{"QuantizationModifier: {targets: [a], config_groups: {g: {targets: [b], weights: {num_bits: "
                "4, group_size: "
                "64}}}}",
                kWrong,
                {"contradicts the targets of the groups"}},
        Mistake{"AWQModifier: {bits: 8, w_bit: 4}",
                kWrong,
                {"AWQModifier: w_bit: 4 contradicts awq.yaml: AWQModifier: bits"}},
        Mistake{"AWQModifier: {apply_clip: true}\nsalient: {apply_clip: false}",
                kWrong,
                {"contradicts the other apply_clip"}},
        Mistake{"QuantizationModifier: {ignore: [lm_head]}", kWrong, {"do not say how to quantize"}},
        Mistake{"AWQModifier: {ignore: [lm_head], scheme: }", kWrong, {"do not say how to quantize"}},
        Mistake{
            "QuantizationModifier: {scheme: W4A16, targets: []}", kWrong, {"targets: [] names no target"}},
        Mistake{"QuantizationModifier: {scheme: W4A16, weight_observer: mse, observer: {weights: mse}}",
                kWrong,
                {"stands beside weight_observer"}},
        Mistake{"QuantizationModifier: {weight_observer: mse, config_groups: {g: {targets: [Linear], "
                "weights: {num_bits: 4, "
                "group_size: 64, observer: minmax}}}}",
                kWrong,
                {"weight_observer: \"mse\" contradicts the observer of g"}},
        Mistake{"QuantizationModifier: {weight_observer: mse}", kWrong, {"stands without a scheme"}},
        Mistake{weights("num_bits: 4, group_size: 64, observer_kwargs: {grid: 20}"),
                kWrong,
                {"the observer_kwargs of g are for the observer mse"}},
        Mistake{weights("num_bits: 4, strategy: tensor, observer: mse"),
                kUnsupported,
                {"observer mse searches group by group"}},
        Mistake{
            weights("num_bits: 4, strategy: channel, group_size: -7"), kWrong, {"group_size -7 contradicts"}},
        Mistake{"QuantizationModifier: {scheme: W4A16}\nsalient: {result: dense}",
                kWrong,
                {"salient: result", "dense"}},
        Mistake{"QuantizationModifier: {scheme: W4A16}\nsalient: {result: €€€€€€€€€€€€€€€€€€€€€€€€€}",
                kWrong,
                {"salient: result: \"€€€€€€€€€€€€€€€€€€€... is unknown"}},
        Mistake{"QuantizationModifier: {scheme: W4A16}\nsalient: {rounding: nearest}",
                kWrong,
                {"salient: rounding: \"nearest\" is for AWQ"}},
        Mistake{
            "QuantizationModifier: {scheme: W4A16, requires_calibration_data: true}", kWrong, {"is for AWQ"}},
        Mistake{"AWQModifier: {scheme: W4A16}\nsalient: {min_tokens_per_expert: 5}",
                kWrong,
                {"min_tokens_per_expert: 5 is for moe_calibrate_all_experts: false"}},
        Mistake{"AWQModifier: {apply_clip: true, scheme: W4A16, weight_observer: minmax}",
                kWrong,
                {"every group has an observer"}},
        Mistake{"AWQModifier: {bits: 9}", kWrong, {"AWQModifier: num_bits is 9"}},
        Mistake{"{w_bit: 4, zero_point: false, version: GEMM}",
                kWrong,
                {"zero_point: false does not go with the GEMM"}}));

}  // namespace
}  // namespace salient
