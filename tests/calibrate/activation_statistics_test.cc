#include "calibrate/activation_statistics.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "support/random.h"

namespace salient {
namespace {

TEST(ActivationStatistics, MeanAndGramByDefinition) {
  const auto backend = make_cpu_backend();
  constexpr int64_t kRows = 37;
  constexpr int64_t kFeatures = 70;
  const Tensor x = random_tensor({kRows, kFeatures}, 1);
  ActivationStatistics statistics(kFeatures);
  statistics.add(*backend, MatmulPrecision::f32, x);
  const auto values = x.values<float>();
  const auto at = [&](int64_t row, int64_t c) {
    return static_cast<double>(values[static_cast<size_t>(row * kFeatures + c)]);
  };
  for (int64_t i = 0; i < kFeatures; ++i) {
    double mean = 0;
    for (int64_t row = 0; row < kRows; ++row) mean += std::abs(at(row, i)) / kRows;
    EXPECT_NEAR(statistics.mean_absolute()[static_cast<size_t>(i)], mean, 1e-5);
    for (int64_t j = 0; j < kFeatures; ++j) {
      double dot = 0;
      for (int64_t row = 0; row < kRows; ++row) dot += at(row, i) * at(row, j);
      EXPECT_NEAR(statistics.gram().whole().values<float>()[static_cast<size_t>(i * kFeatures + j)], dot,
                  1e-4);
    }
  }
  EXPECT_EQ(statistics.tokens(), kRows);
}

TEST(ActivationStatistics, MergedPartsEqualTheWhole) {
  const auto backend = make_cpu_backend();
  const Tensor x = random_tensor({40, 32}, 2);
  ActivationStatistics whole(32);
  ActivationStatistics first(32);
  ActivationStatistics second(32);
  whole.add(*backend, MatmulPrecision::f32, x);
  first.add(*backend, MatmulPrecision::f32, x.slice(0, 11));
  second.add(*backend, MatmulPrecision::f32, x.slice(11, 40));
  first.merge(second);
  EXPECT_EQ(first.tokens(), whole.tokens());
  for (size_t i = 0; i < 32; ++i) EXPECT_NEAR(first.mean_absolute()[i], whole.mean_absolute()[i], 1e-6);
  for (size_t i = 0; i < 32 * 32; ++i)
    EXPECT_NEAR(first.gram().whole().values<float>()[i], whole.gram().whole().values<float>()[i], 1e-4);
}

TEST(ActivationStatistics, MergeRefusesOtherWidths) {
  ActivationStatistics a(8);
  EXPECT_THROW(a.merge(ActivationStatistics(9)), Error);
}

TEST(ActivationStatistics, WithoutTokensTheMeanIsZero) {
  EXPECT_EQ(ActivationStatistics(3).mean_absolute()[0], 0.0f);
}

}  // namespace
}  // namespace salient
