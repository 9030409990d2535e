#include "backend/cuda/factor.h"

#include <cmath>

#include "backend/backend.h"
#include "backend/cuda/device_arrays.h"

namespace salient::test {
namespace {

class CudaFactor : public DeviceArrays {
 protected:
  double at(const Tensor& matrix, int64_t row, int64_t column) const {
    return double{matrix.values<float>()[static_cast<size_t>(row * matrix.dim(1) + column)]};
  }
  /// x^T x of `rows` random rows with `raise` added to the diagonal.
  Tensor gram(int64_t rows, int64_t k, float raise) {
    Tensor result = Tensor::zeros(DType::f32, {k, k});
    cpu->accumulate_gram(random({rows, k}), MatmulPrecision::f32, result);
    for (int64_t i = 0; i < k; ++i) result.mutable_values<float>()[static_cast<size_t>(i * k + i)] += raise;
    return result;
  }
  bool factorize(float* matrix, int64_t k) {
    auto* workspace = room<std::byte>(cuda::factorization_bytes(k));
    return cuda::factorize(device, {.symmetric = matrix, .k = k, .workspace = workspace});
  }

  std::unique_ptr<Backend> cpu = make_cpu_backend();
};

TEST_F(CudaFactor, IsTheFactorOfTheCpu) {
  for (const int64_t k : {1, 5, 64, 68, 130, 200}) {
    device.set_seed(static_cast<uint32_t>(k));
    const Tensor matrix = gram(k + 20, k, 1.0f);
    float* own = put(matrix);
    ASSERT_TRUE(factorize(own, k)) << k;
    const Tensor found = get(own, {k, k});
    Tensor upper = matrix.to(DType::f32);
    ASSERT_TRUE(cpu->factorize(upper));
    for (int64_t i = 0; i < k; ++i) {
      ASSERT_EQ(at(found, i, i), 1.0) << i;
      for (int64_t j = i + 1; j < k; ++j)
        ASSERT_NEAR(at(found, i, j), at(upper, i, j), 1e-5) << i << ", " << j;
    }
  }
}

TEST_F(CudaFactor, SaysWhenAMatrixIsNotPositiveDefinite) {
  Tensor singular = gram(10, 100, 0.0f);
  singular.mutable_values<float>()[0] -= 50.0f;
  EXPECT_FALSE(factorize(put(singular), 100));
  Tensor not_finite = gram(10, 4, 1.0f);
  not_finite.mutable_values<float>()[5] = NAN;
  EXPECT_FALSE(factorize(put(not_finite), 4));
  not_finite.mutable_values<float>()[5] = INFINITY;
  EXPECT_FALSE(factorize(put(not_finite), 4));
}

TEST_F(CudaFactor, SolvesForRows) {
  for (const auto& [rows, k] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {3, 7}, {130, 72}, {5, 150}}) {
    const Tensor matrix = gram(k + 20, k, 1.0f);
    const Tensor values = random({rows, k});
    float* own = put(values);
    auto* workspace = room<std::byte>(cuda::solution_bytes(rows, k));
    ASSERT_TRUE(cuda::solve(
        device, {.symmetric = put(matrix), .values = own, .rows = rows, .k = k, .workspace = workspace}));
    const Tensor found = get(own, {rows, k});
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t j = 0; j < k; ++j) {
        double sum = 0;
        double size = 0;
        for (int64_t i = 0; i < k; ++i) {
          sum += at(found, r, i) * at(matrix, i, j);
          size += std::abs(at(found, r, i) * at(matrix, i, j));
        }
        ASSERT_NEAR(sum, at(values, r, j), 1e-6 * size + 1e-6) << r << ", " << j << " of " << k;
      }
    }
  }
  Tensor singular = gram(3, 8, 0.0f);
  singular.mutable_values<float>()[0] = -1.0f;
  EXPECT_FALSE(cuda::solve(device, {.symmetric = put(singular),
                                    .values = put(random({2, 8})),
                                    .rows = 2,
                                    .k = 8,
                                    .workspace = room<std::byte>(cuda::solution_bytes(2, 8))}));
}

}  // namespace
}  // namespace salient::test
