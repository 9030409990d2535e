#include "awq/compensated_rounding.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/parallel.h"
#include "support/random_weights.h"
#include "support/split_input.h"

namespace salient {
namespace {

class CompensatedRounding : public ::testing::Test {
 protected:
  /// The Gram matrix of activations whose channels go together, as those of models do.
  Tensor correlated_gram(int64_t tokens, int64_t columns, uint32_t seed) {
    const Tensor causes = random_matrix(tokens, 8, seed);
    const Tensor mixing = random_matrix(columns, 8, 99);
    Tensor x = random_matrix(tokens, columns, seed + 1);
    auto values = x.mutable_values<float>();
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t c = 0; c < columns; ++c) {
        float sum = 0;
        for (int64_t i = 0; i < 8; ++i) {
          sum += causes.values<float>()[static_cast<size_t>(t * 8 + i)] *
                 mixing.values<float>()[static_cast<size_t>(c * 8 + i)];
        }
        values[static_cast<size_t>(t * columns + c)] += 200 * sum;
      }
    }
    Tensor gram = Tensor::zeros(DType::f32, {columns, columns});
    backend_->accumulate_gram(x, MatmulPrecision::f32, gram);
    return gram;
  }

  QuantizedWeight round(const Tensor& weight, const Tensor& gram, int64_t tokens, const Tensor& clip = {},
                        ActivationOrder order = ActivationOrder::none) {
    const FeedbackFactor factor = make_feedback_factor(*backend_, {GramMatrix(gram), tokens}, order, nullptr);
    return round_compensated(
        {.backend = *backend_, .rounding = rule_, .weight = weight, .clip = clip, .factor = factor});
  }

  /// Summed squared error of the output.
  double output_error(const Tensor& weight, const QuantizedWeight& rounded, const Tensor& gram) {
    Tensor difference = dequantize(rounded);
    auto values = difference.mutable_values<float>();
    for (size_t i = 0; i < values.size(); ++i) values[i] -= weight.values<float>()[i];
    std::vector<double> errors(static_cast<size_t>(weight.dim(0)));
    backend_->quadratic_form(difference, gram, errors);
    double sum = 0;
    for (const double error : errors) sum += error;
    return sum;
  }

  std::unique_ptr<Backend> backend_ = make_cpu_backend();
  RoundingRule rule_{.scheme = {.symmetric = false, .group_size = 32}, .scale_dtype = DType::f16};
};

TEST_F(CompensatedRounding, LosesLessThanNearestAlsoOnOtherTokens) {
  const Tensor weight = random_matrix(48, 160, 3);
  const Tensor seen = correlated_gram(6000, 160, 10);
  const Tensor unseen = correlated_gram(6000, 160, 20);
  const auto nearest = quantize_to_nearest(weight, {}, rule_.scheme, rule_.scale_dtype);
  const auto compensated = round(weight, seen, 6000);
  EXPECT_LT(output_error(weight, compensated, seen), 0.15 * output_error(weight, nearest, seen));
  EXPECT_LT(output_error(weight, compensated, unseen), 0.15 * output_error(weight, nearest, unseen));
  EXPECT_EQ(std::memcmp(compensated.scales.bytes(), nearest.scales.bytes(), nearest.scales.byte_size()), 0);
  EXPECT_EQ(std::memcmp(compensated.zeros.bytes(), nearest.zeros.bytes(), nearest.zeros.byte_size()), 0);
}

