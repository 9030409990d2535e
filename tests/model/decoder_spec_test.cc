#include "model/decoder_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "model/families.h"

namespace salient {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr std::string_view kLlama = R"({
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 96,
  "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100,
  "max_position_embeddings": 2048, "eos_token_id": [2, 7], "bos_token_id": 1})";

/// The Llama config with some keys replaced.
DecoderSpec spec_with(std::string_view changes) {
  Json config = parse_json(kLlama, "config.json");
  config.merge_patch(parse_json(changes, "changes"));
  return make_decoder_spec({config, "config.json"});
}

struct Refusal {
  std::string_view changes;
  ErrorKind kind;
  std::string_view message;
};

class Refused : public testing::TestWithParam<Refusal> {};

TEST_P(Refused, WithPathAndValue) {
  try {
    spec_with(GetParam().changes);
    FAIL() << "accepted " << GetParam().changes;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), GetParam().kind) << error.what();
    EXPECT_THAT(error.what(), HasSubstr(std::string(GetParam().message)));
  }
}

constexpr auto kBad = ErrorKind::bad_format;
constexpr auto kUnsupported = ErrorKind::unsupported;

INSTANTIATE_TEST_SUITE_P(
    Configs, Refused,
    testing::Values(
        Refusal{R"({"architectures": ["MambaForCausalLM"]})", kUnsupported,
                "the architecture \"MambaForCausalLM\" is not supported (known: LlamaForCausalLM, Mistral"},
        Refusal{R"({"architectures": null, "model_type": "mamba"})", kUnsupported,
                "\"mamba\" is not supported"},
        Refusal{R"({"architectures": ["Qwen2_5_VLTextModel"]})", kUnsupported,
                "\"Qwen2_5_VLTextModel\" is not supported"},
        Refusal{R"({"hidden_size": null})", kBad, "config.json: the key \"hidden_size\" is missing"},
        Refusal{R"({"intermediate_size": null})", kBad, "the key \"intermediate_size\" is missing"},
        Refusal{R"({"architectures": ["Gemma3ForCausalLM"], "num_attention_heads": null})", kBad,
                "the key \"num_attention_heads\" is missing"},
        Refusal{R"({"architectures": ["LlavaForConditionalGeneration"]})", kBad,
                "the key \"text_config\" is missing"},
        Refusal{R"({"hidden_size": "64"})", kBad,
                "config.json: hidden_size: expected an integer, got \"64\""},
        Refusal{R"({"hidden_size": 0})", kBad, "hidden_size: 0 is outside [1, 16777216]"},
        Refusal{R"({"num_hidden_layers": 1000000000})", kBad,
                "num_hidden_layers: 1000000000 is outside [1, 4096]"},
        Refusal{R"({"num_key_value_heads": 3})", kBad,
                "num_attention_heads 4 is no multiple of num_key_value_heads 3"},
        Refusal{R"({"hidden_size": 66})", kBad, "hidden_size 66 is no multiple of num_attention_heads 4"},
        Refusal{R"({"head_dim": 7})", kBad, "a rotary dimension of 7"},
        Refusal{R"({"head_dim": 16777216})", kBad, "4 heads of 16777216 features are too many"},
        Refusal{R"({"hidden_act": "quick_gelu"})", kUnsupported,
                "the activation \"quick_gelu\" is not supported"},
        Refusal{R"({"rms_norm_eps": -1})", kBad, "rms_norm_eps: -1 is outside [0, 1)"},
        Refusal{R"({"rope_theta": 0})", kBad, "rope_theta: 0 is outside"},
        Refusal{R"({"partial_rotary_factor": 1.5})", kBad, "partial_rotary_factor: 1.5 is outside [0, 1]"},
        Refusal{R"({"rope_scaling": {"type": "mrope"}})", kUnsupported,
                "config.json: rope_scaling: type: rope type \"mrope\" is not supported"},
        Refusal{R"({"rope_scaling": {"rope_type": "linear"}})", kBad,
                "rope_scaling: the key \"factor\" is missing"},
        Refusal{R"({"rope_scaling": {"rope_type": "linear", "factor": 0}})", kBad, "factor: 0 is outside"},
        Refusal{R"({"rope_scaling": {"rope_type": "dynamic", "factor": 2, "alpha": 1000}})", kUnsupported,
                "alpha"},
        Refusal{R"({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4,
                                     "high_freq_factor": 4}})",
                kBad, "high_freq_factor 4 must be above low_freq_factor 4"},
        Refusal{R"({"rope_scaling": {"rope_type": "longrope", "factor": 8, "short_factor": [1, 2],
                                     "long_factor": [1]}})",
                kBad, "rope_scaling: short_factor: 2 factors, but half the rotary dimension is 8"},
        Refusal{R"({"rope_parameters": {"full_attention": {"rope_type": "default"}}})", kUnsupported,
                "rope parameters per layer type"},
        Refusal{
            R"({"architectures": ["Qwen3ForCausalLM"], "use_sliding_window": true, "layer_types": ["full_attention"]})",
            kBad, "layer_types: 1 entries for 3 layers"},
        Refusal{R"({"architectures": ["Qwen3ForCausalLM"], "layer_types": ["chunked_attention"]})",
                kUnsupported, "layer_types[0]: the layer type \"chunked_attention\" is not supported"},
        Refusal{R"({"architectures": ["Qwen2ForCausalLM"], "layer_types": ["sliding_attention"]})", kBad,
                "sliding_attention, but use_sliding_window is off"},
        Refusal{R"({"architectures": ["OlmoForCausalLM"], "clip_qkv": 8.0})", kUnsupported,
                "config.json: clip_qkv: 8.0 is not supported, only null"},
        Refusal{R"({"architectures": ["GraniteForCausalLM"], "residual_multiplier": 0})", kBad,
                "residual_multiplier: 0 is outside (0, 1e9)"},
        Refusal{R"({"architectures": ["Glm4MoeForCausalLM"], "n_routed_experts": 4, "num_experts_per_tok": 2,
                    "moe_intermediate_size": 64, "n_group": 4})",
                kBad, "4 experts do not make 4 groups of at least 2"},
        Refusal{
            R"({"architectures": ["DeepseekV2ForCausalLM"], "n_routed_experts": 4, "num_experts_per_tok": 2,
                    "moe_intermediate_size": 64, "topk_method": "noaux_tc"})",
            kUnsupported, "topk_method: \"noaux_tc\" is not supported (greedy, group_limited_greedy)"},
        Refusal{R"({"architectures": ["Qwen3MoeForCausalLM"]})", kBad, "the key \"num_experts\" is missing"},
        Refusal{R"({"architectures": ["DeepseekV2ForCausalLM"], "norm_topk_prob": true})", kUnsupported,
                "norm_topk_prob: only false is supported"},
        Refusal{R"({"architectures": ["Ernie4_5_MoeForCausalLM"], "use_bias": true})", kUnsupported,
                "use_bias: only false is supported"},
        Refusal{R"({"architectures": ["AfmoeForCausalLM"], "route_norm": false})", kUnsupported,
                "route_norm: only true is supported"},
        Refusal{
            R"({"architectures": ["Glm4MoeLiteForCausalLM"], "n_routed_experts": 4, "num_experts_per_tok": 2,
                    "moe_intermediate_size": 64, "mlp_layer_types": ["dense"]})",
            kBad, "mlp_layer_types: 1 entries for 3 layers"},
        Refusal{
            R"({"architectures": ["Glm4MoeLiteForCausalLM"], "n_routed_experts": 4, "num_experts_per_tok": 2,
                    "moe_intermediate_size": 64, "mlp_layer_types": ["wide", "dense", "dense"]})",
            kBad, "mlp_layer_types[0]: \"wide\" is no kind of layer"},
        Refusal{R"({"architectures": ["Qwen3_5ForCausalLM"], "layer_types": ["linear_attention"]})", kBad,
                "layer_types: 1 entries for 3 layers"},
        Refusal{R"({"architectures": ["Qwen3_5ForCausalLM"], "layer_types": ["sliding_attention"]})",
                kUnsupported, "layer_types[0]: the layer type \"sliding_attention\" is not supported"},
        Refusal{R"({"architectures": ["Qwen3_5ForCausalLM"], "linear_num_key_heads": 5})", kBad,
                "linear_num_value_heads 32 is no multiple of linear_num_key_heads 5"},
        Refusal{R"({"architectures": ["Qwen3_5ForCausalLM"], "linear_key_head_dim": 16777216})", kBad,
                "linear attention with 32 heads of 16777216 and 128 features is too large"},
        Refusal{R"({"architectures": ["Qwen3_5ForCausalLM"], "linear_conv_kernel_dim": 0})", kBad,
                "linear_conv_kernel_dim: 0 is outside [1, 1024]"},
        Refusal{R"({"eos_token_id": "</s>"})", kBad, "eos_token_id: expected an integer, got \"</s>\""}));

