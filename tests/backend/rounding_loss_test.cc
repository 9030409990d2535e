#include "backend/backend_fixture.h"
#include "quant/group_quantize.h"

namespace salient::test {
namespace {

/// rounding_loss is defined by what fake_quantize_row gives.
class RoundingLossTest : public EveryIsa {
 protected:
  Tensor gram_of(int64_t k) {
    Tensor result = Tensor::zeros(DType::f32, {k, k});
    backend->accumulate_gram(random({2 * k, k}), MatmulPrecision::f32, result);
    return result;
  }

  /// Q(w s) / s - w of one row.
  static std::vector<double> errors_of(const RoundingRule& rule, std::span<const float> row,
                                       std::span<const float> scales, std::span<const float> clip) {
    std::vector<float> rounded(row.begin(), row.end());
    for (size_t c = 0; c < scales.size(); ++c) rounded[c] *= scales[c];
    fake_quantize_row(rule, rounded, clip, rounded);
    std::vector<double> errors(row.size());
    for (size_t c = 0; c < row.size(); ++c)
      errors[c] = double{rounded[c]} / (scales.empty() ? 1.0 : double{scales[c]}) - double{row[c]};
    return errors;
  }

  static double form(const std::vector<double>& errors, const Tensor& gram, size_t begin, size_t end) {
    double sum = 0;
    for (size_t i = begin; i < end; ++i) {
      for (size_t j = begin; j < end; ++j)
        sum += errors[i] * double{at(gram, static_cast<int64_t>(i), static_cast<int64_t>(j))} * errors[j];
    }
    return sum;
  }