/// The definition, one column after the other with the factor of a 3 x 3 matrix worked out by hand:
/// H = U D U^T with U = [1 a b; 0 1 c; 0 0 1].
TEST_F(CompensatedRounding, IsTheRecursionOfTheDefinition) {
  rule_.scheme.group_size = QuantizationScheme::kWholeRow;
  rule_.scale_dtype = DType::f32;
  const std::vector<float> weights{0.37f, -0.81f, 1.0f, 0.13f, 0.52f, -0.66f};
  const Tensor weight = Tensor::of<float>({2, 3}, weights);
  const std::vector<float> products{4, 1.5f, -1, 1.5f, 3, 0.8f, -1, 0.8f, 2};
  const Tensor gram = Tensor::of<float>({3, 3}, products);
  const int64_t tokens = 6'000'000;  // the diagonal is raised by the least share, 1 %
  const auto result = round(weight, gram, tokens);
  const double mean = 3;
  const auto h = [&](size_t i, size_t j) {
    const double value = double{products[i * 3 + j]};
    return i == j ? value * 1.01 + 1e-6 * mean : value;
  };
  const double c = h(1, 2) / h(2, 2);
  const double b = h(0, 2) / h(2, 2);
  const double d1 = h(1, 1) - c * c * h(2, 2);
  const double a = (h(0, 1) - b * c * h(2, 2)) / d1;
  for (int64_t row = 0; row < 2; ++row) {
    const GroupGrid grid{result.scale(row, 0), result.zero(row, 0)};
    double errors[3] = {};
    for (int64_t k = 0; k < 3; ++k) {
      const double fed = k == 0 ? 0 : k == 1 ? errors[0] * a : errors[0] * b + errors[1] * c;
      const double w = double{weights[static_cast<size_t>(row * 3 + k)]};
      const int code = quantize_value(rule_.scheme, grid, static_cast<float>(w + fed));
      EXPECT_EQ(result.code(row, k), code) << row << ", " << k;
      errors[k] = w - (code - grid.zero) * double{grid.scale};
    }
  }
}

/// U of H = U D U^T in double, from the last column on.
std::vector<double> upper_factor(std::vector<double> h, size_t size) {
  std::vector<double> upper(size * size, 0.0);
  for (size_t column = size; column-- > 0;) {
    const double pivot = h[column * size + column];
    for (size_t row = 0; row <= column; ++row) upper[row * size + column] = h[row * size + column] / pivot;
    for (size_t i = 0; i < column; ++i) {
      for (size_t j = 0; j <= i; ++j) {
        h[j * size + i] -= upper[i * size + column] * upper[j * size + column] * pivot;
      }
    }
  }
  return upper;
}

/// Every code is the nearest to its target, which follows from the codes before it: across blocks of columns
/// and groups of any width.
TEST_F(CompensatedRounding, EveryCodeIsNearestToItsTarget) {
  constexpr size_t kColumns = 300;
  const Tensor weight = random_matrix(5, kColumns, 8);
  const Tensor gram = correlated_gram(2000, kColumns, 4);
  std::vector<double> h(gram.values<float>().begin(), gram.values<float>().end());
  double mean = 0;
  for (size_t i = 0; i < kColumns; ++i) mean += h[i * kColumns + i] / kColumns;
  for (size_t i = 0; i < kColumns; ++i) {
    h[i * kColumns + i] = h[i * kColumns + i] * (1 + kColumns / (2000.0 / 6)) + 1e-6 * mean;
  }
  const std::vector<double> upper = upper_factor(h, kColumns);
  for (const QuantizationScheme& scheme : std::vector<QuantizationScheme>{{4, false, 32},
                                                                          {4, false, 256},
                                                                          {4, false, -1},
                                                                          {4, true, 16},
                                                                          {4, false, 0},
                                                                          {8, false, 32},
                                                                          {8, true, 16},
                                                                          {8, false, 0}}) {
    rule_.scheme = scheme;
    const int top = max_code(scheme);
    const auto result = round(weight, gram, 2000);
    const int64_t width = group_width(rule_.scheme, kColumns);
    int64_t moved = 0;
    for (int64_t row = 0; row < 5; ++row) {
      std::vector<double> errors(kColumns);
      for (size_t k = 0; k < kColumns; ++k) {
        const auto column = static_cast<int64_t>(k);
        const double scale = double{result.scale(row, column / width)};
        const int zero = result.zero(row, column / width);
        const double w = double{weight.values<float>()[static_cast<size_t>(row) * kColumns + k]};
        double target = w;
        for (size_t i = 0; i < k; ++i) target += errors[i] * upper[i * kColumns + k];
        const double wanted = std::clamp<double>(target / scale + zero, 0, top);
        const int code = result.code(row, column);
        ASSERT_NEAR(code, wanted, 0.501) << row << ", " << k << ", " << describe(scheme);
        moved += code != std::clamp(static_cast<int>(std::lround(w / scale)) + zero, 0, top);
        errors[k] = w - (code - zero) * scale;
      }
    }
    EXPECT_GT(moved, 50);
  }
}