TEST(DecoderSpec, ReadsALlama) {
  const DecoderSpec spec = spec_with("{}");
  EXPECT_EQ(spec.architecture, "LlamaForCausalLM");
  EXPECT_EQ(spec.head_dim, 16);
  EXPECT_EQ(spec.ropes.front().rotary_dim, 16);
  EXPECT_EQ(spec.ropes.front().theta, 10000.0);
  EXPECT_FALSE(spec.qkv_bias || spec.output_bias || spec.mlp_bias || spec.tie_word_embeddings ||
               spec.query_key_norm);
  EXPECT_THAT(spec.eos_tokens, ElementsAre(2, 7));
  EXPECT_EQ(spec.bos_token, 1);
  EXPECT_THAT(spec.window, ElementsAre(0, 0, 0));
  EXPECT_EQ(spec.norm_name(2, NormRole::mlp), "model.layers.2.post_attention_layernorm");
  EXPECT_EQ(spec.norm_name(2, NormRole::query), "");
}

TEST(DecoderSpec, LinearsComeInForwardOrderWithTheirShapes) {
  const auto linears = spec_with(R"({"head_dim": 8, "attention_bias": true})").linears(1);
  ASSERT_EQ(linears.size(), 7u);
  EXPECT_EQ(linears[1].name, "model.layers.1.self_attn.k_proj");
  EXPECT_EQ(linears[1].out_features, 16);
  EXPECT_TRUE(linears[1].bias);
  EXPECT_EQ(linears[3].in_features, 32);
  EXPECT_TRUE(linears[3].bias);
  EXPECT_EQ(linears[6].name, "model.layers.1.mlp.down_proj");
  EXPECT_EQ(linears[6].in_features, 96);
  EXPECT_FALSE(linears[6].bias);
}

