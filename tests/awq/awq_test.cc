#include "awq/awq.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "awq/apply.h"
#include "awq/block_loss.h"
#include "awq/mapping.h"
#include "awq/mse_clips.h"
#include "awq/scaled_layer.h"
#include "base/error.h"
#include "base/parallel.h"
#include "support/temporary_directory.h"
#include "support/tiny_model.h"

namespace salient {
namespace {

const Json kNoKeys = Json::object();

struct FamilyCase {
  std::string architecture;
  Json extra;
};

Json expert_keys_with(const Json& more) {
  Json keys = expert_keys();
  keys.update(more);
  return keys;
}

void PrintTo(const FamilyCase& family, std::ostream* out) {
  *out << family.architecture << ' ' << family.extra.dump();
}

class AwqLayer : public ::testing::TestWithParam<FamilyCase> {
 protected:
  AwqLayer() {
    TinyModel{.architecture = GetParam().architecture, .dtype = DType::bf16, .extra = GetParam().extra}.write(
        directory());
    weights_ = std::make_unique<ModelWeights>(directory());
    for (const auto& slot : weights_->spec().linears(0)) linears_[slot.id] = {.scheme = {.group_size = 32}};
    mappings_ = default_mappings(weights_->spec(), 0);
  }

  std::string directory() const { return (scratch_.path() / "model").string(); }

  LayerJob job() const {
    LayerJob result{.backend = *backend_,
                    .exact = *backend_,
                    .spec = weights_->spec(),
                    .layer = 0,
                    .linears = linears_,
                    .mappings = mappings_};
    return result;
  }

  /// The linear behind the attention of layer 0, of whichever kind that is.
  LinearRole output() const { return weights_->spec().has_state(0) ? LinearRole::state_out : LinearRole::o; }

  LayerStream stream() const {
    return LayerStream({.backend = *backend_, .weights = *weights_, .windows = windows_});
  }

