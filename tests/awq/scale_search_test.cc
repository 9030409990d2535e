#include "awq/scale_search.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "base/json.h"
#include "support/split_input.h"

namespace salient {
namespace {

Tensor matrix_of(const Json& rows) {
  const auto height = static_cast<int64_t>(rows.size());
  const auto width = static_cast<int64_t>(rows[0].size());
  Tensor result = Tensor::empty(DType::f32, {height, width});
  const auto values = result.mutable_values<float>();
  size_t i = 0;
  for (const auto& row : rows) {
    for (const auto& value : row) values[i++] = value.get<float>();
  }
  return result;
}

DuoScaling duo_scaling_of(const std::string& text) {
  if (text == "both") return DuoScaling::both;
  return text == "true" ? DuoScaling::on : DuoScaling::off;
}

class ScaleSearch : public ::testing::Test {
 protected:
  ScaleSearch() {
    golden_ = read_json_file(SALIENT_SOURCE_DIR "/tests/golden/awq/scale_search.json");
    for (const auto& rows : golden_["weights"]) weights_.push_back(matrix_of(rows));
    for (const auto& weight : weights_)
      layers_.push_back({.weight = [&weight] { return weight; }, .rounding = rule_});
    statistics_.add(*backend_, MatmulPrecision::f32, matrix_of(golden_["x"]));
    for (int64_t c = 0; c < kColumns; ++c) channel_of_.push_back(c);
  }

  ScaleSearchProblem problem() {
    return {.backend = *backend_,
            .layers = layers_,
            .input = statistics_,
            .channel_of = channel_of_,
            .channels = kColumns,
            .make_representable = [](std::span<float>) {}};
  }