TEST(DecoderSpec, FamiliesDifferByTheirRows) {
  const auto qwen2 = spec_with(R"({"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": true,
                                   "sliding_window": 9, "max_window_layers": 2})");
  EXPECT_TRUE(qwen2.qkv_bias);
  EXPECT_FALSE(qwen2.output_bias);
  EXPECT_THAT(qwen2.window, ElementsAre(0, 0, 9));
  const auto qwen3 = spec_with(R"({"architectures": ["Qwen3ForCausalLM"]})");
  EXPECT_TRUE(qwen3.query_key_norm);
  EXPECT_EQ(qwen3.head_dim, 128);
  EXPECT_EQ(qwen3.norm_name(0, NormRole::key), "model.layers.0.self_attn.k_norm");
  EXPECT_THAT(spec_with(R"({"architectures": ["MistralForCausalLM"]})").window,
              ElementsAre(4096, 4096, 4096));
}

TEST(DecoderSpec, ModelTypeStandsInForMissingArchitectures) {
  EXPECT_EQ(spec_with(R"({"architectures": null, "model_type": "qwen2"})").architecture, "Qwen2ForCausalLM");
}

/// As transformers' config classes decide it.
TEST(DecoderSpec, WindowsFollowTheRuleOfTheFamily) {
  const auto windows = [](const std::string& architecture, const std::string& keys) {
    return spec_with(
               R"({"num_hidden_layers": 4, "sliding_window": 9, "num_experts": 4, "num_experts_per_tok": 2,
                         "moe_intermediate_size": 64, "shared_expert_intermediate_size": 64,
                         "architectures": [")" +
               architecture + "\"]" + keys + "}")
        .window;
  };
  EXPECT_THAT(windows("Qwen3MoeForCausalLM", ""), ElementsAre(0, 0, 0, 0));
  EXPECT_THAT(windows("Qwen3MoeForCausalLM", R"(, "use_sliding_window": true)"), ElementsAre(9, 9, 9, 9));
  EXPECT_THAT(windows("Qwen2MoeForCausalLM", ""), ElementsAre(0, 0, 0, 0));
  EXPECT_THAT(windows("Qwen2MoeForCausalLM", R"(, "use_sliding_window": true, "max_window_layers": 2)"),
              ElementsAre(9, 0, 0, 0));
  const auto first_window = [&](const std::string& architecture) {
    const auto found = windows(architecture, R"(, "num_hidden_layers": 81, "use_sliding_window": true)");
    return std::ranges::find(found, 9) - found.begin();
  };
  EXPECT_EQ(first_window("Qwen2ForCausalLM"), 28);
  EXPECT_EQ(first_window("Qwen3ForCausalLM"), 28);
  EXPECT_EQ(first_window("Qwen2_5_VLForConditionalGeneration"), 80);
  EXPECT_THAT(windows("MistralForCausalLM", ""), ElementsAre(9, 9, 9, 9));
  EXPECT_THAT(windows("Gemma2ForCausalLM", ""), ElementsAre(9, 0, 9, 0));
  EXPECT_THAT(windows("Gemma3ForCausalLM", R"(, "sliding_window_pattern": 3)"), ElementsAre(9, 9, 0, 9));
  EXPECT_THAT(windows("Gemma3ForCausalLM", ""), ElementsAre(9, 9, 9, 9));
  EXPECT_THAT(windows("Cohere2ForCausalLM", ""), ElementsAre(9, 9, 9, 0));
  EXPECT_THAT(windows("AfmoeForCausalLM", R"(, "global_attn_every_n_layers": 2)"), ElementsAre(9, 0, 9, 0));
}

TEST(DecoderSpec, SomeFamiliesRotateLayersWithAWindowOnly) {
  const auto ropes = [](const std::string& architecture, const std::string& keys) {
    return spec_with(R"({"num_hidden_layers": 4, "sliding_window": 9, "architectures": [")" + architecture +
                     "\"]" + keys + "}")
        .rope_of_layer;
  };
  EXPECT_THAT(ropes("Cohere2ForCausalLM", ""), ElementsAre(0, 0, 0, -1));
  EXPECT_THAT(ropes("Exaone4ForCausalLM", ""), ElementsAre(0, 0, 0, -1));
  EXPECT_THAT(ropes("Olmo3ForCausalLM", ""), ElementsAre(1, 1, 1, 0));
}

