#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "backend/backend.h"

namespace salient {
namespace {

/// What std::stable_sort and sums in f64 make of the rows.
LargestValues expected_values(const Tensor& x, int64_t wanted, std::span<const float> scales) {
  LargestValues result{.wanted = wanted, .values = {}, .indices = {}, .sums = {}, .reaching = {}};
  const auto columns = static_cast<size_t>(x.dim(1));
  for (size_t row = 0; row < static_cast<size_t>(x.dim(0)); ++row) {
    const auto values = x.values<float>().subspan(row * columns, columns);
    std::vector<int32_t> order(columns);
    std::iota(order.begin(), order.end(), 0);
    const auto at = [&](int32_t index) { return values[static_cast<size_t>(index)]; };
    std::ranges::stable_sort(
        order, [&](int32_t a, int32_t b) { return std::isnan(at(b)) ? !std::isnan(at(a)) : at(a) > at(b); });
    order.resize(static_cast<size_t>(wanted), -1);
    for (const int32_t index : order) {
      result.indices.push_back(index);
      result.values.push_back(index < 0 ? 0.0f : at(index));
    }
    if (scales.empty()) continue;
    double sum = 0;
    for (const float value : values)
      sum += std::exp((double{value} - double{at(order[0])}) * double{scales[row]});
    result.sums.push_back(static_cast<float>(sum));
    const float last = result.values.back();
    result.reaching.push_back(
        static_cast<int32_t>(std::ranges::count_if(values, [&](float value) { return value >= last; })));
  }
  return result;
}

void expect_values(const Tensor& x, int64_t wanted, std::span<const float> scales = {}) {
  const auto backend = make_cpu_backend();
  const LargestValues found = backend->largest({.x = x, .wanted = wanted, .scales = scales});
  const LargestValues right = expected_values(x, wanted, scales);
  EXPECT_EQ(found.indices, right.indices) << wanted << " of " << to_string(x.shape());
  EXPECT_EQ(found.reaching, right.reaching);
  ASSERT_EQ(found.values.size(), right.values.size());
  for (size_t i = 0; i < right.values.size(); ++i)
    EXPECT_TRUE(found.values[i] == right.values[i] ||
                (std::isnan(found.values[i]) && std::isnan(right.values[i])));
  ASSERT_EQ(found.sums.size(), right.sums.size());
  for (size_t i = 0; i < right.sums.size(); ++i)
    EXPECT_NEAR(found.sums[i], right.sums[i], 1e-5 * right.sums[i]);
}

/// Numbers with a few digits, so that some come several times.
Tensor random_rows(int64_t rows, int64_t columns, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  Tensor result = Tensor::empty(DType::f32, {rows, columns});
  for (float& value : result.mutable_values<float>()) value = std::round(normal(generator) * 100) / 100;
  return result;
}

TEST(LargestValues, AreThoseOfASortedRow) {
  for (const int64_t columns : {1, 63, 64, 65, 1000, 16384, 40000}) {
    for (const int64_t wanted : {1, 2, 21, 64}) {
      const Tensor x = random_rows(3, columns, static_cast<uint32_t>(columns + wanted));
      expect_values(x, wanted);
      if (columns >= wanted) expect_values(x, wanted, std::vector<float>{1.0f, 0.3f, 2.5f});
    }
  }
}

TEST(LargestValues, OfRowsInOrderAndOfOneValue) {
  std::vector<float> rising(20000);
  std::iota(rising.begin(), rising.end(), -9000.0f);
  for (int i = 0; i < 2; ++i) {
    expect_values(Tensor::of<float>({1, 20000}, rising), 40);
    std::ranges::reverse(rising);
  }
  expect_values(Tensor::of<float>({1, 20000}, std::vector<float>(20000, -1.5f)), 64, std::vector{1.0f});
}

TEST(LargestValues, NaNAndInfinitiesHaveTheirPlaces) {
  std::vector<float> x(300, NAN);
  x[40] = -INFINITY;
  x[90] = INFINITY;
  x[50] = -1e30f;
  for (const int64_t wanted : {1, 3, 4, 64}) expect_values(Tensor::of<float>({1, 300}, x), wanted);
  std::vector<float> zeros(600, -0.0f);
  zeros[300] = 0.0f;
  expect_values(Tensor::of<float>({1, 600}, zeros), 3);
  const Tensor odd = Tensor::of<float>({1, 300}, x);
  EXPECT_TRUE(
      std::isnan(make_cpu_backend()->largest({.x = odd, .wanted = 2, .scales = std::vector{1.0f}}).sums[0]));
}

}  // namespace
}  // namespace salient
