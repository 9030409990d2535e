#include "backend/backend_fixture.h"

namespace salient::test {
namespace {

class GramTest : public EveryIsa {
 protected:
  /// Largest |gram - start - x^T x| over |start| + |x|^T |x|.
  static double gram_error(const Tensor& x, const Tensor& start, const Tensor& gram) {
    double worst = 0;
    for (int64_t i = 0; i < x.dim(1); ++i) {
      for (int64_t j = 0; j < x.dim(1); ++j) {
        double exact = at(start, i, j);
        double size = std::abs(exact) + 1e-30;
        for (int64_t r = 0; r < x.dim(0); ++r) {
          const double term = double{at(x, r, i)} * double{at(x, r, j)};
          exact += term;
          size += std::abs(term);
        }
        worst = std::max(worst, std::abs(double{at(gram, i, j)} - exact) / size);
      }
    }
    return worst;
  }
  Tensor random_symmetric(int64_t k) {
    Tensor result = random({k, k});
    auto values = result.mutable_values<float>();
    for (int64_t i = 0; i < k; ++i) {
      for (int64_t j = 0; j < i; ++j) {
        values[static_cast<size_t>(j * k + i)] = values[static_cast<size_t>(i * k + j)];
      }
    }
    return result;
  }
  static Tensor copy(const Tensor& tensor) { return tensor.to(DType::f32); }
};

SALIENT_EVERY_ISA(GramTest);

/// As for linears: rounding errors relative to the sum of magnitudes.
constexpr double kBound = 1.5e-6;

TEST_P(GramTest, AddsTheProductOfEveryPairOfColumns) {
  for (const auto& [rows, k] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {1, 5}, {33, 7}, {20, 100}, {65, 257}, {40, 530}}) {
    const Tensor x = random({rows, k});
    const Tensor start = random_symmetric(k);
    Tensor gram = copy(start);
    backend->accumulate_gram(x, MatmulPrecision::f32, gram);
    EXPECT_LT(gram_error(x, start, gram), kBound) << rows << " x " << k;
    for (int64_t i = 0; i < k; ++i) {
      for (int64_t j = 0; j < i; ++j) ASSERT_EQ(at(gram, i, j), at(gram, j, i));
    }
  }
}

TEST_P(GramTest, RoundedModeMultipliesRoundedColumns) {
  const auto rounding = make_cpu_backend_for(GetParam(), {.precision = MatmulPrecision::bf16});
  if (rounding->description().find("bf16 needs") != std::string::npos) {
    GTEST_SKIP() << "no bf16 products: " << rounding->description();
  }
  for (const auto& [rows, k] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 5}, {33, 7}, {65, 257}, {4100, 9}}) {
    const Tensor x = random({rows, k});
    const Tensor start = random_symmetric(k);
    Tensor gram = copy(start);
    rounding->accumulate_gram(x, MatmulPrecision::bf16, gram);
    EXPECT_LT(gram_error(x.to(DType::bf16).to(DType::f32), start, gram), kBound) << rows << " x " << k;
  }
}

TEST_P(GramTest, SameBytesForAnyThreadCount) {
  for (const MatmulPrecision precision : {MatmulPrecision::f32, MatmulPrecision::bf16}) {
    const Tensor x = random({100, 600});
    expect_same_for_any_thread_count([&] {
      Tensor gram = Tensor::zeros(DType::f32, {600, 600});
      backend->accumulate_gram(x, precision, gram);
      return gram;
    });
  }
}

/// Relative to the sum of magnitudes, as the terms may cancel.
TEST_P(GramTest, QuadraticFormAgreesWithDoublePrecision) {
  for (const auto& [rows, k] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {3, 9}, {33, 100}, {130, 192}, {140, 401}}) {
    const Tensor x = random({rows, k});
    const Tensor symmetric = random_symmetric(k);
    std::vector<double> result(static_cast<size_t>(rows), -1.0);
    backend->quadratic_form(x, symmetric, result);
    for (int64_t r = 0; r < rows; ++r) {
      double exact = 0;
      double size = 0;
      for (int64_t i = 0; i < k; ++i) {
        for (int64_t j = 0; j < k; ++j) {
          const double term = double{at(x, r, i)} * double{at(symmetric, i, j)} * double{at(x, r, j)};
          exact += term;
          size += std::abs(term);
        }
      }
      ASSERT_LT(std::abs(result[static_cast<size_t>(r)] - exact), kBound * size) << r << " of " << rows;
    }
  }
}

TEST_P(GramTest, QuadraticFormOfAGramMatrixIsTheSquaredOutput) {
  const Tensor x = random({50, 300});
  const Tensor d = random({7, 300});
  Tensor gram = Tensor::zeros(DType::f32, {300, 300});
  backend->accumulate_gram(x, MatmulPrecision::f32, gram);
  std::vector<double> result(7);
  backend->quadratic_form(d, gram, result);
  for (int64_t row = 0; row < 7; ++row) {
    double expected = 0;
    for (int64_t token = 0; token < 50; ++token) {
      double y = 0;
      for (int64_t c = 0; c < 300; ++c) y += double{at(x, token, c)} * double{at(d, row, c)};
      expected += y * y;
    }
    EXPECT_NEAR(result[static_cast<size_t>(row)] / expected, 1, 1e-4);
  }
}

TEST_P(GramTest, QuadraticFormIsTheSameForAnyThreadCount) {
  const Tensor x = random({300, 400});
  const Tensor symmetric = random_symmetric(400);
  expect_same_for_any_thread_count([&] {
    std::vector<double> result(300);
    backend->quadratic_form(x, symmetric, result);
    std::vector<float> narrow(result.begin(), result.end());
    return Tensor::of<float>({300}, narrow);
  });
}

TEST_P(GramTest, WrongSizesAreInternalErrors) {
  Tensor gram = Tensor::zeros(DType::f32, {4, 5});
  EXPECT_EQ(error_of(
                [&] {
                  backend->accumulate_gram(random({3, 4}), MatmulPrecision::f32, gram);
                },
                ErrorKind::internal),
            "back end: Gram matrix is F32 [4, 5], expected F32 [4, 4]");
  std::vector<double> result(2);
  EXPECT_EQ(error_of(
                [&] {
                  backend->quadratic_form(random({3, 4}), random({4, 4}), result);
                },
                ErrorKind::internal),
            "back end: a quadratic form has one result per row");
  error_of([&] { backend->quadratic_form(random({2, 4}), random({4, 5}), result); }, ErrorKind::internal);
}

}  // namespace
}  // namespace salient::test
