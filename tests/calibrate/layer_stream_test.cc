#include "calibrate/layer_stream.h"

#include <gtest/gtest.h>

#include "base/parallel.h"
#include "support/golden_model.h"
#include "support/tiny_model.h"

namespace salient {
namespace {

/// Sequences that go into one batch and into several, one token among them.
std::vector<std::vector<int32_t>> mixed_windows() {
  std::vector<std::vector<int32_t>> windows;
  for (const size_t length : {7, 1, 100, 40, 1, 2, 13}) {
    windows.push_back(random_windows(1, length, 96).front());
  }
  for (int i = 0; i < 30; ++i) windows.push_back(random_windows(1, 80, 96).front());
  windows.push_back({5});
  return windows;
}

class MixedLengths : public ::testing::TestWithParam<const char*> {
 protected:
  MixedLengths() {
    TinyModel{.architecture = GetParam(), .dtype = DType::f32, .extra = expert_keys()}.write(directory());
    weights_.emplace(directory());
  }
  std::string directory() const { return (scratch_.path() / "model").string(); }

  /// What the last linear of the last layer sees, sequence behind sequence.
  std::vector<float> last_input(std::span<const std::vector<int32_t>> windows) const {
    LayerStream stream({.backend = *backend_, .weights = *weights_, .windows = windows});
    std::vector<float> seen;
    const LinearObserver observer = [&](const LinearId& id, const Tensor& input) {
      if (id == LinearRole::o)
        seen.insert(seen.end(), input.values<float>().begin(), input.values<float>().end());
    };
    const int64_t last = weights_->spec().layers - 1;
    for (int64_t layer = 0; layer <= last; ++layer) {
      const LayerWeights stored = weights_->layer(layer);
      stream.advance(layer, prepare_layer(*backend_, stored), layer == last ? &observer : nullptr);
    }
    return seen;
  }

  TemporaryDirectory scratch_;
  std::unique_ptr<Backend> backend_ = make_cpu_backend();
  std::optional<ModelWeights> weights_;
};

TEST_P(MixedLengths, EachSequenceIsAsItIsAlone) {
  const auto windows = mixed_windows();
  const std::vector<float> together = last_input(windows);
  std::vector<float> alone;
  for (const auto& window : windows) {
    const auto own = last_input(std::span(&window, 1));
    alone.insert(alone.end(), own.begin(), own.end());
  }
  ASSERT_FALSE(together.empty());
  EXPECT_LT(relative_error(together, alone), 1e-5);
}

/// So many threads that there is no slice for each take whole batches: neither what a linear sees nor what
/// the next layer gets may tell.
TEST_P(MixedLengths, RowsInSlicesAreThoseOfWholeBatches) {
  const auto rounding = make_cpu_backend({.precision = MatmulPrecision::bf16});
  const DecoderSpec& spec = weights_->spec();
  std::vector<std::vector<int32_t>> windows = mixed_windows();
  const auto seen_by = [&](size_t threads) {
    set_thread_count(threads);
    LayerStream stream({.backend = *rounding, .weights = *weights_, .windows = windows});
    std::vector<std::pair<LinearId, std::vector<float>>> seen;
    const LinearObserver observer = [&](const LinearId& id, const Tensor& input) {
      seen.emplace_back(id, std::vector<float>(input.values<float>().begin(), input.values<float>().end()));
    };
    for (int64_t layer = 0; layer < spec.layers; ++layer) {
      const LayerWeights stored = weights_->layer(layer);
      const PreparedLayer prepared = prepare_layer(*rounding, stored);
      stream.observe(layer, prepared, observer);
      const auto is_mlp = [](const LinearId& id) {
        return id.role == LinearRole::gate || id.role == LinearRole::up;
      };
      stream.outputs(layer, prepared, is_mlp,
                     [&](const Tensor& halfway) { observer(LinearRole::down, halfway); });
      stream.advance(layer, prepared);
    }
    set_thread_count(2);
    return seen;
  };
  EXPECT_FALSE(passes_in_slices(spec, 0, 2 * kRowsPerSlice - 1, 2));
  EXPECT_TRUE(seen_by(2) == seen_by(64));
  windows = random_windows(6, 86, 96);  // two slices and four rows
  EXPECT_TRUE(seen_by(2) == seen_by(64));
}

/// The equivalence check has most to look at there.
TEST_P(MixedLengths, TheLongestIsTheProbe) {
  const auto windows = mixed_windows();
  const LayerStream mixed({.backend = *backend_, .weights = *weights_, .windows = windows});
  const LayerStream longest(
      {.backend = *backend_, .weights = *weights_, .windows = std::span(&windows[2], 1)});
  const Tensor input = mixed.probe_input();
  ASSERT_EQ(input.dim(0), 100);
  EXPECT_TRUE(std::ranges::equal(input.values<float>(), longest.probe_input().values<float>()));
  const LayerWeights stored = weights_->layer(0);
  const PreparedLayer prepared = prepare_layer(*backend_, stored);
  EXPECT_TRUE(std::ranges::equal(mixed.probe(*backend_, 0, prepared, input).values<float>(),
                                 longest.probe(*backend_, 0, prepared, input).values<float>()));
}

INSTANTIATE_TEST_SUITE_P(Architectures, MixedLengths,
                         ::testing::Values("LlamaForCausalLM", "Gemma2ForCausalLM", "BloomForCausalLM",
                                           "OPTForCausalLM", "Qwen2MoeForCausalLM", "DeepseekV2ForCausalLM",
                                           "Qwen3NextForCausalLM"));

}  // namespace
}  // namespace salient