TEST(DecoderSpec, ExpertsStandWhereTheRuleOfTheFamilySays) {
  const auto layers = [](const std::string& architecture, const std::string& keys) {
    return spec_with(
               R"({"num_hidden_layers": 4, "num_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
                   "moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 64, "architectures": [")" +
               architecture + "\"]" + keys + "}")
        .moe->layers;
  };
  EXPECT_THAT(layers("DeepseekV2ForCausalLM", ""), ElementsAre(true, true, true, true));
  EXPECT_THAT(layers("DeepseekV2ForCausalLM", R"(, "first_k_dense_replace": 3)"),
              ElementsAre(false, false, false, true));
  EXPECT_THAT(layers("Glm4MoeForCausalLM", ""), ElementsAre(false, true, true, true));
  EXPECT_THAT(layers("Glm4MoeLiteForCausalLM", ""), ElementsAre(false, true, true, true));
  EXPECT_THAT(layers("AfmoeForCausalLM", R"(, "num_dense_layers": 2)"),
              ElementsAre(false, false, true, true));
  EXPECT_THAT(layers("Ernie4_5_MoeForCausalLM", ""), ElementsAre(false, true, true, true));
  EXPECT_THAT(layers("Ernie4_5_MoeForCausalLM", R"(, "moe_layer_interval": 2, "moe_layer_end_index": 2)"),
              ElementsAre(false, true, false, false));
}

