#include "backend/kernel_bench.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <limits>
#include <utility>

#include "backend/backend_fixture.h"

namespace salient::test {
namespace {

std::vector<std::string> names_of(const std::vector<KernelContender>& contenders) {
  std::vector<std::string> names;
  for (const KernelContender& contender : contenders)
    names.push_back(contender.isa + " " + std::string(to_string(contender.activations)));
  return names;
}

KernelContender contender(ActivationMode said, ActivationMode computed) {
  return {.isa = "portable",
          .activations = said,
          .library_keeps_to_it = false,
          .backend = make_cpu_backend_for(Isa::portable, {.activations = computed})};
}

TEST(KernelBench, EveryModeOfEveryInstructionSetIsRight) {
  if (std::getenv("SALIENT_ISA") != nullptr) GTEST_SKIP() << "SALIENT_ISA names one instruction set";
  const auto contenders = kernel_contenders({});
  EXPECT_EQ(contenders.size() % 3, 0u);
  const std::vector<std::string> names = names_of(contenders);
  for (const Isa isa : supported_isas()) {
    const bool reference = isa == Isa::portable && supported_isas().size() > 1;
    EXPECT_EQ(std::ranges::count(names, std::string(to_string(isa)) + " int16"), reference ? 0 : 1);
  }
  KernelBench bench({.outputs = 50, .depth = 192, .group_size = 64}, 21);
  for (const KernelContender& each : contenders) {
    for (const int64_t rows : {1, 2, 8, 9, 21}) {
      if (!KernelBench::has_product(each, rows)) continue;
      const KernelSpeed speed = bench.measure(each, rows, 1, nullptr);
      EXPECT_TRUE(speed.correct) << each.isa << " " << to_string(each.activations) << ", " << rows << " rows";
      EXPECT_EQ(speed.operations, 2.0 * static_cast<double>(rows) * 50 * 192);
      EXPECT_GT(speed.weight_bytes, 50 * 192 / 2);
      EXPECT_GT(speed.seconds, 0);
      EXPECT_GT(speed.portable_seconds, 0);
    }
  }
}

/// A back end that computes in another mode than it is said to stands in for a kernel that is wrong.
TEST(KernelBench, AWrongProductIsFound) {
  KernelBench bench({.outputs = 33, .depth = 256}, 12);
  for (const auto& [said, computed] : {std::pair{ActivationMode::int16, ActivationMode::int8},
                                       {ActivationMode::int8, ActivationMode::int16},
                                       {ActivationMode::fp32, ActivationMode::int8}}) {
    for (const int64_t rows : {1, 12}) {
      const KernelSpeed speed = bench.measure(contender(said, computed), rows, 1, nullptr);
      EXPECT_FALSE(speed.correct) << to_string(said) << " by " << to_string(computed);
      EXPECT_GT(speed.difference, 0);
    }
  }
}

TEST(KernelBench, DifferencesAreSharesOfTheOutputsSize) {
  const Tensor expected = Tensor::of<float>({2, 2}, std::array{3.0f, -4.0f, 3.0f, 4.0f});
  EXPECT_EQ(output_difference(expected, expected), 0);
  const Tensor y = Tensor::of<float>({2, 2}, std::array{3.0f, -4.0f, 3.5f, 4.25f});
  EXPECT_NEAR(output_difference(expected, y), 0.5 / std::sqrt(12.5), 1e-12);
  const Tensor nan =
      Tensor::of<float>({2, 2}, std::array{3.0f, std::numeric_limits<float>::quiet_NaN(), 3.0f, 4.0f});
  EXPECT_EQ(output_difference(expected, nan), std::numeric_limits<double>::infinity());
}

TEST(KernelBench, ExactProductsOfManyRowsAreTheLibrarys) {
  const KernelContender unbound = contender(ActivationMode::fp32, ActivationMode::fp32);
  EXPECT_TRUE(KernelBench::has_product(unbound, 8));
  EXPECT_FALSE(KernelBench::has_product(unbound, 9));
  EXPECT_TRUE(KernelBench::has_product(contender(ActivationMode::int8, ActivationMode::int8), 9));
}

TEST(KernelBench, ShapesWithoutSuchWeightsAreRefused) {
  for (const KernelShape& shape : {KernelShape{0, 128},
                                   {16, 0},
                                   {16, 100},
                                   {16, 96, 64},
                                   {16, 96, 12},
                                   {16, 96, 0},
                                   {16, int64_t{1} << 40}})
    error_of([&] { check_kernel_shape(shape); }, ErrorKind::invalid_argument);
  check_kernel_shape({1, 96, -1});
  EXPECT_EQ(
      error_of([] { kernel_contenders(std::array<std::string, 1>{"avx3"}); }, ErrorKind::invalid_argument)
          .find("instruction set: avx3: unknown"),
      0u);
}

TEST(KernelBench, StopsOnRequest) {
  KernelBench bench({.outputs = 16, .depth = 128}, 1);
  const CancellationFlag raised{true};
  const KernelContender one = contender(ActivationMode::int8, ActivationMode::int8);
  error_of([&] { bench.measure(one, 1, 1, &raised); }, ErrorKind::cancelled);
}

}  // namespace
}  // namespace salient::test
