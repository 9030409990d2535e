#include "awq/layer_statistics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "awq/awq.h"
#include "support/temporary_directory.h"
#include "support/tiny_model.h"

namespace salient {
namespace {

class ExpertCalibrationTest : public ::testing::TestWithParam<const char*> {
 protected:
  ExpertCalibrationTest() {
    TinyModel{.architecture = GetParam(), .extra = expert_keys()}.write(directory());
    weights_ = std::make_unique<ModelWeights>(directory());
    original_ = weights_->layer(0);
    for (const auto& slot : weights_->spec().linears(0)) linears_[slot.id] = {.scheme = {.group_size = 32}};
    mappings_ = default_mappings(weights_->spec(), 0);
  }

  std::string directory() const { return (scratch_.path() / "model").string(); }

  LayerJob job(ExpertCalibration experts, int64_t min_tokens) const {
    return {.backend = *backend_,
            .exact = *backend_,
            .spec = weights_->spec(),
            .layer = 0,
            .linears = linears_,
            .mappings = mappings_,
            .experts = experts,
            .min_tokens_per_expert = min_tokens};
  }

  LayerStream stream() const {
    return LayerStream({.backend = *backend_, .weights = *weights_, .windows = windows_});
  }

  /// What the forward pass itself shows of the inputs of all linears.
  PerLinear<ActivationStatistics> seen_by_forward_pass() const {
    PerLinear<ActivationStatistics> seen;
    const LinearObserver observer = [&](const LinearId& id, const Tensor& x) {
      seen.try_emplace(id, x.dim(1)).first->second.add(*backend_, MatmulPrecision::f32, x);
    };
    LayerStream data = stream();
    data.observe(0, prepare_layer(*backend_, original_), observer);
    return seen;
  }

  LayerStatistics observed(const LayerJob& job) const {
    LayerStream data = stream();
    LayerStatistics statistics(job, original_, data.tokens());
    data.observe(0, prepare_layer(*backend_, original_), statistics.observer());
    return statistics;
  }

  static void expect_same(const ActivationStatistics& found, const ActivationStatistics& expected) {
    EXPECT_EQ(found.tokens(), expected.tokens());
    const auto a = found.gram().whole().values<float>();
    const auto b = expected.gram().whole().values<float>();
    ASSERT_EQ(a.size(), b.size());
    float largest = 0;
    float difference = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      largest = std::max(largest, std::fabs(b[i]));
      difference = std::max(difference, std::fabs(a[i] - b[i]));
    }
    EXPECT_LE(difference, 1e-5f * largest);
  }