TEST(DecoderSpec, LinearAttentionStandsWhereLayerTypesOrTheIntervalSay) {
  const auto layers = [](const std::string& keys) {
    return spec_with(R"({"num_hidden_layers": 4, "architectures": ["Qwen3_5ForCausalLM"])" + keys + "}")
        .linear_attention->layers;
  };
  EXPECT_THAT(layers(""), ElementsAre(true, true, true, false));
  EXPECT_THAT(layers(R"(, "full_attention_interval": 2)"), ElementsAre(true, false, true, false));
  EXPECT_THAT(layers(R"(, "full_attention_interval": 2, "layer_types": ["full_attention", "linear_attention",
                          "linear_attention", "full_attention"])"),
              ElementsAre(false, true, true, false));
}

/// The names of a layer's linears, and of the norms that not every layer has.
TEST(DecoderSpec, LayersWithLinearAttentionHaveOtherParts) {
  const DecoderSpec spec = spec_with(R"({"num_hidden_layers": 4, "architectures": ["Qwen3_5ForCausalLM"]})");
  EXPECT_EQ(spec.norm_name(0, NormRole::query), "");
  EXPECT_EQ(spec.norm_name(3, NormRole::query), "model.layers.3.self_attn.q_norm");
  EXPECT_EQ(spec.state_tensor_name(0, StateTensor::log_decay), "model.layers.0.linear_attn.A_log");
  EXPECT_EQ(spec.state_tensor_name(3, StateTensor::log_decay), "");
  EXPECT_EQ(spec.linears(0).front().id, LinearId(LinearRole::state_q));
  EXPECT_EQ(spec.linears(3).front().id, LinearId(LinearRole::q));
}

/// Of each head its query and its gate; of each key head its query and key and the values and gates it
/// serves.
TEST(DecoderSpec, FusedMatricesOfHybridsKeepHeadsTogether) {
  const DecoderSpec spec = spec_with(R"({"architectures": ["Qwen3NextForCausalLM"], "head_dim": 16,
      "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
      "shared_expert_intermediate_size": 64, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
      "linear_key_head_dim": 8, "linear_value_head_dim": 16, "full_attention_interval": 2})");
  const auto rows = [&](int64_t layer, LinearRole role) {
    for (const LinearSlot& slot : spec.linears(layer)) {
      if (slot.id == LinearId(role))
        return std::vector<int64_t>{slot.rows.count, slot.rows.first, slot.rows.block, slot.rows.stride};
    }
    return std::vector<int64_t>{};
  };
  EXPECT_THAT(rows(0, LinearRole::state_v), ElementsAre(160, 16, 32, 80));
  EXPECT_THAT(rows(0, LinearRole::state_gate), ElementsAre(160, 48, 32, 80));
  EXPECT_THAT(rows(0, LinearRole::state_decay), ElementsAre(8, 2, 2, 4));
  EXPECT_THAT(rows(1, LinearRole::attention_gate), ElementsAre(128, 16, 16, 32));
}

constexpr std::string_view kGemma3 = R"({
  "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "eos_token_id": [1, 106],
  "text_config": {"model_type": "gemma3_text", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
                  "eos_token_id": 3}})";

