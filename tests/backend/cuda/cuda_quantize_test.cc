// A layer quantized on the simulated device, beside the CPU.
#include <gtest/gtest.h>

#include "awq/awq.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/simulator.h"
#include "backend/cuda/tiny_layer.h"

namespace salient {
namespace {

class CudaQuantizer : public testing::Test {
 protected:
  QuantizedLayer quantize(Backend& backend, const AwqModifier& settings) {
    LayerStream stream({.backend = backend, .weights = *layer_.weights, .windows = windows_});
    return quantize_layer(layer_.job(backend, *cpu_), settings, layer_.weights->layer(0), stream);
  }

  /// Share of codes that differ.
  static double difference(const LayerWeights& a, const LayerWeights& b) {
    double differing = 0;
    double all = 0;
    for (const auto& [id, linear] : a.linears) {
      const QuantizedWeight& mine = *linear.quantized;
      const QuantizedWeight& other = *b[id].quantized;
      for (int64_t row = 0; row < mine.out_features; ++row) {
        for (int64_t column = 0; column < mine.in_features; ++column, ++all)
          differing += mine.code(row, column) != other.code(row, column) ? 1 : 0;
      }
    }
    return differing / all;
  }

  void expect_alike(const AwqModifier& settings) {
    auto device = std::make_unique<test::SimulatedDevice>();
    const test::SimulatedDevice& counts = *device;
    const auto cuda = cuda::make_cuda_backend(std::move(device), {});
    const QuantizedLayer expected = quantize(*cpu_, settings);
    const QuantizedLayer found = quantize(*cuda, settings);
    ASSERT_EQ(found.report.mappings.size(), expected.report.mappings.size());
    for (size_t i = 0; i < found.report.mappings.size(); ++i) {
      const auto& mine = found.report.mappings[i];
      const auto& other = expected.report.mappings[i];
      EXPECT_NEAR(mine.loss_after, other.loss_after, 0.02 * other.loss_after) << mine.mapping;
    }
    EXPECT_NEAR(found.report.clip_loss_after, expected.report.clip_loss_after,
                0.02 * expected.report.clip_loss_after);
    EXPECT_LT(difference(found.weights, expected.weights), 0.05);
    EXPECT_GT(counts.launches().count("errors_of_groups"), 0u);
    EXPECT_LT(counts.waits(), 100);  // not one for each candidate of scales and clips
  }

  test::TinyLayer layer_;
  std::unique_ptr<Backend> cpu_ = make_cpu_backend();
  std::vector<std::vector<int32_t>> windows_ = random_windows(4, 20, 96);
};

TEST_F(CudaQuantizer, FindsTheScalesAndClipsOfTheCpu) { expect_alike({}); }

TEST_F(CudaQuantizer, RoundsWithCompensationAndSweepsLikeTheCpu) {
  AwqModifier settings;
  settings.rounding = Rounding::compensated;
  settings.sweeps = 1;
  expect_alike(settings);
}

}  // namespace
}  // namespace salient