/// Where channels of different blocks really have nothing to do with each other, blocks give the codes of the
/// whole matrix, in whichever order: all but those that lie in the middle between two for f32.
TEST_F(CompensatedRounding, BlocksGiveTheCodesOfAMatrixThatHasNothingElse) {
  constexpr int64_t kColumns = 352;
  constexpr int64_t kBlock = 128;  // and 96 at the end
  const Tensor weight = random_matrix(40, kColumns, 8);
  const int64_t tokens = 6'000'000;  // so many that the width of a block does not show in the shrinkage
  GramMatrix whole(kColumns);
  GramMatrix blocks(kColumns, kBlock);
  const Tensor x = split_input(2000, kColumns, kBlock, 4);
  whole.add(*backend_, MatmulPrecision::f32, x);
  blocks.add(*backend_, MatmulPrecision::f32, x);
  Tensor clip = Tensor::empty(DType::f32, {40, kColumns / 32});
  for (float& bound : clip.mutable_values<float>()) bound = 0.12f;
  for (const QuantizationScheme& scheme :
       std::vector<QuantizationScheme>{{4, false, 32}, {4, true, 32}, {8, false, 32}, {3, false, 32}}) {
    for (const ActivationOrder order : {ActivationOrder::none, ActivationOrder::weight}) {
      rule_.scheme = scheme;
      const auto rounded = [&](const GramMatrix& gram) {
        const FeedbackFactor factor = make_feedback_factor(*backend_, {gram, tokens}, order, nullptr);
        return round_compensated(
            {.backend = *backend_, .rounding = rule_, .weight = weight, .clip = clip, .factor = factor});
      };
      const QuantizedWeight expected = rounded(whole);
      const QuantizedWeight found = rounded(blocks);
      const QuantizedWeight nearest = quantize_to_nearest(weight, clip, scheme, rule_.scale_dtype);
      int64_t different = 0;
      int64_t moved = 0;
      for (int64_t row = 0; row < 40; ++row) {
        for (int64_t column = 0; column < kColumns; ++column) {
          different += found.code(row, column) != expected.code(row, column);
          moved += found.code(row, column) != nearest.code(row, column);
        }
      }
      EXPECT_LE(different, 40) << describe(scheme);
      EXPECT_GT(moved, 1000) << describe(scheme);
      EXPECT_EQ(std::memcmp(found.scales.bytes(), expected.scales.bytes(), expected.scales.byte_size()), 0);
    }
  }
}

/// Of blocks too, where scales and codes change in columns of their own.
TEST_F(CompensatedRounding, SweepsLoseLessAlsoOnOtherTokens) {
  constexpr int64_t kColumns = 160;
  const Tensor weight = random_matrix(48, kColumns, 3);
  const Tensor seen = correlated_gram(6000, kColumns, 10);
  const Tensor unseen = correlated_gram(6000, kColumns, 20);
  rule_.scheme.num_bits = 3;
  const QuantizedWeight before = round(weight, seen, 6000);
  for (const bool in_blocks : {false, true}) {
    GramMatrix blocks(kColumns, 96);
    blocks.add(*backend_, MatmulPrecision::f32, split_input(6000, kColumns, 96, 4));
    const RoundingInput input{in_blocks ? blocks : GramMatrix(seen), 6000};
    const auto error = [&](const QuantizedWeight& rounded) {
      if (!in_blocks) return output_error(weight, rounded, unseen);
      GramMatrix others(kColumns);
      others.add(*backend_, MatmulPrecision::f32, split_input(6000, kColumns, 96, 5));
      return output_error(weight, rounded, others.whole());
    };
    QuantizedWeight improved = round(weight, seen, 6000);
    improve_rounding({.backend = *backend_, .weight = weight, .input = input, .sweeps = 2}, improved);
    EXPECT_LT(error(improved), (in_blocks ? 0.6 : 0.95) * error(before)) << in_blocks;
    for (const int64_t group : {int64_t{0}, improved.groups() - 1}) {
      int64_t fitted = 0;
      for (int64_t row = 0; row < 48; ++row) fitted += improved.scale(row, group) != before.scale(row, group);
      EXPECT_GT(fitted, 24) << group;
    }
    EXPECT_EQ(std::memcmp(improved.zeros.bytes(), before.zeros.bytes(), before.zeros.byte_size()), 0);
  }
}