TEST(DecoderSpec, TheTextPartOfAMultimodalModelIsAFamilyOfTheTable) {
  const Json config = parse_json(kGemma3, "config.json");
  DecoderSpec spec = make_decoder_spec({config, "config.json"});
  EXPECT_EQ(spec.architecture, "Gemma3ForConditionalGeneration");
  EXPECT_EQ(spec.heads, 8);
  EXPECT_EQ(spec.vocab_size, 262208);
  EXPECT_TRUE(spec.tie_word_embeddings);
  EXPECT_THAT(spec.eos_tokens, ElementsAre(1, 106));
  EXPECT_EQ(spec.embedding_name, "model.embed_tokens.weight");
  DecoderSpec prefixed = spec;
  prefixed.change_prefix(spec.other_prefixes.at(0));
  EXPECT_EQ(prefixed.embedding_name, "language_model.model.embed_tokens.weight");
  EXPECT_EQ(prefixed.head_name, "language_model.lm_head");
  spec.change_prefix(spec.other_prefixes.at(1));
  EXPECT_EQ(spec.norm_name(1, NormRole::mlp), "model.language_model.layers.1.pre_feedforward_layernorm");
  EXPECT_EQ(spec.head_name, "lm_head");
}

DecoderSpec spec_of(std::string_view config, std::span<const Family> more = {}) {
  const Json json = parse_json(config, "config.json");
  return make_decoder_spec({json, "config.json"}, more);
}

/// As llava-hf/llava-1.5-7b-hf publishes it.
TEST(DecoderSpec, Llava15SaysOnlyWhatDiffersFromTheDefaults) {
  const auto spec = spec_of(R"({
    "architectures": ["LlavaForConditionalGeneration"], "ignore_index": -100, "image_token_index": 32000,
    "model_type": "llava", "pad_token_id": 32001, "projector_hidden_act": "gelu",
    "text_config": {"_name_or_path": "lmsys/vicuna-7b-v1.5", "architectures": ["LlamaForCausalLM"],
                    "max_position_embeddings": 4096, "model_type": "llama", "rms_norm_eps": 1e-05,
                    "torch_dtype": "float16", "vocab_size": 32064},
    "tie_word_embeddings": false, "torch_dtype": "float16", "vocab_size": 32064})");
  EXPECT_EQ(spec.hidden_size, 4096);
  EXPECT_EQ(spec.intermediate_size, 11008);
  EXPECT_EQ(spec.layers, 32);
  EXPECT_EQ(spec.heads, 32);
  EXPECT_EQ(spec.kv_heads, 32);
  EXPECT_EQ(spec.vocab_size, 32064);
  EXPECT_EQ(spec.max_position_embeddings, 4096);
  EXPECT_EQ(spec.norm.epsilon, 1e-5);
  EXPECT_FALSE(spec.tie_word_embeddings);
}

/// As google/gemma-3-4b-pt publishes it.
TEST(DecoderSpec, Gemma34BSaysOnlyWhatDiffersFromTheDefaults) {
  const auto spec = spec_of(R"({
    "architectures": ["Gemma3ForConditionalGeneration"], "eos_token_id": [1, 106], "model_type": "gemma3",
    "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
                    "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
                    "sliding_window": 1024}})");
  EXPECT_EQ(spec.hidden_size, 2560);
  EXPECT_EQ(spec.intermediate_size, 10240);
  EXPECT_EQ(spec.layers, 34);
  EXPECT_EQ(spec.heads, 8);
  EXPECT_EQ(spec.kv_heads, 4);
  EXPECT_EQ(spec.head_dim, 256);
  EXPECT_EQ(spec.vocab_size, 262208);
  EXPECT_TRUE(spec.tie_word_embeddings);
}

TEST(DecoderSpec, ATextPartMaySayNothing) {
  const auto hidden_size = [](const std::string& type) {
    return spec_of(R"({"architectures": null, "text_config": {}, "model_type": ")" + type + "\"}")
        .hidden_size;
  };
  EXPECT_EQ(hidden_size("llava"), 4096);
  EXPECT_EQ(hidden_size("mistral3"), 4096);
  EXPECT_EQ(hidden_size("gemma3"), 2304);
  EXPECT_EQ(hidden_size("qwen2_5_vl"), 8192);
  EXPECT_EQ(spec_of(R"({"model_type": "mistral3", "text_config": {}})").intermediate_size, 14336);
}

