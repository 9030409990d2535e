#include "awq/width_errors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "quant/group_quantize.h"
#include "support/error_matcher.h"
#include "support/temporary_directory.h"
#include "support/tiny_model.h"

namespace salient {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class WidthErrorsTest : public ::testing::TestWithParam<const char*> {
 protected:
  WidthErrorsTest() {
    TinyModel{.architecture = GetParam(), .extra = expert_keys()}.write(directory());
    weights_ = std::make_unique<ModelWeights>(directory());
    original_ = weights_->layer(0);
    for (const auto& slot : weights_->spec().linears(0)) {
      if (slot.id.role == LinearRole::router || slot.id.role == LinearRole::shared_router) continue;
      linears_[slot.id] = {.scheme = {.symmetric = true, .group_size = 32}};
    }
  }

  std::string directory() const { return (scratch_.path() / "model").string(); }

  LayerJob job() const {
    return {.backend = *backend_,
            .exact = *backend_,
            .spec = weights_->spec(),
            .layer = 0,
            .linears = linears_,
            .mappings = mappings_,
            .storage = std::nullopt};
  }

  LayerStream stream() const {
    return LayerStream({.backend = *backend_, .weights = *weights_, .windows = windows_});
  }

  /// The mean over the tokens of the probe of |h' - h|^2 / |h|^2, with a set rounded as it is stored.
  double change_of(const std::vector<LinearId>& set, int bits) const {
    const LayerStream data = stream();
    const Tensor input = data.probe_input();
    LayerWeights rounded = original_;
    for (const LinearId& id : set) {
      QuantizationScheme scheme = linears_.at(id).scheme;
      scheme.num_bits = bits;
      const DType type = original_[id].dense.dtype();
      rounded[id].dense =
          dequantize(quantize_to_nearest(original_[id].dense.to(DType::f32), {}, scheme, type)).to(type);
    }
    const Tensor before = data.probe(*backend_, 0, prepare_layer(*backend_, original_), input);
    const Tensor after = data.probe(*backend_, 0, prepare_layer(*backend_, rounded), input);
    double sum = 0;
    for (int64_t token = 0; token < before.dim(0); ++token) {
      double error = 0;
      double signal = 0;
      for (int64_t i = token * before.dim(1); i < (token + 1) * before.dim(1); ++i) {
        const double h = before.values<float>()[static_cast<size_t>(i)];
        error += std::pow(after.values<float>()[static_cast<size_t>(i)] - h, 2);
        signal += h * h;
      }
      sum += error / signal;
    }
    return sum / static_cast<double>(before.dim(0));
  }

  /// The sets of the feed-forward block, those of experts in one.
  std::vector<std::vector<LinearId>> sets() const {
    std::vector<std::vector<LinearId>> sets{{LinearRole::q, LinearRole::k}, {LinearRole::o}};
    if (!weights_->spec().moe) {
      sets.push_back({LinearRole::gate, LinearRole::up});
      sets.push_back({LinearRole::down});
      return sets;
    }
    sets.emplace_back();
    for (int64_t expert = 0; expert < weights_->spec().moe->experts; ++expert) {
      for (const LinearRole role : {LinearRole::expert_gate, LinearRole::expert_up, LinearRole::expert_down})
        sets.back().push_back(LinearId(role, expert));
    }
    return sets;
  }