  TemporaryDirectory scratch_;
  std::unique_ptr<Backend> backend_ = make_cpu_backend();
  std::unique_ptr<ModelWeights> weights_;
  LayerWeights original_;
  PerLinear<LinearRounding> linears_;
  std::vector<ResolvedMapping> mappings_;
  std::vector<std::vector<int32_t>> windows_ = random_windows(6, 40, 96);
};

TEST_P(ExpertCalibrationTest, RoutedTokensAreThoseOfTheForwardPass) {
  const LayerJob routed = job(ExpertCalibration::routed, 1);
  const LayerStatistics statistics = observed(routed);
  const auto seen = seen_by_forward_pass();
  int64_t tokens = 0;
  for (int64_t expert = 0; expert < weights_->spec().moe->experts; ++expert) {
    const auto found = seen.find({LinearRole::expert_down, expert});
    if (found == seen.end()) continue;
    const ExpertStatistics own = statistics.of_expert(expert);
    EXPECT_FALSE(own.pooled);
    expect_same(own.hidden, found->second);
    expect_same(own.input, seen.at({LinearRole::expert_gate, expert}));
    tokens += own.hidden.tokens();
  }
  EXPECT_EQ(tokens, 240 * weights_->spec().moe->experts_per_token);
}

TEST_P(ExpertCalibrationTest, AllTokensGoThroughEveryExpert) {
  const LayerJob all = job(ExpertCalibration::all, 1000);
  const LayerStatistics statistics = observed(all);
  for (int64_t expert = 0; expert < weights_->spec().moe->experts; ++expert) {
    const ExpertStatistics own = statistics.of_expert(expert);
    EXPECT_EQ(own.hidden.tokens(), 240);
    EXPECT_FALSE(own.pooled) << "all tokens are what was asked for";
    expect_same(own.input, statistics.of(LinearRole::router));
  }
  const float own = statistics.of_expert(0).hidden.gram().whole().values<float>()[0];
  EXPECT_NE(own, statistics.of_expert(1).hidden.gram().whole().values<float>()[0]);
}

TEST_P(ExpertCalibrationTest, StarvedExpertsTakeTheStatisticsOfAllTokensAndAreReported) {
  const auto seen = seen_by_forward_pass();
  std::vector<int64_t> starved;
  int64_t limit = 0;
  for (int64_t expert = 0; expert < weights_->spec().moe->experts; ++expert) {
    const auto found = seen.find({LinearRole::expert_down, expert});
    limit = std::max(limit, found == seen.end() ? 0 : found->second.tokens());
  }
  for (int64_t expert = 0; expert < weights_->spec().moe->experts; ++expert) {
    const auto found = seen.find({LinearRole::expert_down, expert});
    if (found == seen.end() || found->second.tokens() < limit) starved.push_back(expert);
  }
  ASSERT_FALSE(starved.empty()) << "every expert sees as many tokens";
  const LayerJob routed = job(ExpertCalibration::routed, limit);
  const LayerStatistics statistics = observed(routed);
  EXPECT_EQ(statistics.of_expert(starved.front()).hidden.tokens(), 240);
  LayerStream data = stream();
  const QuantizedLayer result = quantize_layer(routed, {}, original_, data);
  EXPECT_EQ(result.report.pooled_experts, starved);
  for (int64_t expert = 0; expert < weights_->spec().moe->experts; ++expert) {
    EXPECT_TRUE(result.weights[LinearId(LinearRole::expert_down, expert)].quantized.has_value());
  }
  EXPECT_LT(result.report.equivalence_error, 1e-5);
}

/// Masked tokens are seen by the others, but not by the statistics: those are of the other rows alone.
TEST_P(ExpertCalibrationTest, MaskedTokensLeaveNoTrace) {
  std::vector<std::vector<uint8_t>> masks;
  std::vector<int32_t> kept;
  for (size_t i = 0; i < windows_.size(); ++i) {
    masks.emplace_back(40, uint8_t{1});
    for (size_t j = 0; j < 40; ++j) {
      masks.back()[j] = i != 2 && (i + j) % 3 != 0;  // of the third sequence nothing
      if (masks.back()[j] != 0) kept.push_back(static_cast<int32_t>(i * 40 + j));
    }
  }
  PerLinear<ActivationStatistics> expected;
  LayerStream whole = stream();
  const PreparedLayer prepared = prepare_layer(*backend_, original_);
  whole.observe(0, prepared, [&](const LinearId& id, const Tensor& x) {
    if (is_expert(id.role)) return;
    Tensor rows = Tensor::empty(DType::f32, {std::ssize(kept), x.dim(1)});
    backend_->gather_rows(x, kept, rows);
    expected.try_emplace(id, x.dim(1)).first->second.add(*backend_, MatmulPrecision::f32, rows);
  });
  LayerStream masked({.backend = *backend_, .weights = *weights_, .windows = windows_, .masks = masks});
  const LayerJob all = job(ExpertCalibration::all, 1);
  LayerStatistics statistics(all, original_, masked.tokens());
  masked.observe(0, prepared, statistics.observer());
  ASSERT_FALSE(expected.empty());
  for (const auto& [id, own] : expected) expect_same(statistics.of(id), own);
  EXPECT_EQ(statistics.of_expert(1).hidden.tokens(), std::ssize(kept));
  expect_same(statistics.of_expert(1).input, expected.at(LinearRole::router));
}

TEST_P(ExpertCalibrationTest, TheChoiceReachesTheWeights) {
  const auto codes = [&](ExpertCalibration experts) {
    LayerStream data = stream();
    const QuantizedLayer result = quantize_layer(job(experts, 1), {}, original_, data);
    const Tensor& own = result.weights[LinearId(LinearRole::expert_down, 0)].quantized->codes;
    return std::vector<uint8_t>(own.values<uint8_t>().begin(), own.values<uint8_t>().end());
  };
  EXPECT_NE(codes(ExpertCalibration::all), codes(ExpertCalibration::routed));
}

INSTANTIATE_TEST_SUITE_P(Families, ExpertCalibrationTest,
                         ::testing::Values("MixtralForCausalLM", "Qwen2MoeForCausalLM",
                                           "DeepseekV3ForCausalLM"));

}  // namespace
}  // namespace salient
