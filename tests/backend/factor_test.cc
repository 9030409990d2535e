#include "backend/backend_fixture.h"

namespace salient::test {
namespace {

class FactorTest : public EveryIsa {
 protected:
  /// x^T x of `rows` random rows with `raise` added to the diagonal.
  Tensor gram(int64_t rows, int64_t k, float raise) {
    Tensor result = Tensor::zeros(DType::f32, {k, k});
    backend->accumulate_gram(random({rows, k}), MatmulPrecision::f32, result);
    auto values = result.mutable_values<float>();
    for (int64_t i = 0; i < k; ++i) values[static_cast<size_t>(i * k + i)] += raise;
    return result;
  }
};

SALIENT_EVERY_ISA(FactorTest);

/// S U^-T must be a lower triangle, as S = U D U^T says, and D positive.
TEST_P(FactorTest, FactorsAreUnitUpperTriangles) {
  for (const int64_t k : {1, 5, 127, 128, 129, 300}) {
    const Tensor matrix = gram(k + 20, k, 1.0f);
    Tensor upper = matrix.to(DType::f32);
    ASSERT_TRUE(backend->factorize(upper)) << k;
    std::vector<double> diagonal(static_cast<size_t>(k));
    double worst = 0;
    double scale = 0;
    // From the last row and column on: what is left of S after the columns to the right is D U^T's share.
    for (int64_t i = k - 1; i >= 0; --i) {
      ASSERT_EQ(at(upper, i, i), 1.0f);
      double pivot = double{at(matrix, i, i)};
      for (int64_t j = i + 1; j < k; ++j) {
        pivot -= double{at(upper, i, j)} * double{at(upper, i, j)} * diagonal[static_cast<size_t>(j)];
      }
      diagonal[static_cast<size_t>(i)] = pivot;
      ASSERT_GT(pivot, 0) << i << " of " << k;
      for (int64_t row = 0; row < i; ++row) {
        double rest = double{at(matrix, row, i)} - double{at(upper, row, i)} * pivot;
        for (int64_t j = i + 1; j < k; ++j) {
          rest -= double{at(upper, row, j)} * double{at(upper, i, j)} * diagonal[static_cast<size_t>(j)];
        }
        worst = std::max(worst, std::abs(rest));
        scale = std::max(scale, std::abs(double{at(matrix, row, i)}));
      }
    }
    EXPECT_LE(worst, 1e-4 * scale) << k;
  }
}

TEST_P(FactorTest, SaysWhenAMatrixIsNotPositiveDefinite) {
  Tensor singular = gram(10, 200, 0.0f);
  auto values = singular.mutable_values<float>();
  values[0] -= 50.0f;
  EXPECT_FALSE(backend->factorize(singular));
  Tensor not_finite = gram(10, 4, 1.0f);
  not_finite.mutable_values<float>()[5] = NAN;
  EXPECT_FALSE(backend->factorize(not_finite));
}

TEST_P(FactorTest, SameBytesForAnyThreadCount) {
  const Tensor matrix = gram(400, 300, 1.0f);
  expect_same_for_any_thread_count([&] {
    Tensor upper = matrix.to(DType::f32);
    EXPECT_TRUE(backend->factorize(upper));
    return upper;
  });
}

TEST_P(FactorTest, WrongSizesAreInternalErrors) {
  Tensor wide = random({3, 4});
  error_of([&] { backend->factorize(wide); }, ErrorKind::internal);
}

}  // namespace
}  // namespace salient::test