  TemporaryDirectory scratch_;
  std::unique_ptr<Backend> backend_ = make_cpu_backend();
  std::unique_ptr<ModelWeights> weights_;
  LayerWeights original_;
  PerLinear<LinearRounding> linears_;
  std::vector<ResolvedMapping> mappings_;
  std::vector<std::vector<int32_t>> windows_ = random_windows(3, 30, 96);
};

TEST_P(WidthErrorsTest, AreWhatRoundingDoesToTheStreamBehindTheLayer) {
  const auto all = sets();
  LayerStream data = stream();
  const std::vector<WidthErrors> measured = measure_widths(job(), original_, all, data);
  ASSERT_EQ(measured.size(), all.size());
  for (size_t i = 0; i < all.size(); ++i) {
    for (size_t width = 1; width < kBitWidths; ++width) EXPECT_LT(measured[i][width], measured[i][width - 1]);
    // Queries and keys count four times.
    const double factor = i == 0 ? 4 : 1;
    EXPECT_NEAR(measured[i][kReferenceBits - kLeastBits] / (factor * change_of(all[i], kReferenceBits)), 1.0,
                0.01)
        << i;
    // The other widths follow by the errors of the linears' outputs. A tiny random model attends to one token
    // or another, and so it chooses experts: there changes are no longer proportional to errors.
    if (i == 0 || weights_->spec().moe) continue;
    for (const int bits : {3, 6}) {
      const double ratio = measured[i][static_cast<size_t>(bits - kLeastBits)] / change_of(all[i], bits);
      EXPECT_GT(ratio, 0.5) << i << ", " << bits << " bits";
      EXPECT_LT(ratio, 2.0) << i << ", " << bits << " bits";
    }
  }
}

/// Channels that are strong and few are what smoothing is for: its gain is foreseen.
TEST_P(WidthErrorsTest, BehindAMappingTheBetterOfTwoScalesCounts) {
  if (weights_->spec().moe) GTEST_SKIP() << "a token that moves to other experts outweighs every rounding";
  const std::vector<std::vector<LinearId>> set{{LinearRole::q, LinearRole::k, LinearRole::v}};
  LayerStream plain = stream();
  const double before = measure_widths(job(), original_, set, plain)[0][kReferenceBits - kLeastBits];
  mappings_ = default_mappings(weights_->spec(), 0);
  LayerStream data = stream();
  EXPECT_LT(measure_widths(job(), original_, set, data)[0][kReferenceBits - kLeastBits], before);
}

TEST_P(WidthErrorsTest, AZeroMatrixHasNoErrors) {
  original_[LinearRole::o].dense = Tensor::zeros(DType::bf16, original_[LinearRole::o].dense.shape());
  const std::vector<std::vector<LinearId>> set{{LinearRole::o}};
  LayerStream data = stream();
  EXPECT_THAT(measure_widths(job(), original_, set, data)[0], ::testing::Each(0.0));
}

TEST_P(WidthErrorsTest, TheStreamMovesOnAsTheOriginalDoes) {
  LayerStream measured = stream();
  measure_widths(job(), original_, sets(), measured);
  LayerStream plain = stream();
  plain.advance(0, prepare_layer(*backend_, original_));
  const Tensor a = measured.probe_input();
  const Tensor b = plain.probe_input();
  EXPECT_EQ(std::memcmp(a.bytes(), b.bytes(), a.byte_size()), 0);
}

TEST_P(WidthErrorsTest, OneGridForTheMatrixIsMeasuredToo) {
  linears_ = {{LinearRole::v, {.scheme = {.group_size = QuantizationScheme::kWholeMatrix}}}};
  const std::vector<std::vector<LinearId>> set{{LinearRole::v}};
  LayerStream data = stream();
  const std::vector<WidthErrors> measured = measure_widths(job(), original_, set, data);
  EXPECT_NEAR(measured[0][kReferenceBits - kLeastBits] / change_of(set[0], kReferenceBits), 1.0, 0.01);
}

TEST_P(WidthErrorsTest, WeightsThatAreNotFiniteAreNamed) {
  Tensor bad = original_[LinearRole::o].dense.to(DType::f32);
  bad.mutable_values<float>()[5] = std::numeric_limits<float>::quiet_NaN();
  original_[LinearRole::o].dense = bad;
  LayerStream data = stream();
  EXPECT_THAT([&] { measure_widths(job(), original_, sets(), data); },
              throws_error(ErrorKind::invalid_argument,
                           AllOf(HasSubstr("model.layers.0.self_attn.o_proj"), HasSubstr("not finite"))));
}

INSTANTIATE_TEST_SUITE_P(Families, WidthErrorsTest,
                         ::testing::Values("LlamaForCausalLM", "Qwen2MoeForCausalLM"));

}  // namespace
}  // namespace salient