TEST_F(CompensatedRounding, IndependentChannelsAreRoundedToNearest) {
  const Tensor weight = random_matrix(20, 64, 5);
  Tensor gram = Tensor::zeros(DType::f32, {64, 64});
  for (size_t i = 0; i < 64; ++i) gram.mutable_values<float>()[i * 65] = static_cast<float>(i);
  const auto nearest = quantize_to_nearest(weight, {}, rule_.scheme, rule_.scale_dtype);
  const auto compensated = round(weight, gram, 1000);
  EXPECT_EQ(std::memcmp(compensated.codes.bytes(), nearest.codes.bytes(), nearest.codes.byte_size()), 0);
}

TEST_F(CompensatedRounding, SurvivesGramMatricesWithoutInformation) {
  const Tensor weight = random_matrix(20, 64, 5);
  const auto nearest = quantize_to_nearest(weight, {}, rule_.scheme, rule_.scale_dtype);
  const auto expect_nearest = [&](const Tensor& gram, int64_t tokens) {
    const auto rounded = round(weight, gram, tokens);
    EXPECT_EQ(std::memcmp(rounded.codes.bytes(), nearest.codes.bytes(), nearest.codes.byte_size()), 0);
  };
  expect_nearest(Tensor::zeros(DType::f32, {64, 64}), 0);
  Tensor damaged = correlated_gram(10, 64, 1);
  damaged.mutable_values<float>()[65] = NAN;
  expect_nearest(damaged, 10);
  // f32 finds this one indefinite until more is added to its diagonal.
  Tensor indefinite = correlated_gram(4000, 64, 1);
  const auto values = indefinite.mutable_values<float>();
  for (size_t i = 0; i < 64; ++i) {
    for (size_t j = 0; j < 64; ++j) values[i * 64 + j] *= i == j ? 1.0f : 1.15f;
  }
  const auto rescued = round(weight, indefinite, 4'000'000);
  EXPECT_NE(std::memcmp(rescued.codes.bytes(), nearest.codes.bytes(), nearest.codes.byte_size()), 0);
  // One token: a matrix of rank one, which shrinking makes positive definite.
  const Tensor one_token = correlated_gram(1, 64, 1);
  EXPECT_LE(output_error(weight, round(weight, one_token, 1), one_token),
            output_error(weight, nearest, one_token));
}

TEST_F(CompensatedRounding, KeepsTheClip) {
  const Tensor weight = random_matrix(6, 64, 5);
  Tensor clip = Tensor::empty(DType::f32, {6, 2});
  for (float& bound : clip.mutable_values<float>()) bound = 0.05f;
  const auto clipped = quantize_to_nearest(weight, clip, rule_.scheme, rule_.scale_dtype);
  const auto compensated = round(weight, correlated_gram(2000, 64, 1), 2000, clip);
  EXPECT_EQ(std::memcmp(compensated.scales.bytes(), clipped.scales.bytes(), clipped.scales.byte_size()), 0);
}

