#include "salient/oneshot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "awq/scaled_layer.h"
#include "base/error.h"
#include "quant/group_quantize.h"
#include "runtime/decoder.h"
#include "support/compare_checkpoints.h"
#include "support/error_matcher.h"
#include "support/golden_model.h"
#include "support/temporary_directory.h"
#include "support/tiny_model.h"

namespace salient {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

template <typename T>
bool same(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && std::ranges::equal(a.values<T>(), b.values<T>());
}

/// The checkpoint that results when every linear of `directory` is replaced by its dequantized weights in
/// f32.
void write_dequantized(const ModelWeights& weights, const std::string& directory) {
  const DecoderSpec& spec = weights.spec();
  CheckpointWriter writer({.target = directory});
  const auto add = [&](const std::string& name, const Tensor& tensor) {
    writer.add(name, tensor.to(DType::f32));
  };
  add(spec.embedding_name, weights.embedding());
  add(spec.final_norm_name + ".weight", weights.final_norm().weight);
  for (int64_t layer = 0; layer < spec.layers; ++layer) {
    const LayerWeights stored = weights.layer(layer);
    const ScaledLayer f32(spec, stored);
    for (const auto& slot : spec.linears(layer)) {
      add(slot.name + ".weight", f32.weight(slot.id));
      if (slot.bias) add(slot.name + ".bias", f32.bias(slot.id));
    }
    for (const NormRole role : {NormRole::attention, NormRole::mlp})
      add(spec.norm_name(layer, role) + ".weight", f32.norm(role).weight);
  }
  Json config = weights.checkpoint().config();
  config.erase("quantization_config");
  writer.add_file("config.json", config.dump());
  writer.finish();
}

class RoundTrip : public ::testing::TestWithParam<std::tuple<Format, bool, int64_t>> {
 protected:
  RoundTrip() {
    TinyModel{.architecture = "Qwen2ForCausalLM"}.write(path("dense"));
    options_.model = path("dense");
    options_.output = path("quantized");
    options_.format = std::get<0>(GetParam());
    options_.recipe.awq.reset();
    options_.recipe.quantization.scheme = std::get<1>(GetParam()) ? "W4A16" : "W4A16_ASYM";
    options_.recipe.quantization.group_size = std::get<2>(GetParam());
  }
  std::string path(const std::string& name) const { return (scratch_.path() / name).string(); }