/// As transformers' config classes decide it.
TEST(DecoderSpec, WhoTiesEmbeddingsDependsOnTheClass) {
  const auto ties = [](const std::string& type) {
    std::string result;
    for (const char* outer : {"", R"(, "tie_word_embeddings": true)", R"(, "tie_word_embeddings": false)"}) {
      for (const char* inner : {"", R"("tie_word_embeddings": true)", R"("tie_word_embeddings": false)"}) {
        const auto spec =
            spec_of(R"({"model_type": ")" + type + R"(", "text_config": {)" + inner + "}" + outer + "}");
        result += spec.tie_word_embeddings ? '1' : '0';
      }
      result += ' ';
    }
    return result;
  };
  EXPECT_EQ(ties("llava"), "010 111 010 ");
  EXPECT_EQ(ties("qwen2_5_vl"), "010 111 010 ");
  EXPECT_EQ(ties("mistral3"), "111 111 000 ");
  EXPECT_EQ(ties("gemma3"), "111 111 000 ");
}

TEST(DecoderSpec, FamiliesBesideTheTableGoBeforeIt) {
  const Family own{.architecture = "LlavaForConditionalGeneration",
                   .model_type = "own",
                   .names = kLlamaNames,
                   .default_epsilon = 0.25};
  const Json config = {{"architectures", {own.architecture}},
                       {"hidden_size", 64},
                       {"intermediate_size", 96},
                       {"num_hidden_layers", 1},
                       {"num_attention_heads", 4},
                       {"vocab_size", 96}};
  const auto spec = spec_of(config.dump(), {&own, 1});
  EXPECT_EQ(spec.norm.epsilon, 0.25);
  EXPECT_FALSE(spec.text_part);
}

TEST(DecoderSpec, AFamilyBesideTheTableMayBeATextPart) {
  const Family own{
      .architecture = "OwnForCausalLM",
      .model_type = "own",
      .names = kLlamaNames,
      .default_epsilon = 0.25,
      .text_sizes = {.hidden_size = 64, .intermediate_size = 96, .layers = 1, .heads = 4, .vocab_size = 96}};
  const auto spec = spec_of(R"({"model_type": "llava", "text_config": {"model_type": "own"}})", {&own, 1});
  EXPECT_EQ(spec.norm.epsilon, 0.25);
  EXPECT_EQ(spec.hidden_size, 64);
  EXPECT_TRUE(spec.text_part);
}

TEST(DecoderSpec, AClassThatIsOnlyATextPartIsNoArchitecture) {
  const auto known = known_architectures();
  EXPECT_THAT(known, Not(Contains("Qwen2_5_VLTextModel")));
  EXPECT_THAT(known, Contains("Qwen2_5_VLForConditionalGeneration"));
}

TEST(DecoderSpec, AnUnknownTextPartIsRefusedByItsName) {
  Json config = parse_json(kGemma3, "config.json");
  config["text_config"]["model_type"] = "mamba";
  try {
    make_decoder_spec({config, "config.json"});
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::unsupported);
    EXPECT_THAT(error.what(),
                HasSubstr("config.json: text_config: the architecture \"mamba\" is not supported"));
  }
}