  std::vector<float> positive(int64_t count) {
    const Tensor exponents = random({count}, 0.5f);
    std::vector<float> result;
    for (const float value : exponents.values<float>()) result.push_back(std::exp(value));
    return result;
  }
};

SALIENT_EVERY_ISA(RoundingLossTest);

struct LossCase {
  int bits;
  bool symmetric;
  int64_t group_size;
  int64_t rows;
  int64_t columns;
  int64_t step;
};

TEST_P(RoundingLossTest, IsTheFormOfTheRoundingErrors) {
  for (const LossCase& shape : std::vector<LossCase>{{4, false, 32, 5, 96, 1},
                                                     {4, true, 64, 130, 192, 1},
                                                     {3, false, 16, 97, 80, 3},
                                                     {8, true, 128, 20, 640, 2},
                                                     {2, false, QuantizationScheme::kWholeRow, 9, 70, 1}}) {
    const Tensor weight = random({shape.rows, shape.columns});
    const Tensor gram = gram_of(shape.columns);
    const RoundingRule rule{
        .scheme = {.num_bits = shape.bits, .symmetric = shape.symmetric, .group_size = shape.group_size},
        .scale_dtype = DType::bf16};
    const int64_t groups = group_count(rule.scheme, shape.columns);
    Tensor clip = random({shape.rows, groups});
    for (float& value : clip.mutable_values<float>()) value = 1.0f + std::fabs(value);
    for (const auto& scales : {std::vector<float>(), positive(shape.columns)}) {
      for (const bool clipped : {false, true}) {
        const RoundingLossProblem problem{.rule = rule,
                                          .weight = weight,
                                          .column_scales = scales,
                                          .clip = clipped ? clip : Tensor(),
                                          .gram = gram,
                                          .row_step = shape.step};
        const auto counted = static_cast<size_t>((shape.rows + shape.step - 1) / shape.step);
        std::vector<double> loss(counted);
        std::vector<double> by_group(counted * static_cast<size_t>(groups));
        backend->rounding_loss(problem, loss);
        backend->rounding_loss_by_group(problem, by_group);
        for (size_t i = 0; i < counted; ++i) {
          const size_t row = i * static_cast<size_t>(shape.step);
          const auto columns = static_cast<size_t>(shape.columns);
          const auto bounds = clipped ? clip.values<float>().subspan(row * static_cast<size_t>(groups),
                                                                     static_cast<size_t>(groups))
                                      : std::span<const float>();
          const auto errors =
              errors_of(rule, weight.values<float>().subspan(row * columns, columns), scales, bounds);
          const double expected = form(errors, gram, 0, columns);
          ASSERT_NEAR(loss[i], expected, 1e-4 * expected) << shape.columns << " columns, row " << row;
          const auto width = static_cast<size_t>(group_width(rule.scheme, shape.columns));
          for (size_t group = 0; group < static_cast<size_t>(groups); ++group) {
            const double own = form(errors, gram, group * width, std::min(columns, (group + 1) * width));
            ASSERT_NEAR(by_group[i * static_cast<size_t>(groups) + group], own, 1e-4 * own + 1e-9);
          }
        }
      }
    }
  }
}

TEST_P(RoundingLossTest, RoundedProductsComeClose) {
  const auto rounding = make_cpu_backend_for(GetParam(), {.precision = MatmulPrecision::bf16});
  if (rounding->description().find("bf16 needs") != std::string::npos)
    GTEST_SKIP() << "no bf16 products: " << rounding->description();
  const Tensor weight = random({300, 1100});
  const Tensor gram = gram_of(1100);
  const RoundingRule rule{.scheme = {.group_size = 64}, .scale_dtype = DType::bf16};
  std::vector<double> exact(300);
  std::vector<double> rounded(300);
  RoundingLossProblem problem{.rule = rule, .weight = weight, .clip = {}, .gram = gram};
  rounding->rounding_loss(problem, exact);
  problem.precision = MatmulPrecision::bf16;
  rounding->rounding_loss(problem, rounded);
  EXPECT_NE(exact, rounded);
  for (size_t i = 0; i < exact.size(); ++i) ASSERT_NEAR(rounded[i], exact[i], 5e-3 * exact[i]) << i;
}

TEST_P(RoundingLossTest, SameBytesForAnyThreadCount) {
  const Tensor weight = random({700, 200});
  const Tensor gram = gram_of(200);
  const RoundingRule rule{.scheme = {.group_size = QuantizationScheme::kWholeRow}, .scale_dtype = DType::f16};
  std::vector<double> first(700);
  set_thread_count(1);
  backend->rounding_loss({.rule = rule, .weight = weight, .clip = {}, .gram = gram}, first);
  for (const size_t threads : {2, 5}) {
    set_thread_count(threads);
    std::vector<double> other(700);
    backend->rounding_loss({.rule = rule, .weight = weight, .clip = {}, .gram = gram}, other);
    EXPECT_EQ(first, other);
  }
}

TEST_P(RoundingLossTest, ANumberThatIsNoneShowsInTheLoss) {
  Tensor weight = random({2, 64});
  weight.mutable_values<float>()[70] = NAN;
  const Tensor gram = gram_of(64);
  const RoundingRule rule{.scheme = {.group_size = 32}, .scale_dtype = DType::f16};
  std::vector<double> loss(2);
  backend->rounding_loss({.rule = rule, .weight = weight, .clip = {}, .gram = gram}, loss);
  EXPECT_TRUE(std::isfinite(loss[0]));
  EXPECT_FALSE(std::isfinite(loss[1]));
}

/// rows S^-1 S must be the rows.
TEST_P(RoundingLossTest, SolvesForRowsOfASymmetricMatrix) {
  for (const int64_t k : {1, 7, 128, 129, 300}) {
    Tensor gram = gram_of(k);
    for (int64_t i = 0; i < k; ++i) gram.mutable_values<float>()[static_cast<size_t>(i * (k + 1))] += 1.0f;
    const Tensor rows = random({150, k});
    Tensor solved = rows.to(DType::f32);
    Tensor used = gram.to(DType::f32);
    ASSERT_TRUE(backend->solve(used, solved)) << k;
    for (int64_t row = 0; row < 150; row += 29) {
      for (int64_t c = 0; c < k; c += 11) {
        double product = 0;
        double size = 0;
        for (int64_t i = 0; i < k; ++i) {
          const double term = double{at(solved, row, i)} * double{at(gram, i, c)};
          product += term;
          size += std::abs(term);
        }
        ASSERT_NEAR(product, at(rows, row, c), 1e-5 * size + 1e-5) << k << ": " << row << ", " << c;
      }
    }
  }
  Tensor singular = Tensor::zeros(DType::f32, {3, 3});
  Tensor rows = random({2, 3});
  EXPECT_FALSE(backend->solve(singular, rows));
}

TEST_P(RoundingLossTest, AccumulatesProductsOfColumns) {
  const Tensor a = random({70, 300});
  const Tensor b = random({70, 9});
  const Tensor start = random({300, 9});
  Tensor result = start.to(DType::f32);
  backend->accumulate_product(a, b, MatmulPrecision::f32, result);
  for (int64_t i = 0; i < 300; i += 7) {
    for (int64_t j = 0; j < 9; ++j) {
      double expected = double{at(start, i, j)};
      double size = std::abs(expected);
      for (int64_t r = 0; r < 70; ++r) {
        const double term = double{at(a, r, i)} * double{at(b, r, j)};
        expected += term;
        size += std::abs(term);
      }
      ASSERT_NEAR(at(result, i, j), expected, 2e-6 * size) << i << ", " << j;
    }
  }
}

}  // namespace
}  // namespace salient::test