  TemporaryDirectory scratch_;
  OneshotOptions options_;
};

TEST_P(RoundTrip, WhatIsReadBackIsWhatWasRounded) {
  oneshot(options_);
  const ModelWeights dense(path("dense"));
  const ModelWeights quantized(path("quantized"));
  ASSERT_TRUE(quantized.quantization().has_value());
  EXPECT_EQ(quantized.quantization()->format, options_.format);
  const DType scale_dtype = options_.format == Format::autoawq_gemm ? DType::f16 : DType::bf16;
  // AutoAWQ's layout always stores zeros; a symmetric scheme comes back as zeros of 8.
  QuantizationScheme scheme{.symmetric = std::get<1>(GetParam()), .group_size = std::get<2>(GetParam())};
  for (int64_t layer = 0; layer < dense.spec().layers; ++layer) {
    const LayerWeights before = dense.layer(layer);
    const LayerWeights after = quantized.layer(layer);
    for (const auto& slot : dense.spec().linears(layer)) {
      const QuantizedWeight expected =
          quantize_to_nearest(before[slot.id].dense.to(DType::f32), {}, scheme, scale_dtype);
      ASSERT_TRUE(after[slot.id].quantized.has_value()) << slot.name;
      const QuantizedWeight& found = *after[slot.id].quantized;
      EXPECT_TRUE(same_bytes(found.codes, expected.codes)) << slot.name;
      EXPECT_TRUE(same_bytes(found.scales, expected.scales)) << slot.name;
      EXPECT_TRUE(same<float>(dequantize(found), dequantize(expected))) << slot.name;
    }
  }
}

TEST_P(RoundTrip, LogitsAreThoseOfTheDequantizedWeights) {
  oneshot(options_);
  const ModelWeights quantized(path("quantized"));
  write_dequantized(quantized, path("dequantized"));
  const auto backend = make_cpu_backend();
  const auto tokens = random_windows(1, 24, 96).front();
  const auto logits_of = [&](const std::string& name) {
    const Decoder decoder = Decoder::load(path(name), *backend);
    KvCache cache = decoder.make_cache();
    return decoder.forward(tokens, cache, {LogitRows::all});
  };
  const Tensor found = logits_of("quantized");
  const Tensor expected = logits_of("dequantized");
  float largest = 0;
  float difference = 0;
  for (size_t i = 0; i < found.values<float>().size(); ++i) {
    largest = std::max(largest, std::fabs(expected.values<float>()[i]));
    difference = std::max(difference, std::fabs(expected.values<float>()[i] - found.values<float>()[i]));
  }
  EXPECT_LT(difference / largest, 1e-5f);
}

TEST_P(RoundTrip, ThePlanTellsTheSizeThatIsWritten) {
  const OneshotPlan plan = plan_oneshot(options_);
  const OneshotReport report = oneshot(options_);
  EXPECT_EQ(plan.bytes_before, report.bytes_before);
  EXPECT_EQ(plan.bytes_after, Checkpoint(path("quantized")).byte_size());
}

INSTANTIATE_TEST_SUITE_P(Formats, RoundTrip,
                         ::testing::Combine(::testing::Values(Format::pack_quantized, Format::autoawq_gemm),
                                            ::testing::Bool(), ::testing::Values(32, 64, -1)));

class EveryFamily : public ::testing::TestWithParam<std::tuple<const char*, QuantizationScheme>> {};

/// Fused, interleaved, transposed and per-expert matrices are taken apart, rounded and put together again.
TEST_P(EveryFamily, ComesBackAsItWasRounded) {
  const TemporaryDirectory scratch;
  const std::string source = (scratch.path() / "dense").string();
  const std::string target = (scratch.path() / "quantized").string();
  const auto [architecture, scheme] = GetParam();
  TinyModel{.architecture = architecture, .extra = expert_keys()}.write(source);
  OneshotOptions options;
  options.model = source;
  options.output = target;
  options.recipe.awq.reset();
  options.recipe.quantization.config_groups = {
      {.name = "all",
       .weights = {
           .num_bits = scheme.num_bits, .symmetric = scheme.symmetric, .group_size = scheme.group_size}}};
  oneshot(options);
  const ModelWeights dense(source);
  const ModelWeights quantized(target);
  for (int64_t layer = 0; layer < dense.spec().layers; ++layer) {
    const LayerWeights before = dense.layer(layer);
    const LayerWeights after = quantized.layer(layer);
    for (size_t i = 0; i < kStateTensors; ++i) {
      const std::string name = dense.spec().state_tensor_name(layer, static_cast<StateTensor>(i));
      if (name.empty()) continue;
      EXPECT_TRUE(same_bytes(quantized.checkpoint().tensor(name), dense.checkpoint().tensor(name))) << name;
    }
    for (const auto& slot : dense.spec().linears(layer)) {
      if (slot.bias) {
        EXPECT_TRUE(same_bytes(after[slot.id].bias, before[slot.id].bias)) << slot.name;
      }
      if (slot.id.role == LinearRole::router || slot.id.role == LinearRole::shared_router) {
        EXPECT_TRUE(same_bytes(after[slot.id].dense, before[slot.id].dense)) << slot.name;
        continue;
      }
      const auto expected = quantize_to_nearest(before[slot.id].dense.to(DType::f32), {}, scheme,
                                                before[slot.id].dense.dtype());
      ASSERT_TRUE(after[slot.id].quantized.has_value()) << slot.name;
      EXPECT_TRUE(same<float>(dequantize(*after[slot.id].quantized), dequantize(expected))) << slot.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Architectures, EveryFamily,
    ::testing::Combine(
        ::testing::Values("Phi3ForCausalLM", "CohereForCausalLM", "OPTForCausalLM", "GPT2LMHeadModel",
                          "BloomForCausalLM", "MixtralForCausalLM", "Qwen2MoeForCausalLM",
                          "Qwen3MoeForCausalLM", "DeepseekV3ForCausalLM", "DeepseekV2ForCausalLM",
                          "Glm4MoeForCausalLM", "Glm4MoeLiteForCausalLM", "Ernie4_5_MoeForCausalLM",
                          "AfmoeForCausalLM", "Qwen3NextForCausalLM", "Qwen3_5ForCausalLM",
                          "Qwen3_5MoeForCausalLM", "GraniteForCausalLM", "SeedOssForCausalLM",
                          "Cohere2ForCausalLM", "OlmoForCausalLM", "Olmo2ForCausalLM", "Olmo3ForCausalLM",
                          "Exaone4ForCausalLM", "Qwen2_5_VLForConditionalGeneration"),
        ::testing::Values(QuantizationScheme{.num_bits = 4, .symmetric = false, .group_size = 32},
                          QuantizationScheme{.num_bits = 3, .symmetric = true, .group_size = 32},
                          QuantizationScheme{.num_bits = 8, .symmetric = false, .group_size = 16},
                          QuantizationScheme{.num_bits = 8, .symmetric = true, .group_size = -1})));

class Multimodal : public ::testing::TestWithParam<const char*> {};

/// What is no part of the text model comes out as it was, and its linears are said to be dense.
TEST_P(Multimodal, TheRestIsCarriedAlong) {
  const TemporaryDirectory scratch;
  const GoldenModel golden(GetParam());
  const std::string target = (scratch.path() / "quantized").string();
  OneshotOptions options;
  options.model = golden.directory().string();
  options.output = target;
  options.recipe.awq.reset();
  options.recipe.quantization.group_size = 32;
  options.recipe.quantization.ignore = {"lm_head", "re:.*layers.1.self_attn.o_proj$"};
  oneshot(options);
  const ModelWeights dense(options.model);
  const ModelWeights quantized(target);
  int foreign = 0;
  for (const std::string& name : dense.checkpoint().tensor_names()) {
    if (!name.starts_with("vision_tower") && !name.starts_with("visual")) continue;
    ++foreign;
    EXPECT_TRUE(same_bytes(quantized.checkpoint().tensor(name), dense.checkpoint().tensor(name))) << name;
  }
  EXPECT_GT(foreign, 0);
  const auto& ignored = quantized.quantization()->ignore;
  const std::string linear =
      std::string(GetParam()) == "llava" ? "re:(.*\\.)?vision_tower(\\..*)?$" : "re:(.*\\.)?visual(\\..*)?$";
  EXPECT_THAT(ignored, ::testing::Contains(linear));
  EXPECT_THAT(ignored, ::testing::Contains("re:.*lm_head$"));
  EXPECT_THAT(ignored, ::testing::Contains("re:.*layers.1.self_attn.o_proj$"));
  EXPECT_THAT(ignored, ::testing::Not(::testing::Contains(HasSubstr("embed_tokens"))));
  EXPECT_TRUE(quantized.layer(0)[LinearRole::q].quantized.has_value());
}

/// Loaders have other names for the modules than the file: patterns made for the file become endings.
TEST_P(Multimodal, TargetsAreWrittenSoThatALoaderFindsThem) {
  const TemporaryDirectory scratch;
  const GoldenModel golden(GetParam());
  OneshotOptions options;
  options.model = golden.directory().string();
  options.output = (scratch.path() / "quantized").string();
  options.recipe.awq.reset();
  const std::string file_name = ModelWeights(options.model).spec().linear_name(0, LinearRole::down);
  options.recipe.quantization.config_groups = {
      {.name = "rest", .weights = {.num_bits = 4, .group_size = 32}},
      {.name = "one", .targets = {file_name}, .weights = {.num_bits = 8, .group_size = 32}}};
  oneshot(options);
  const ModelWeights quantized(options.output);
  const auto& groups = quantized.quantization()->groups;
  ASSERT_EQ(groups.size(), 2u);
  EXPECT_THAT(groups[0].targets, ::testing::ElementsAre("Linear"));
  EXPECT_THAT(groups[1].targets, ::testing::ElementsAre("re:.*layers.0.mlp.down_proj$"));
  EXPECT_EQ(quantized.layer(0)[LinearRole::down].quantized->scheme.num_bits, 8);
  EXPECT_EQ(quantized.layer(1)[LinearRole::down].quantized->scheme.num_bits, 4);
}

INSTANTIATE_TEST_SUITE_P(Goldens, Multimodal, ::testing::Values("llava", "qwen2_5_vl"));

class Oneshot : public ::testing::Test {
 protected:
  Oneshot() {
    TinyModel{}.write(path("dense"));
    options_.model = path("dense");
    options_.output = path("out");
    options_.recipe.awq.reset();
    options_.recipe.quantization.group_size = 32;
  }
  std::string path(const std::string& name) const { return (scratch_.path() / name).string(); }

  std::string error() const {
    try {
      oneshot(options_);
    } catch (const Error& error) {
      EXPECT_FALSE(fs::exists(path("out")));
      return error.what();
    }
    return "nothing was thrown";
  }

  TemporaryDirectory scratch_;
  OneshotOptions options_;
};

TEST_F(Oneshot, EverythingButTheLinearsIsCopiedByteForByte) {
  oneshot(options_);
  const Checkpoint before(path("dense"));
  const Checkpoint after(path("out"));
  for (const auto* name :
       {"model.embed_tokens.weight", "model.norm.weight", "model.layers.0.input_layernorm.weight"}) {
    EXPECT_TRUE(same_bytes(before.tensor(name), after.tensor(name))) << name;
  }
  EXPECT_FALSE(after.contains("model.layers.0.self_attn.q_proj.weight"));
}

TEST_F(Oneshot, ShardsAndOneFileHoldTheSame) {
  oneshot(options_);
  options_.output = path("sharded");
  options_.shard_size = 20'000;
  oneshot(options_);
  const Checkpoint one(path("out"));
  const Checkpoint many(path("sharded"));
  EXPECT_TRUE(fs::exists(path("sharded") + "/model.safetensors.index.json"));
  ASSERT_EQ(one.tensor_names(), many.tensor_names());
  for (const auto& name : one.tensor_names())
    EXPECT_TRUE(same_bytes(one.tensor(name), many.tensor(name))) << name;
}

TEST_F(Oneshot, IgnoredLinearsStayAsTheyAre) {
  options_.recipe.quantization.ignore = {"lm_head", "re:.*down_proj$"};
  const OneshotReport report = oneshot(options_);
  EXPECT_EQ(report.quantized_linears, 12);
  const auto* name = "model.layers.1.mlp.down_proj.weight";
  EXPECT_TRUE(same_bytes(Checkpoint(path("dense")).tensor(name), Checkpoint(path("out")).tensor(name)));
  const ModelWeights back(path("out"));
  EXPECT_FALSE(back.layer(1)[LinearRole::down].quantized.has_value());
  EXPECT_TRUE(back.layer(1)[LinearRole::up].quantized.has_value());
}

TEST_F(Oneshot, ManyTensorsStayInOneFile) {
  TinyModel{.extra = {{"num_hidden_layers", 40}}}.write(path("deep"));
  options_.model = path("deep");
  oneshot(options_);
  EXPECT_GT(Checkpoint(path("out")).tensor_names().size(), 1000u);
  EXPECT_TRUE(fs::exists(path("out") + "/model.safetensors"));
}

TEST_F(Oneshot, AwqWithoutDataIsRefusedBeforeAnyWork) {
  options_.recipe.awq.emplace();
  EXPECT_THAT(error(), HasSubstr("AWQ needs calibration text"));
}

TEST_F(Oneshot, CancellationLeavesNothing) {
  std::atomic<bool> flag{false};
  options_.cancelled = &flag;
  options_.on_progress = [&](const Progress&) { flag = true; };
  EXPECT_THAT(error(), HasSubstr("stopped on request"));
  EXPECT_TRUE(flag);
  EXPECT_THAT([&] { plan_oneshot(options_); },
              throws_error(ErrorKind::cancelled, ::testing::StrEq("stopped on request")));
  EXPECT_EQ(std::distance(fs::directory_iterator(scratch_.path()), {}), 1);
}

TEST_F(Oneshot, ValuesBeyondF16AreRefusedForGemm) {
  const Json config = TinyModel{}.config();
  const Checkpoint small(path("dense"));
  for (const std::string large : {"model.embed_tokens.weight", "model.layers.1.input_layernorm.weight"}) {
    CheckpointWriter writer({.target = path("large"), .if_exists = OutputDirectory::IfExists::replace});
    for (const auto& name : small.tensor_names()) {
      Tensor tensor = small.tensor(name).to(DType::bf16);
      if (name == large) tensor.mutable_values<BFloat16>()[5] = to_bfloat16(1e6f);
      writer.add(name, tensor);
    }
    writer.add_file("config.json", config.dump());
    writer.finish();
    options_.model = path("large");
    options_.format = Format::autoawq_gemm;
    EXPECT_THAT(error(), HasSubstr(large + ": the value"));
  }
}

TEST_F(Oneshot, SchemesPerLinearComeBack) {
  const auto group = [](std::string name, std::string target, QuantizationArgs args) {
    return ConfigGroup{.name = std::move(name), .targets = {std::move(target)}, .weights = args};
  };
  options_.recipe.quantization = {
      .config_groups = {
          group("rest", "Linear", {.num_bits = 4, .symmetric = false, .group_size = 16}),
          group("wide", "re:.*(up|down)_proj$", {.num_bits = 8, .group_size = 64}),
          group("rows", "re:.*v_proj$", {.num_bits = 8, .symmetric = false, .group_size = -1}),
          group("whole", "re:.*o_proj$",
                {.num_bits = 4, .symmetric = false, .strategy = QuantizationStrategy::tensor})}};
  const OneshotPlan plan = plan_oneshot(options_);
  const OneshotReport report = oneshot(options_);
  EXPECT_EQ(plan.bytes_after, Checkpoint(path("out")).byte_size());
  EXPECT_EQ(report.quantized_linears, 14);
  const ModelWeights dense(path("dense"));
  const ModelWeights back(path("out"));
  EXPECT_EQ(back.quantization()->groups.size(), 4u);
  const auto expect = [&](LinearRole role, const QuantizationScheme& scheme) {
    const auto expected =
        quantize_to_nearest(dense.layer(1)[role].dense.to(DType::f32), {}, scheme, DType::bf16);
    const LayerWeights layer = back.layer(1);
    ASSERT_TRUE(layer[role].quantized.has_value());
    EXPECT_EQ(layer[role].quantized->scheme, scheme);
    EXPECT_TRUE(same<float>(dequantize(*layer[role].quantized), dequantize(expected)));
  };
  expect(LinearRole::q, {.num_bits = 4, .symmetric = false, .group_size = 16});
  expect(LinearRole::down, {.num_bits = 8, .symmetric = true, .group_size = 64});
  expect(LinearRole::v, {.num_bits = 8, .symmetric = false, .group_size = -1});
  expect(LinearRole::o, {.num_bits = 4, .symmetric = false, .group_size = QuantizationScheme::kWholeMatrix});
}

/// The head shares its tensor with the embedding until it becomes integers.
TEST_F(Oneshot, ATiedHeadComesApart) {
  options_.recipe.quantization.ignore = {};
  const OneshotPlan plan = plan_oneshot(options_);
  ASSERT_TRUE(plan.head.has_value());
  oneshot(options_);
  EXPECT_EQ(plan.bytes_after, Checkpoint(path("out")).byte_size());
  const ModelWeights dense(path("dense"));
  const ModelWeights back(path("out"));
  EXPECT_TRUE(dense.spec().tie_word_embeddings);
  EXPECT_FALSE(back.spec().tie_word_embeddings);
  EXPECT_TRUE(same_bytes(back.embedding(), dense.embedding()));
  const auto expected = quantize_to_nearest(dense.embedding().to(DType::f32), {},
                                            {.symmetric = false, .group_size = 32}, DType::bf16);
  ASSERT_TRUE(back.head().quantized.has_value());
  EXPECT_TRUE(same<float>(dequantize(*back.head().quantized), dequantize(expected)));
  const auto backend = make_cpu_backend();
  const Decoder decoder = Decoder::load(path("out"), *backend);
  KvCache cache = decoder.make_cache();
  EXPECT_EQ(decoder.forward(std::vector<int32_t>{1, 2, 3}, cache, {LogitRows::all}).dim(0), 3);
}

/// A file of a tied pair may hold the head's tensor instead of the embedding's.
TEST_F(Oneshot, AHeadWithoutEmbeddingBringsOneAlong) {
  const Checkpoint tied(path("dense"));
  CheckpointWriter writer({.target = path("by-head")});
  for (const auto& name : tied.tensor_names()) {
    writer.add(name == "model.embed_tokens.weight" ? "lm_head.weight" : name, tied.tensor(name));
  }
  writer.add_file("config.json", TinyModel{}.config().dump());
  writer.finish();
  options_.model = path("by-head");
  options_.recipe.quantization.ignore = {};
  oneshot(options_);
  const ModelWeights back(path("out"));
  EXPECT_TRUE(same_bytes(back.embedding(), tied.tensor("model.embed_tokens.weight")));
  EXPECT_TRUE(back.head().quantized.has_value());
}

/// The record says everything that shaped the weights, also what experts, observers and orders did.
TEST_F(Oneshot, TheRecordOfAModelWithExpertsGivesTheSameBytes) {
  TinyModel{.architecture = "Qwen2MoeForCausalLM",
            .extra = {{"vocab_size", 3072},
                      {"num_experts", 4},
                      {"num_experts_per_tok", 2},
                      {"moe_intermediate_size", 64},
                      {"shared_expert_intermediate_size", 96}}}
      .write(path("experts"));
  const std::string demo = SALIENT_SOURCE_DIR "/examples/demo";
  fs::copy_file(demo + "/model/tokenizer.json", path("experts") + "/tokenizer.json");
  OneshotOptions options;
  options.model = path("experts");
  options.output = path("first");
  options.calibration.datasets = {{.data = demo + "/calibration.txt"}};
  parse_recipe(R"(
AWQModifier: {duo_scaling: both, n_grid: 6}
QuantizationModifier:
  ignore: [lm_head, 're:.*experts\.1\.up_proj$']
  config_groups:
    g: {targets: [Linear], weights: {num_bits: 4, symmetric: false, group_size: 32, actorder: weight}}
    d: {targets: ['re:.*down_proj$'], weights: {num_bits: 8, group_size: 32, observer: mse, observer_kwargs: {norm: 2}}}
salient: {num_calibration_samples: 3, max_seq_length: 40, moe_calibrate_all_experts: false, min_tokens_per_expert: 50,
          propagate_error: false}
)",
               "recipe.yaml", options);
  oneshot(options);
  OneshotOptions again;
  again.model = options.model;
  again.output = path("second");
  read_recipe_file(path("first") + "/recipe.yaml", again);
  again.calibration.datasets = options.calibration.datasets;  // the record names no files
  oneshot(again);
  const Checkpoint first(path("first"));
  const Checkpoint second(path("second"));
  ASSERT_EQ(first.tensor_names(), second.tensor_names());
  for (const auto& name : first.tensor_names()) {
    EXPECT_TRUE(same_bytes(first.tensor(name), second.tensor(name))) << name;
  }
}

TEST_F(Oneshot, AnObserverChangesTheRanges) {
  const auto scales_with = [&](Observer observer) {
    options_.overwrite = true;
    options_.recipe.quantization = {.config_groups = {{.name = "g",
                                                       .weights = {.num_bits = 4,
                                                                   .symmetric = true,
                                                                   .group_size = 32,
                                                                   .observer = observer,
                                                                   .observer_kwargs = {.maxshrink = 0.5}}}}};
    oneshot(options_);
    const Tensor scales = ModelWeights(path("out")).layer(0)[LinearRole::up].quantized->scales.to(DType::f32);
    return std::vector<float>(scales.values<float>().begin(), scales.values<float>().end());
  };
  const auto searched = scales_with(Observer::mse);
  const auto plain = scales_with(Observer::minmax);
  EXPECT_EQ(plain, scales_with(Observer::automatic));  // without AWQ there is no search
  EXPECT_NE(searched, plain);
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_LE(searched[i], plain[i]);
}

TEST_F(Oneshot, WeightsThatAreNotFiniteAreNamed) {
  const Checkpoint good(path("dense"));
  CheckpointWriter writer({.target = path("bad")});
  for (const auto& name : good.tensor_names()) {
    Tensor tensor = good.tensor(name).to(DType::bf16);
    if (name == "model.layers.1.mlp.up_proj.weight") tensor.mutable_values<BFloat16>()[70] = to_bfloat16(NAN);
    writer.add(name, tensor);
  }
  writer.add_file("config.json", TinyModel{}.config().dump());
  writer.finish();
  options_.model = path("bad");
  EXPECT_THAT(error(),
              ::testing::AllOf(HasSubstr("model.layers.1.mlp.up_proj"), HasSubstr("row 1, column 6")));
}

}  // namespace
}  // namespace salient