/// As transformers' attribute_map has it; the family's own key counts where a file has both.
TEST(DecoderSpec, TheNumberOfExpertsHasTwoNames) {
  const auto experts = [](const std::string& architecture, const std::string& keys) {
    const MoeSpec moe = *spec_with(R"({"num_experts_per_tok": 2, "moe_intermediate_size": 64,
                                       "first_k_dense_replace": 0, "architectures": [")" +
                                   architecture + "\"], " + keys + "}")
                             .moe;
    EXPECT_EQ(moe.experts_per_token, 2);
    return moe.experts;
  };
  EXPECT_EQ(experts("Qwen3MoeForCausalLM", R"("num_local_experts": 16)"), 16);
  EXPECT_EQ(experts("Qwen3MoeForCausalLM", R"("num_local_experts": 16, "num_experts": 8)"), 8);
  EXPECT_EQ(experts("MixtralForCausalLM", R"("num_experts": 16)"), 16);
  for (const char* name : {"DeepseekV3ForCausalLM", "Glm4MoeForCausalLM", "Glm4MoeLiteForCausalLM"})
    EXPECT_EQ(experts(name, R"("num_local_experts": 16)"), 16) << name;
  EXPECT_EQ(experts("DeepseekV2ForCausalLM", R"("num_experts": 16)"), 16);
  EXPECT_EQ(experts("Ernie4_5_MoeForCausalLM", R"("num_experts": 16)"), 16);
}

TEST(DecoderSpec, SharedExpertsMayBeNone) {
  const auto width = [](const std::string& keys) {
    return spec_with(R"({"architectures": ["Ernie4_5_MoeForCausalLM"], "moe_num_experts": 4, "moe_k": 2,
                         "moe_intermediate_size": 64)" +
                     keys + "}")
        .moe->shared_intermediate;
  };
  EXPECT_EQ(width(""), 128);
  EXPECT_EQ(width(R"(, "moe_num_shared_experts": 0)"), 0);
}

TEST(DecoderSpec, KeysOfOtherFamiliesAreNotRead) {
  const auto pairs = [](const std::string& architecture) {
    return spec_with(R"({"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
                         "n_group": 1, "topk_group": 1, "rope_interleave": false, "architectures": [")" +
                     architecture + "\"]}")
        .rope_pairs;
  };
  EXPECT_EQ(pairs("DeepseekV3ForCausalLM"), RopePairs::halves);
  EXPECT_EQ(pairs("Glm4MoeLiteForCausalLM"), RopePairs::halves);
  EXPECT_EQ(pairs("DeepseekV2ForCausalLM"), RopePairs::neighbours);
  EXPECT_EQ(spec_with(R"({"architectures": ["OlmoForCausalLM"], "rms_norm_eps": 0.5})").norm.epsilon, 1e-5);
}

TEST(DecoderSpec, BothSpellingsOfRopeGiveTheSame) {
  const auto old = spec_with(R"({"rope_theta": 5000, "rope_scaling": {"type": "yarn", "factor": 4.0,
                                 "original_max_position_embeddings": 512}})")
                       .ropes.front();
  const auto fresh = spec_with(R"({"rope_parameters": {"rope_type": "yarn", "rope_theta": 5000, "factor": 4.0,
                                   "original_max_position_embeddings": 512}})")
                         .ropes.front();
  for (const RopeSpec& rope : {old, fresh}) {
    EXPECT_EQ(rope.scaling, RopeScaling::yarn);
    EXPECT_EQ(rope.theta, 5000);
    EXPECT_EQ(rope.factor, 4);
    EXPECT_EQ(rope.original_max_position_embeddings, 512);
    EXPECT_EQ(rope.beta_fast, 32);
  }
}

TEST(DecoderSpec, TheRatioOfLengthsStandsInForAMissingFactor) {
  const auto rope =
      spec_with(R"({"original_max_position_embeddings": 512, "rope_scaling": {"type": "longrope",
      "short_factor": [1,1,1,1,1,1,1,1], "long_factor": [2,2,2,2,2,2,2,2]}})")
          .ropes.front();
  EXPECT_EQ(rope.factor, 4);
  EXPECT_EQ(rope.long_factor.size(), 8u);
}

TEST(DecoderSpec, NegativeTokenIdsMeanNone) {
  const auto spec = spec_with(R"({"eos_token_id": -1, "bos_token_id": null})");
  EXPECT_TRUE(spec.eos_tokens.empty());
  EXPECT_FALSE(spec.bos_token);
}

}  // namespace
}  // namespace salient
