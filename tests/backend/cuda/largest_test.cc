#include "backend/cuda/largest.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/device_arrays.h"

namespace salient::test {
namespace {

class CudaLargest : public DeviceArrays {
 protected:
  struct Result {
    std::vector<float> values;
    std::vector<int32_t> indices;
  };
  Result run(const std::vector<float>& x, int64_t rows, int64_t wanted) {
    const auto columns = static_cast<int64_t>(x.size()) / rows;
    const auto sizes = cuda::largest_workspace(device, rows, columns, wanted);
    auto* workspace = room<std::byte>(sizes.bytes);
    device.fill_zero(workspace, sizes.counter_bytes);
    const auto count = static_cast<size_t>(rows * wanted);
    auto* values = room<float>(count);
    auto* indices = room<int32_t>(count);
    for (int i = 0; i < 2; ++i) {  // the second time with what the first one left
      cuda::largest(device, {.x = put(x),
                             .rows = rows,
                             .columns = columns,
                             .wanted = wanted,
                             .values = values,
                             .indices = indices,
                             .workspace = workspace});
    }
    return {get(values, count), get(indices, count)};
  }

  /// What std::stable_sort makes of the rows.
  static Result expected(const std::vector<float>& x, int64_t rows, int64_t wanted) {
    const auto columns = x.size() / static_cast<size_t>(rows);
    Result result;
    for (size_t row = 0; row < static_cast<size_t>(rows); ++row) {
      const auto rank = [&](int32_t index) {
        const float value = x[row * columns + static_cast<size_t>(index)];
        return std::isnan(value) ? -INFINITY : value;
      };
      std::vector<int32_t> order(columns);
      std::iota(order.begin(), order.end(), 0);
      std::ranges::stable_sort(order, [&](int32_t a, int32_t b) { return rank(a) > rank(b); });
      for (size_t i = 0; i < static_cast<size_t>(wanted); ++i) {
        result.values.push_back(i < columns ? rank(order[i]) : 0.0f);
        result.indices.push_back(i < columns ? order[i] : -1);
      }
    }
    return result;
  }

  void expect_largest(const std::vector<float>& x, int64_t rows, int64_t wanted) {
    const Result found = run(x, rows, wanted);
    const Result right = expected(x, rows, wanted);
    EXPECT_EQ(found.indices, right.indices) << x.size() << " values, " << rows << " rows, " << wanted;
    EXPECT_EQ(found.values, right.values) << x.size() << " values, " << rows << " rows, " << wanted;
  }

  std::vector<float> random_values(size_t count) {
    const Tensor values = random({static_cast<int64_t>(count)});
    return {values.values<float>().begin(), values.values<float>().end()};
  }
};

TEST_F(CudaLargest, OfShortAndLongRows) {
  for (const int64_t wanted : {1, 5, 64}) {
    for (const auto& [rows, columns] : std::vector<std::pair<int64_t, size_t>>{{1, 1}, {3, 70}, {2, 5000}}) {
      device.set_seed(static_cast<uint32_t>(columns));
      expect_largest(random_values(static_cast<size_t>(rows) * columns), rows, wanted);
    }
  }
}

TEST_F(CudaLargest, OfRowsInParts) {
  expect_largest(random_values(20000), 1, 64);
  expect_largest(random_values(20000), 1, 1);
  std::vector<float> rising(9000);
  std::iota(rising.begin(), rising.end(), -4000.0f);
  expect_largest(rising, 1, 40);
  std::ranges::reverse(rising);
  expect_largest(rising, 1, 40);
}

TEST_F(CudaLargest, TiesGoToTheLowerIndex) {
  std::vector<float> x(6000);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 7);
  for (const int64_t wanted : {1, 64}) expect_largest(x, 1, wanted);
  std::vector<float> zeros(600, -0.0f);
  zeros[300] = 0.0f;
  EXPECT_EQ(run(zeros, 1, 3).indices, (std::vector<int32_t>{0, 1, 2}));
}

TEST_F(CudaLargest, NaNIsLessThanAnything) {
  std::vector<float> x(100, NAN);
  x[40] = -INFINITY;
  x[90] = INFINITY;
  x[50] = -1e30f;
  EXPECT_EQ(run(x, 1, 4).indices, (std::vector<int32_t>{90, 50, 40, 0}));
  EXPECT_EQ(run(x, 1, 1).indices, (std::vector<int32_t>{90}));
}

/// What Backend::largest gives, against the CPU's.
class CudaLargestValues : public testing::Test {
 protected:
  CudaLargestValues() {
    auto owned = std::make_unique<SimulatedDevice>();
    device_ = owned.get();
    backend_ = cuda::make_cuda_backend(std::move(owned), {});
  }

  void expect_values(const Tensor& x, int64_t wanted, std::span<const float> scales) {
    const LargestValues found = backend_->largest({.x = x, .wanted = wanted, .scales = scales});
    const LargestValues right = make_cpu_backend()->largest({.x = x, .wanted = wanted, .scales = scales});
    EXPECT_EQ(found.wanted, wanted);
    EXPECT_EQ(found.values, right.values);
    EXPECT_EQ(found.indices, right.indices);
    EXPECT_EQ(found.reaching, right.reaching);
    ASSERT_EQ(found.sums.size(), scales.size());
    for (size_t i = 0; i < scales.size(); ++i)
      EXPECT_NEAR(found.sums[i], right.sums[i], 0.1 * kSumError * right.sums[i]) << i;
  }

  SimulatedDevice* device_ = nullptr;
  std::unique_ptr<Backend> backend_;
};

TEST_F(CudaLargestValues, AreTheCpus) {
  std::mt19937 generator(3);
  std::normal_distribution<float> normal(0.0f, 4.0f);
  for (const auto& [rows, columns] : std::vector<std::pair<int64_t, int64_t>>{{1, 3}, {3, 700}, {2, 9000}}) {
    Tensor x = Tensor::empty(DType::f32, {rows, columns});
    for (float& value : x.mutable_values<float>()) value = std::round(normal(generator) * 10) / 10;
    std::vector<float> scales;
    for (int64_t row = 0; row < rows; ++row) scales.push_back(1.5f / static_cast<float>(row + 1));
    for (const int64_t wanted : {1, 33, 64}) {
      device_->set_seed(static_cast<uint32_t>(columns + wanted));
      expect_values(x, wanted, wanted > columns ? std::span<const float>() : scales);
      expect_values(x, wanted, {});
    }
  }
}

TEST_F(CudaLargestValues, SayWhereASumIsNone) {
  std::vector<float> x(600, 1.0f);
  x[5] = INFINITY;
  x[302] = NAN;
  const LargestValues found = backend_->largest(
      {.x = Tensor::of<float>({2, 300}, x), .wanted = 2, .scales = std::vector<float>{1, 1}});
  EXPECT_TRUE(std::isnan(found.sums[0]));
  EXPECT_TRUE(std::isnan(found.sums[1]));
  EXPECT_EQ(found.indices, (std::vector<int32_t>{5, 0, 0, 1}));
  EXPECT_EQ(found.reaching, (std::vector<int32_t>{300, 299}));
}

}  // namespace
}  // namespace salient::test