  TemporaryDirectory scratch_;
  std::unique_ptr<Backend> backend_ = make_cpu_backend();
  std::unique_ptr<ModelWeights> weights_;
  PerLinear<LinearRounding> linears_;
  std::vector<ResolvedMapping> mappings_;
  std::vector<std::vector<int32_t>> windows_ = random_windows(24, 40, 96);
};

TEST_P(AwqLayer, SmoothingByAnyScalesKeepsWhatALayerComputes) {
  const LayerStream data = stream();
  const LayerWeights original = weights_->layer(0);
  const auto& spec = weights_->spec();
  ScaledLayer changed(spec, original);
  uint32_t seed = 50;
  for (const auto& mapping : default_mappings(spec, 0)) {
    Tensor scales = random_tensor(
        {smooth_channel_count(spec, mapping, original[mapping.balance.front()].in_features())}, seed++);
    for (float& value : scales.mutable_values<float>()) value = std::exp(value);
    changed.apply(mapping, scales.values<float>());
  }
  const Tensor input = data.probe_input();
  const Tensor reference = data.probe(*backend_, 0, prepare_layer(*backend_, original), input);
  const Tensor after = data.probe(*backend_, 0, changed.prepare(*backend_), input);
  EXPECT_LT(equivalence_error(input, reference, after), 1e-5);
}

TEST_P(AwqLayer, LowersTheErrorOfTheOutputBelowPlainRounding) {
  LayerStream with_search = stream();
  const LayerWeights original = weights_->layer(0);
  const QuantizedLayer awq = quantize_layer(job(), {}, original, with_search);
  const QuantizedLayer plain = round_layer(job(), original);
  const LayerStream data = stream();
  const Tensor input = data.probe_input();
  const Tensor reference = data.probe(*backend_, 0, prepare_layer(*backend_, original), input);
  const auto error_of = [&](const LayerWeights& weights) {
    return equivalence_error(input, reference,
                             data.probe(*backend_, 0, prepare_layer(*backend_, weights), input));
  };
  // Where rounding moves a token to other experts, that outweighs every error of a product. Without norms
  // that take a scale, less can be won.
  const bool norms = !weights_->spec().norm_shape(NormRole::attention).empty();
  const double bound = weights_->spec().moe ? 2.0 : norms ? 0.95 : 1.0;
  EXPECT_LT(error_of(awq.weights), bound * error_of(plain.weights));
  EXPECT_LT(awq.report.equivalence_error, 1e-5);
  ASSERT_EQ(awq.report.mappings.size(), default_mappings(weights_->spec(), 0).size());
  for (const auto& mapping : awq.report.mappings) {
    EXPECT_LE(mapping.loss_after, mapping.loss_before) << mapping.mapping;
    EXPECT_EQ(mapping.left_alone, mapping.loss_after == mapping.loss_before) << mapping.mapping;
  }
  EXPECT_LT(awq.report.clip_loss_after, awq.report.clip_loss_before);
}

/// The layer with what lies behind the attention silent: then its output shows attention alone.
LayerWeights without_mlp(LayerWeights weights) {
  for (auto& [id, linear] : weights.linears) {
    if (id.role != LinearRole::down && id.role != LinearRole::expert_down &&
        id.role != LinearRole::shared_down) {
      continue;
    }
    linear.dense = Tensor::zeros(linear.dense.dtype(), linear.dense.shape());
    linear.bias = {};
  }
  return weights;
}

TEST_P(AwqLayer, BlockLossIsTheChangeOfWhatTheBlockPutsOut) {
  windows_ = random_windows(1, 40, 96);
  LayerStream data = stream();
  const LayerWeights original = weights_->layer(0);
  const DecoderSpec& spec = weights_->spec();
  const LayerJob own = job();
  const ScaledLayer unscaled(spec, original);
  for (const ResolvedMapping& mapping : mappings_) {
    LayerWeights exact = original;
    LayerWeights rounded = original;
    for (const LinearId& id : mapping.balance) {
      rounded[id].dense = dequantize(quantize_to_nearest(original[id].dense.to(DType::f32), {},
                                                         linears_.at(id).scheme, original[id].dense.dtype()));
    }
    if (mapping.balance.front().role < LinearRole::gate && !spec.parallel_block) {
      exact = without_mlp(exact);
      rounded = without_mlp(rounded);
    }
    const auto output_of = [&](const LayerWeights& weights) {
      return data.probe(*backend_, 0, prepare_layer(*backend_, weights), data.probe_input());
    };
    const Tensor expected = output_of(exact);
    const Tensor changed = output_of(rounded);
    double sum = 0;
    const auto values = expected.values<float>();
    for (size_t i = 0; i < values.size(); ++i)
      sum += std::pow(double{changed.values<float>()[i]} - double{values[i]}, 2);
    BlockLoss loss(own, original, unscaled, mapping, data);
    const std::vector<float> ones(static_cast<size_t>(original[mapping.balance.front()].in_features()), 1.0f);
    const double mean = sum / static_cast<double>(values.size());
    EXPECT_GT(mean, 0) << mapping.describe(spec);
    EXPECT_NEAR(loss(ones), mean, 1e-4 * mean) << mapping.describe(spec);
  }
}

TEST_P(AwqLayer, TheBlocksOutputMayJudgeScales) {
  const LayerWeights original = weights_->layer(0);
  for (const Propagation propagation : {Propagation::quantized, Propagation::original}) {
    LayerStream data = stream();
    LayerJob own = job();
    own.propagation = propagation;
    const QuantizedLayer result =
        quantize_layer(own, {.n_grid = 6, .objective = Objective::block_output}, original, data);
    EXPECT_LT(result.report.equivalence_error, 1e-5);
    for (const auto& mapping : result.report.mappings)
      EXPECT_LE(mapping.loss_after, mapping.loss_before) << mapping.mapping;
    LayerStream untouched = stream();
    untouched.advance(0, prepare_layer(*backend_, original));
    EXPECT_EQ(std::ranges::equal(data.probe_input().values<float>(), untouched.probe_input().values<float>()),
              propagation == Propagation::original);
  }
}

/// That it lowers the error is tested with more tokens than these in compensated_rounding_test.cc.
TEST_P(AwqLayer, CompensationChangesCodesOnly) {
  const LayerWeights original = weights_->layer(0);
  const auto quantize = [&](Rounding rounding) {
    LayerStream data = stream();
    return quantize_layer(job(), {.rounding = rounding}, original, data).weights;
  };
  const LayerWeights nearest = quantize(Rounding::nearest);
  const LayerWeights compensated = quantize(Rounding::compensated);
  const QuantizedWeight& a = *nearest[output()].quantized;
  const QuantizedWeight& b = *compensated[output()].quantized;
  EXPECT_TRUE(
      std::ranges::equal(a.scales.to(DType::f32).values<float>(), b.scales.to(DType::f32).values<float>()));
  EXPECT_FALSE(std::ranges::equal(a.codes.values<uint8_t>(), b.codes.values<uint8_t>()));
}

/// With the same statistics a linear comes closer to what the original gives from its own input.
TEST_P(AwqLayer, MatchingMakesUpForWhatTheInputLost) {
  if (weights_->spec().moe) GTEST_SKIP() << "a token that moves to other experts outweighs every rounding";
  for (auto& [id, rounding] : linears_) rounding = {.scheme = {.num_bits = 3, .group_size = 32}};
  windows_ = random_windows(60, 40, 96);
  const LayerWeights original = weights_->layer(0);
  const auto error_with = [&](Rounding rounding) {
    LayerStream data({.backend = *backend_,
                      .weights = *weights_,
                      .windows = windows_,
                      .with_original = rounding == Rounding::matched});
    LayerJob own = job();
    own.follows_original = rounding == Rounding::matched;
    const Tensor input = data.probe_input();
    const Tensor reference = data.probe(*backend_, 0, prepare_layer(*backend_, original), input);
    const LayerWeights weights = quantize_layer(own, {.rounding = rounding}, original, data).weights;
    const LayerStream fresh = stream();
    return equivalence_error(input, reference,
                             fresh.probe(*backend_, 0, prepare_layer(*backend_, weights), input));
  };
  EXPECT_LT(error_with(Rounding::matched), error_with(Rounding::compensated));
}

/// In the mean over linears: what they lower has the ridge of few tokens in it.
TEST_P(AwqLayer, SweepsLoseLess) {
  for (auto& [id, rounding] : linears_) rounding = {.scheme = {.num_bits = 3, .group_size = 32}};
  const auto report_with = [&](int sweeps) {
    LayerStream data = stream();
    const AwqModifier settings{.rounding = Rounding::compensated, .sweeps = sweeps};
    return quantize_layer(job(), settings, weights_->layer(0), data).report;
  };
  const LayerReport without = report_with(0);
  const LayerReport with = report_with(2);
  ASSERT_EQ(with.linears.size(), without.linears.size());
  double share = 0;
  for (size_t i = 0; i < with.linears.size(); ++i) {
    share += with.linears[i].loss / without.linears[i].loss / static_cast<double>(with.linears.size());
  }
  EXPECT_LT(share, 0.97);
}

TEST_P(AwqLayer, ClipsQAndKWhereNoSweepsFollow) {
  if (!linears_.contains(LinearRole::k)) GTEST_SKIP() << "no k of its own";
  const std::string name = weights_->spec().linear_name(0, LinearRole::k);
  const auto share_left = [&](int sweeps) {
    LayerStream data = stream();
    const AwqModifier settings{.rounding = Rounding::compensated, .sweeps = sweeps};
    const LayerReport report = quantize_layer(job(), settings, weights_->layer(0), data).report;
    const auto k = std::ranges::find(report.linears, name, &LinearReport::name);
    return k == report.linears.end() ? 0 : k->loss_clipped / k->loss_scaled;
  };
  EXPECT_LT(share_left(0), 1);
  EXPECT_EQ(share_left(1), 1);
}

TEST_P(AwqLayer, MatchingPassesOverBatchesOfWhichNothingCounts) {
  std::vector<std::vector<uint8_t>> masks(windows_.size(), std::vector<uint8_t>(windows_[0].size(), 1));
  std::ranges::fill(masks[0], uint8_t{0});
  LayerStream data({.backend = *backend_,
                    .weights = *weights_,
                    .windows = windows_,
                    .rows_per_batch = static_cast<int64_t>(windows_[0].size()),
                    .with_original = true,
                    .masks = masks});
  LayerJob own = job();
  own.follows_original = true;
  const QuantizedLayer result =
      quantize_layer(own, {.rounding = Rounding::matched}, weights_->layer(0), data);
  EXPECT_EQ(result.report.linears.size(), linears_.size());
}

TEST_P(AwqLayer, ReportsTheLossesOfEveryLinear) {
  LayerStream data = stream();
  const LayerReport report =
      quantize_layer(job(), {.rounding = Rounding::nearest}, weights_->layer(0), data).report;
  ASSERT_EQ(report.linears.size(), linears_.size());
  for (const LinearReport& linear : report.linears) {
    EXPECT_GT(linear.signal, linear.loss) << linear.name;
    EXPECT_GT(linear.loss, 0) << linear.name;
    EXPECT_GT(linear.loss_nearest, 0) << linear.name;
    EXPECT_NEAR(linear.loss, linear.loss_clipped, 1e-3 * linear.loss) << linear.name;
    EXPECT_EQ(linear.dead_channels, 0) << linear.name;
    ASSERT_EQ(linear.largest_channels.size(), 5u) << linear.name;
    EXPECT_GE(linear.largest_channels[0].mean_absolute, linear.largest_channels[1].mean_absolute);
    EXPECT_GT(linear.largest_channels[0].times_median, 1) << linear.name;
  }
  for (const MappingReport& mapping : report.mappings) {
    EXPECT_TRUE(std::ranges::is_sorted(mapping.scale_quantiles)) << mapping.mapping;
    EXPECT_EQ(mapping.failure, "");
    EXPECT_EQ(mapping.left_alone, mapping.scale_quantiles.front() == mapping.scale_quantiles.back());
  }
}

/// The stored norm times the scale gives back the gain to f32 rounding, not to the 2^-9 of the norm's own
/// type.
TEST_P(AwqLayer, ScalesAreThoseThatTheStoredNormCarries) {
  if (weights_->spec().norm_shape(NormRole::attention).empty()) GTEST_SKIP() << "no norm takes a scale";
  std::vector<float> scales(64, 1.7f);
  const LayerWeights original = weights_->layer(0);
  const ScaledLayer layer(weights_->spec(), original);
  const NormWeight& norm = layer.norm(NormRole::attention);
  make_representable(norm, DType::bf16, scales);
  const Tensor gains = gain_of(norm);
  const auto gain = gains.values<float>();
  const float offset = norm.offset;
  for (size_t c = 0; c < scales.size(); ++c) {
    const float stored = round_to(DType::bf16, gain[c] / scales[c] - offset) + offset;
    EXPECT_NEAR(stored * scales[c] / gain[c], 1.0f, 1e-6f) << c;
    // What is stored may be larger than the gain by as much as the offset, and its rounding with it.
    EXPECT_NEAR(scales[c], 1.7f, 1.7f / 128 * (1 + 2 * offset / gain[c]));
  }
}

TEST_P(AwqLayer, TheSameBytesForAnyNumberOfThreads) {
  std::vector<Tensor> codes;
  for (const size_t threads : {1, 2, 3}) {
    set_thread_count(threads);
    LayerStream data = stream();
    const QuantizedLayer result = quantize_layer(job(), {}, weights_->layer(0), data);
    codes.push_back(result.weights[output()].quantized->codes);
  }
  const auto first = codes[0].values<uint8_t>();
  for (const auto& other : codes) EXPECT_TRUE(std::ranges::equal(first, other.values<uint8_t>()));
}

TEST_P(AwqLayer, PropagationChoosesWhatTheNextLayerSees) {
  LayerStream quantized = stream();
  LayerStream original = stream();
  LayerJob with_original = job();
  with_original.propagation = Propagation::original;
  const LayerWeights weights = weights_->layer(0);
  quantize_layer(job(), {}, weights, quantized);
  quantize_layer(with_original, {}, weights, original);
  LayerStream untouched = stream();
  untouched.advance(0, prepare_layer(*backend_, weights));
  EXPECT_TRUE(
      std::ranges::equal(original.probe_input().values<float>(), untouched.probe_input().values<float>()));
  EXPECT_FALSE(
      std::ranges::equal(quantized.probe_input().values<float>(), untouched.probe_input().values<float>()));
}

TEST_P(AwqLayer, AWholeMatrixHasOneGridAndNoClip) {
  for (auto& [id, rounding] : linears_)
    rounding = {.scheme = {.group_size = QuantizationScheme::kWholeMatrix}};
  LayerStream data = stream();
  const QuantizedLayer result = quantize_layer(job(), {}, weights_->layer(0), data);
  EXPECT_LT(result.report.equivalence_error, 1e-5);
  EXPECT_EQ(result.report.clip_loss_before, 0.0);
  const QuantizedWeight& weight = *result.weights[output()].quantized;
  for (int64_t row = 1; row < weight.out_features; ++row) {
    EXPECT_EQ(weight.scale(row, 0), weight.scale(0, 0));
    EXPECT_EQ(weight.zero(row, 0), weight.zero(0, 0));
  }
}

TEST_P(AwqLayer, EightBitsLoseLittle) {
  if (weights_->spec().moe) GTEST_SKIP() << "a token that moves to other experts outweighs every rounding";
  for (auto& [id, rounding] : linears_) rounding = {.scheme = {.num_bits = 8, .group_size = 16}};
  LayerStream with_search = stream();
  const LayerWeights original = weights_->layer(0);
  const QuantizedLayer result = quantize_layer(job(), {}, original, with_search);
  const LayerStream data = stream();
  const Tensor input = data.probe_input();
  const Tensor reference = data.probe(*backend_, 0, prepare_layer(*backend_, original), input);
  const Tensor rounded = data.probe(*backend_, 0, prepare_layer(*backend_, result.weights), input);
  EXPECT_LT(equivalence_error(input, reference, rounded), 0.02);
}

TEST_P(AwqLayer, DenseLinearsAreScaledButNotRounded) {
  linears_.erase(output());
  LayerStream data = stream();
  const QuantizedLayer result = quantize_layer(job(), {}, weights_->layer(0), data);
  EXPECT_LT(result.report.equivalence_error, 1e-5);
  EXPECT_FALSE(result.weights[output()].quantized.has_value());
  EXPECT_EQ(result.weights[output()].dense.dtype(), DType::bf16);
  EXPECT_TRUE(result.weights[weights_->spec().linears(0).front().id].quantized.has_value());
}

INSTANTIATE_TEST_SUITE_P(
    Families, AwqLayer,
    ::testing::Values(
        FamilyCase{"LlamaForCausalLM", kNoKeys},
        FamilyCase{"LlamaForCausalLM", {{"attention_bias", true}, {"mlp_bias", true}}},
        FamilyCase{"LlamaForCausalLM", {{"num_key_value_heads", 4}, {"head_dim", 32}}},
        FamilyCase{"MistralForCausalLM", {{"sliding_window", 8}}}, FamilyCase{"Qwen2ForCausalLM", kNoKeys},
        FamilyCase{"Qwen3ForCausalLM", {{"head_dim", 32}}},
        FamilyCase{"GemmaForCausalLM", {{"head_dim", 32}}},
        FamilyCase{"Gemma2ForCausalLM", {{"head_dim", 32}, {"sliding_window", 8}}},
        FamilyCase{"Gemma3ForCausalLM", {{"head_dim", 32}, {"sliding_window", 8}}},
        FamilyCase{"Phi3ForCausalLM", kNoKeys}, FamilyCase{"CohereForCausalLM", {{"use_qk_norm", true}}},
        FamilyCase{"OPTForCausalLM", {{"activation_function", "relu"}}},
        FamilyCase{"GPT2LMHeadModel", {{"activation_function", "gelu_new"}}},
        FamilyCase{"BloomForCausalLM", kNoKeys}, FamilyCase{"MixtralForCausalLM", expert_keys()},
        FamilyCase{"Qwen2MoeForCausalLM", expert_keys()}, FamilyCase{"Qwen3MoeForCausalLM", expert_keys()},
        FamilyCase{"DeepseekV3ForCausalLM", expert_keys()},
        FamilyCase{"DeepseekV2ForCausalLM", expert_keys_with({{"q_lora_rank", nullptr}})},
        FamilyCase{"Glm4MoeForCausalLM", expert_keys_with({{"use_qk_norm", true}, {"attention_bias", true}})},
        FamilyCase{"Glm4MoeLiteForCausalLM", expert_keys()},
        FamilyCase{"Ernie4_5_MoeForCausalLM", expert_keys()},
        FamilyCase{"AfmoeForCausalLM",
                   expert_keys_with({{"head_dim", 16}, {"sliding_window", 8}, {"mup_enabled", true}})},
        FamilyCase{"Qwen3NextForCausalLM", expert_keys_with({{"head_dim", 16}})},
        FamilyCase{
            "Qwen3NextForCausalLM",
            expert_keys_with({{"head_dim", 16}, {"layer_types", {"full_attention", "linear_attention"}}})},
        FamilyCase{"Qwen3_5ForCausalLM", expert_keys_with({{"head_dim", 16}, {"linear_conv_kernel_dim", 1}})},
        FamilyCase{"Qwen3_5ForCausalLM",
                   expert_keys_with({{"head_dim", 16},
                                     {"attention_bias", true},
                                     {"layer_types", {"full_attention", "linear_attention"}}})},
        FamilyCase{"Qwen3_5MoeForCausalLM", expert_keys_with({{"head_dim", 16}})},
        FamilyCase{
            "GraniteForCausalLM",
            {{"residual_multiplier", 0.3}, {"embedding_multiplier", 2.0}, {"attention_multiplier", 0.2}}},
        FamilyCase{"SeedOssForCausalLM", {{"head_dim", 32}}},
        FamilyCase{"Cohere2ForCausalLM", {{"sliding_window", 8}}}, FamilyCase{"OlmoForCausalLM", kNoKeys},
        FamilyCase{"Olmo2ForCausalLM", kNoKeys}, FamilyCase{"Olmo3ForCausalLM", {{"sliding_window", 8}}},
        FamilyCase{"Exaone4ForCausalLM", {{"sliding_window", 8}}}));

TEST(RoundByRows, IsTheRoundingOfTheWholeMatrix) {
  const Tensor dense = random_tensor({5000, 64}, 3, 0.1f).to(DType::bf16);
  for (const Observer observer : {Observer::automatic, Observer::mse}) {
    const LinearRounding rounding{.scheme = {.symmetric = false, .group_size = 32}, .observer = observer};
    const Tensor weight = dense.to(DType::f32);
    const Tensor clip = observer == Observer::mse ? search_mse_clips({rounding.scheme, DType::bf16}, weight,
                                                                     rounding.observer_settings)
                                                  : Tensor();
    const QuantizedWeight whole = quantize_to_nearest(weight, clip, rounding.scheme, DType::bf16);
    const QuantizedWeight rows = round_by_rows(dense, rounding, DType::bf16, nullptr);
    EXPECT_TRUE(std::ranges::equal(rows.codes.values<uint8_t>(), whole.codes.values<uint8_t>()));
    EXPECT_TRUE(std::ranges::equal(rows.zeros.values<uint8_t>(), whole.zeros.values<uint8_t>()));
    EXPECT_EQ(std::memcmp(rows.scales.bytes(), whole.scales.bytes(), whole.scales.byte_size()), 0);
  }
}

TEST(EquivalenceError, IsRelativeToWhatTheLayerAdds) {
  const Tensor input = Tensor::of<float>({2}, std::vector<float>{10, 10});
  const Tensor reference = Tensor::of<float>({2}, std::vector<float>{11, 10});
  const Tensor changed = Tensor::of<float>({2}, std::vector<float>{11.1f, 10});
  EXPECT_NEAR(equivalence_error(input, reference, changed), 0.1, 1e-5);
  EXPECT_EQ(equivalence_error(input, reference, reference), 0.0);
}

/// Without a norm before a block its linears still read one tensor, and one set of statistics serves them.
TEST(DefaultMappings, NormsBehindTheBlocksTakeNoScale) {
  const Json config = TinyModel{.architecture = "Olmo2ForCausalLM"}.config();
  const DecoderSpec spec = make_decoder_spec({config, "config.json"});
  std::vector<std::string> names;
  for (const auto& mapping : default_mappings(spec, 0)) names.push_back(mapping.describe(spec));
  EXPECT_THAT(names, ::testing::ElementsAre("v_proj -> o_proj", "up_proj -> down_proj"));
  const auto representatives = input_representatives(spec, 0);
  EXPECT_EQ(representatives.at(LinearRole::v), LinearId(LinearRole::q));
  EXPECT_EQ(representatives.at(LinearRole::up), LinearId(LinearRole::gate));
}

TEST(DefaultMappings, TheGateOfAnAttentionReadsItsNorm) {
  const Json config =
      TinyModel{.architecture = "AfmoeForCausalLM", .extra = expert_keys_with({{"head_dim", 16}})}.config();
  const DecoderSpec spec = make_decoder_spec({config, "config.json"});
  EXPECT_EQ(default_mappings(spec, 0)[0].describe(spec),
            "input_layernorm -> q_proj, gate_proj, k_proj, v_proj");
}

/// Between a state and its output linear stands a norm on every head; the gate of the other layers only
/// multiplies.
TEST(DefaultMappings, OnlyLayersThatAttendSmoothValues) {
  const Json config = TinyModel{.architecture = "Qwen3_5ForCausalLM", .extra = expert_keys()}.config();
  const DecoderSpec spec = make_decoder_spec({config, "config.json"});
  const auto describe = [&](int64_t layer) {
    std::vector<std::string> names;
    for (const auto& mapping : default_mappings(spec, layer)) names.push_back(mapping.describe(spec));
    return names;
  };
  EXPECT_THAT(describe(0), ::testing::ElementsAre(
                               "input_layernorm -> in_proj_qkv, in_proj_z, in_proj_b, in_proj_a",
                               "post_attention_layernorm -> gate_proj, up_proj", "up_proj -> down_proj"));
  EXPECT_THAT(describe(1), ::testing::ElementsAre(
                               "input_layernorm -> q_proj, k_proj, v_proj", "v_proj -> o_proj",
                               "post_attention_layernorm -> gate_proj, up_proj", "up_proj -> down_proj"));
}

TEST(DefaultMappings, ValueChannelsAreSharedByTheQueryHeadsOfAKvHead) {
  DecoderSpec spec;
  spec.layers = 1;
  spec.heads = 6;
  spec.kv_heads = 2;
  spec.head_dim = spec.value_dim = 4;
  const ResolvedMapping value_to_output = default_mappings(spec, 0).front();
  EXPECT_EQ(smooth_channel(spec, value_to_output, 0), 0);
  EXPECT_EQ(smooth_channel(spec, value_to_output, 11), 3);  // head 2, the last of kv head 0
  EXPECT_EQ(smooth_channel(spec, value_to_output, 13), 5);  // head 3, the first of kv head 1
  EXPECT_EQ(smooth_channel_count(spec, value_to_output, 24), 8);
}

}  // namespace
}  // namespace salient