  static constexpr int64_t kColumns = 64;
  RoundingRule rule_{.scheme = {.symmetric = false, .group_size = 32}, .scale_dtype = DType::f16};
  Json golden_;
  std::unique_ptr<Backend> backend_ = make_cpu_backend();
  std::vector<Tensor> weights_;
  std::vector<BalanceLayer> layers_;
  ActivationStatistics statistics_{kColumns};
  std::vector<int64_t> channel_of_;
};

/// The golden computes every loss token by token in f64; ours comes from an f32 Gram matrix.
TEST_F(ScaleSearch, AgreesWithTheDefinitionTokenByToken) {
  for (const auto& expected : golden_["cases"]) {
    ScaleSearchProblem search = problem();
    for (BalanceLayer& layer : layers_) layer.rounding->scheme.symmetric = expected["symmetric"].get<bool>();
    search.layers = layers_;
    search.duo_scaling = duo_scaling_of(expected["duo_scaling"].get<std::string>());
    search.n_grid = expected["n_grid"].get<int>();
    const ScaleSearchResult found = search_scales(search);
    EXPECT_NEAR(found.loss_identity / expected["loss_identity"].get<double>(), 1.0, 1e-3);
    EXPECT_NEAR(found.loss / expected["loss"].get<double>(), 1.0, 1e-3);
    EXPECT_DOUBLE_EQ(found.ratio, expected["ratio"].get<double>());
    EXPECT_EQ(found.duo, expected["duo"].get<bool>());
    for (size_t c = 0; c < found.scales.size(); ++c) {
      EXPECT_NEAR(found.scales[c] / expected["scales"][c].get<double>(), 1.0, 1e-4) << "channel " << c;
    }
  }
}

/// The loss of Q(W s) / s token by token, each matrix rounded whole.
double loss_by_definition(const std::vector<Tensor>& weights, const RoundingRule& rule, const Tensor& x,
                          std::span<const float> scales) {
  const auto columns = static_cast<size_t>(x.dim(1));
  double loss = 0;
  for (const Tensor& weight : weights) {
    Tensor scaled = weight.to(DType::f32);
    const auto values = scaled.mutable_values<float>();
    for (size_t i = 0; i < values.size(); ++i) values[i] *= scales[i % columns];
    const Tensor rounded = dequantize(quantize_to_nearest(scaled, {}, rule.scheme, rule.scale_dtype));
    const double share = 1.0 / static_cast<double>(x.dim(0) * weight.dim(0));
    for (int64_t token = 0; token < x.dim(0); ++token) {
      for (size_t row = 0; row < static_cast<size_t>(weight.dim(0)); ++row) {
        double error = 0;
        for (size_t c = 0; c < columns; ++c) {
          const double back = double{rounded.values<float>()[row * columns + c]} / double{scales[c]};
          error += (back - double{weight.values<float>()[row * columns + c]}) *
                   double{x.values<float>()[static_cast<size_t>(token) * columns + c]};
        }
        loss += error * error * share;
      }
    }
  }
  return loss;
}

/// One grid for a matrix changes with the scales of every column; so do grids of the other schemes, whose
/// groups are narrower.
TEST_F(ScaleSearch, MeasuresWhatRoundingTheScaledMatrixGives) {
  const Tensor x = matrix_of(golden_["x"]);
  for (const int bits : {2, 3, 4, 6, 8}) {
    for (const int64_t group :
         {int64_t{16}, QuantizationScheme::kWholeRow, QuantizationScheme::kWholeMatrix}) {
      rule_.scheme = {.num_bits = bits, .group_size = group};
      for (BalanceLayer& layer : layers_) layer.rounding = rule_;
      const ScaleSearchResult found = search_scales(problem());
      const std::vector<float> ones(kColumns, 1.0f);
      EXPECT_NEAR(found.loss_identity / loss_by_definition(weights_, rule_, x, ones), 1.0, 1e-3)
          << describe(rule_.scheme);
      EXPECT_NEAR(found.loss / loss_by_definition(weights_, rule_, x, found.scales), 1.0, 1e-3)
          << describe(rule_.scheme);
      EXPECT_FALSE(found.identity) << describe(rule_.scheme);
    }
  }
}

/// Channels of different blocks never meet in a token.
TEST_F(ScaleSearch, BlocksFindTheScalesOfAMatrixThatHasNothingElse) {
  const Tensor x = split_input(500, kColumns, 32, 3);
  ActivationStatistics whole(kColumns);
  ActivationStatistics blocks(kColumns, 32);
  whole.add(*backend_, MatmulPrecision::f32, x);
  blocks.add(*backend_, MatmulPrecision::f32, x);
  const auto found_with = [&](const ActivationStatistics& statistics) {
    return search_scales({.backend = *backend_,
                          .layers = layers_,
                          .input = statistics,
                          .channel_of = channel_of_,
                          .channels = kColumns,
                          .make_representable = [](std::span<float>) {}});
  };
  const ScaleSearchResult expected = found_with(whole);
  const ScaleSearchResult found = found_with(blocks);
  EXPECT_FALSE(expected.identity);
  EXPECT_EQ(found.scales, expected.scales);
  EXPECT_NEAR(found.loss / expected.loss, 1.0, 1e-4);
  EXPECT_NEAR(found.loss_identity / expected.loss_identity, 1.0, 1e-4);
}

TEST_F(ScaleSearch, NeverLosesToTheIdentity) {
  ScaleSearchProblem search = problem();
  // Scales that ruin everything are turned down, and so are those that are not numbers.
  for (const float bad : {1e-30f, std::nanf("")}) {
    search.make_representable = [bad](std::span<float> scales) {
      for (size_t i = 0; i < scales.size(); i += 2) scales[i] = bad;
    };
    const ScaleSearchResult found = search_scales(search);
    EXPECT_TRUE(found.identity);
    EXPECT_EQ(found.loss, found.loss_identity);
    for (const float scale : found.scales) EXPECT_EQ(scale, 1.0f);
  }
}

/// Of many rows few choose the candidates that all of them judge.
TEST_F(ScaleSearch, ManyRowsAreScreenedAndFindTheSame) {
  const Tensor weight = random_tensor({600, kColumns}, 7);
  layers_ = {{.weight = [&] { return weight; }, .rounding = rule_}};
  const auto exhaustive = [&](std::span<const float> scales) {
    std::vector<double> errors(static_cast<size_t>(weight.dim(0)));
    backend_->rounding_loss({.rule = rule_,
                             .weight = weight,
                             .column_scales = scales,
                             .clip = {},
                             .gram = statistics_.gram().whole()},
                            errors);
    return std::accumulate(errors.begin(), errors.end(), 0.0) /
           static_cast<double>(statistics_.tokens() * weight.dim(0));
  };
  const auto uneven = [](float even) {
    return [even](std::span<float> scales) {
      for (size_t i = 0; i < scales.size(); ++i) scales[i] = i % 2 == 0 ? even : 1 / even;
    };
  };
  ScaleSearchProblem search = problem();
  int changed = 0;
  // The last two make all candidates one.
  for (const auto& make :
       {std::function<void(std::span<float>)>([](std::span<float>) {}), {uneven(1.1f)}, {uneven(1 / 1.1f)}}) {
    search.make_representable = make;
    search.loss = {};
    const ScaleSearchResult screened = search_scales(search);
    search.loss = exhaustive;
    const ScaleSearchResult best = search_scales(search);
    EXPECT_NEAR(screened.loss_identity / best.loss_identity, 1, 1e-5);
    EXPECT_NEAR(screened.loss / best.loss, 1, 1e-5);
    EXPECT_EQ(screened.identity, best.identity);
    changed += screened.identity ? 0 : 1;
  }
  EXPECT_GE(changed, 2);
}

TEST_F(ScaleSearch, SharedChannelsGetOneScale) {
  ScaleSearchProblem search = problem();
  for (int64_t c = 0; c < kColumns; ++c) channel_of_[static_cast<size_t>(c)] = c % 16;
  search.channel_of = channel_of_;
  search.channels = 16;
  const ScaleSearchResult found = search_scales(search);
  EXPECT_EQ(found.scales.size(), 16u);
  EXPECT_LT(found.loss, found.loss_identity);
  EXPECT_FALSE(found.identity);
}

TEST_F(ScaleSearch, DenseLinearsHaveNoError) {
  ScaleSearchProblem search = problem();
  const double both = search_scales(search).loss_identity;
  layers_[0].rounding.reset();
  search.layers = layers_;
  EXPECT_LT(search_scales(search).loss_identity, both);
}

TEST_F(ScaleSearch, RefusesActivationsThatAreNotFinite) {
  Tensor x = Tensor::zeros(DType::f32, {1, kColumns});
  x.mutable_values<float>()[3] = INFINITY;
  statistics_.add(*backend_, MatmulPrecision::f32, x);
  EXPECT_THROW(search_scales(problem()), Error);
}

}  // namespace
}  // namespace salient