TEST_F(CompensatedRounding, SameBytesForAnyThreadCount) {
  const Tensor weight = random_matrix(200, 288, 7);
  const Tensor gram = correlated_gram(500, 288, 2);
  set_thread_count(1);
  const auto one = round(weight, gram, 500);
  set_thread_count(3);
  const auto three = round(weight, gram, 500);
  set_thread_count(2);
  EXPECT_EQ(std::memcmp(one.codes.bytes(), three.codes.bytes(), one.codes.byte_size()), 0);
}

/// Tall matrices are worked on some rows at a time, which must not show in any row.
TEST_F(CompensatedRounding, RowsDoNotDependOnThoseBesideThem) {
  const Tensor weight = random_matrix(4500, 160, 7);
  const Tensor gram = correlated_gram(500, 160, 2);
  for (const ActivationOrder order : {ActivationOrder::none, ActivationOrder::weight}) {
    const QuantizedWeight whole = round(weight, gram, 500, {}, order);
    for (const int64_t begin : {0, 1920, 2048, 4096}) {
      const int64_t end = std::min<int64_t>(4500, begin + 256);
      const QuantizedWeight part = round(weight.slice(begin, end), gram, 500, {}, order);
      const Tensor rows = whole.codes.slice(begin, end);
      EXPECT_EQ(std::memcmp(rows.bytes(), part.codes.bytes(), rows.byte_size()), 0) << begin;
    }
  }
}

/// Taking the columns in another order is the same as storing them in that order. One group to a row, because
/// groups are those of the stored columns either way.
TEST_F(CompensatedRounding, ActivationOrderTakesTheStrongestColumnsFirst) {
  constexpr int64_t kColumns = 48;
  rule_.scheme.group_size = QuantizationScheme::kWholeRow;
  const Tensor weight = random_matrix(6, kColumns, 5);
  const Tensor gram = correlated_gram(500, kColumns, 6);
  std::vector<size_t> order(kColumns);
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  const auto strength = [&](size_t column) { return gram.values<float>()[column * (kColumns + 1)]; };
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return strength(a) > strength(b); });
  Tensor ordered_weight = Tensor::empty(DType::f32, weight.shape());
  Tensor ordered_gram = Tensor::empty(DType::f32, gram.shape());
  for (size_t i = 0; i < kColumns; ++i) {
    for (size_t row = 0; row < 6; ++row) {
      ordered_weight.mutable_values<float>()[row * kColumns + i] =
          weight.values<float>()[row * kColumns + order[i]];
    }
    for (size_t j = 0; j < kColumns; ++j) {
      ordered_gram.mutable_values<float>()[i * kColumns + j] =
          gram.values<float>()[order[i] * kColumns + order[j]];
    }
  }
  const QuantizedWeight found = round(weight, gram, 500, {}, ActivationOrder::weight);
  const QuantizedWeight stored = round(ordered_weight, ordered_gram, 500);
  const QuantizedWeight plain = round(weight, gram, 500);
  bool differs = false;
  for (int64_t row = 0; row < 6; ++row) {
    for (int64_t i = 0; i < kColumns; ++i) {
      const auto column = static_cast<int64_t>(order[static_cast<size_t>(i)]);
      EXPECT_EQ(found.code(row, column), stored.code(row, i));
      differs |= found.code(row, column) != plain.code(row, column);
    }
  }
  EXPECT_TRUE(differs);
}

TEST_F(CompensatedRounding, ActivationOrderKeepsTheGroups) {
  const Tensor weight = random_matrix(8, 96, 5);
  const Tensor gram = correlated_gram(500, 96, 6);
  const QuantizedWeight plain = round(weight, gram, 500);
  const QuantizedWeight ordered = round(weight, gram, 500, {}, ActivationOrder::weight);
  EXPECT_EQ(std::memcmp(plain.scales.bytes(), ordered.scales.bytes(), plain.scales.byte_size()), 0);
  const double nearest =
      output_error(weight, quantize_to_nearest(weight, {}, rule_.scheme, rule_.scale_dtype), gram);
  EXPECT_LT(output_error(weight, ordered, gram), nearest);
}

}  // namespace
}  // namespace salient
