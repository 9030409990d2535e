#include <algorithm>

#include "backend/backend_fixture.h"
#include "backend/row_loss.h"

namespace salient::test {
namespace {

class CodeSweeps : public EveryIsa {
 protected:
  /// Of few samples: columns depend on each other, and nothing but the ridge makes it definite.
  Tensor gram_of(int64_t columns) {
    const Tensor x = random({columns / 2 + 1, columns});
    Tensor gram = Tensor::zeros(DType::f32, {columns, columns});
    backend->accumulate_gram(x, MatmulPrecision::f32, gram);
    return gram;
  }
};

SALIENT_EVERY_ISA(CodeSweeps);

/// Rows beyond one thread's piece, columns beyond a block and beside a vector, an odd group at the end.
TEST_P(CodeSweeps, LowersTheLossOfEveryRow) {
  constexpr int64_t kRows = 150;
  for (const int64_t columns : {1, 99, 200}) {
    const Tensor weight = random({kRows, columns});
    const Tensor gram = gram_of(columns);
    const std::vector<float> ridge(static_cast<size_t>(columns), 0.05f * at(gram, 0, 0));
    const CodeSweepProblem problem{.weight = weight, .gram = gram, .ridge = ridge, .sweeps = 2};
    for (const QuantizationScheme& scheme : std::vector<QuantizationScheme>{
             {2, false, 64}, {4, true, 32}, {3, true, QuantizationScheme::kWholeRow}, {8, false, 32}}) {
      QuantizedWeight result = quantize_to_nearest(weight, {}, scheme, DType::bf16);
      const QuantizedWeight before = quantize_to_nearest(weight, {}, scheme, DType::bf16);
      backend->sweep_codes(problem, result);
      double sum_before = 0;
      double sum = 0;
      for (int64_t row = 0; row < kRows; ++row) {
        const double was = row_loss(problem, before, row);
        const double is = row_loss(problem, result, row);
        ASSERT_LE(is, was * (1 + 1e-4)) << row << " of " << columns << ", bits " << scheme.num_bits;
        sum_before += was;
        sum += is;
        for (int64_t k = 0; k < columns; ++k) ASSERT_LE(result.code(row, k), max_code(scheme));
        for (int64_t group = 0; group < result.groups(); ++group) {
          ASSERT_EQ(result.zero(row, group), before.zero(row, group));
          const float ratio = result.scale(row, group) / before.scale(row, group);
          ASSERT_TRUE(ratio > 0.08f && ratio < 9.1f) << ratio;  // a factor of 3 in each sweep
        }
      }
      if (columns > 1) {
        EXPECT_LT(sum, 0.9 * sum_before) << columns << ", bits " << scheme.num_bits;
      }
    }
  }
}

/// By the definition: behind the last sweep no other code of a column is better than its own, as far as
/// sweeps go on until nothing changes.
TEST_P(CodeSweeps, EndsWhereNoCodeAloneIsBetter) {
  constexpr int64_t kRows = 5;
  constexpr int64_t kColumns = 64;
  const Tensor weight = random({kRows, kColumns});
  const Tensor gram = gram_of(kColumns);
  const std::vector<float> ridge(kColumns, 0.1f * at(gram, 0, 0));
  const QuantizationScheme scheme{3, false, QuantizationScheme::kWholeMatrix};
  QuantizedWeight result = quantize_to_nearest(weight, {}, scheme, DType::f16);
  const QuantizedWeight before = quantize_to_nearest(weight, {}, scheme, DType::f16);
  const CodeSweepProblem problem{.weight = weight, .gram = gram, .ridge = ridge, .sweeps = 100};
  backend->sweep_codes(problem, result);
  EXPECT_EQ(std::memcmp(result.scales.bytes(), before.scales.bytes(), before.scales.byte_size()), 0);
  for (int64_t row = 0; row < kRows; ++row) {
    EXPECT_LT(row_loss(problem, result, row), row_loss(problem, before, row));
    expect_no_better_code(problem, result, row);
  }
}

TEST_P(CodeSweeps, RowsThatCannotImproveStay) {
  const Tensor gram = gram_of(64);
  const std::vector<float> ridge(64, 1.0f);
  Tensor weight = random({3, 64});
  QuantizedWeight result = quantize_to_nearest(weight, {}, {4, false, 32}, DType::f16);
  const QuantizedWeight before = quantize_to_nearest(weight, {}, {4, false, 32}, DType::f16);
  const auto values = weight.mutable_values<float>();
  dequantize_row(before, 0, values.first(64));  // exact: nothing to gain
  values[64 + 5] = std::nanf("");               // nothing that could be compared
  backend->sweep_codes({.weight = weight, .gram = gram, .ridge = ridge, .sweeps = 2}, result);
  const auto same = [&](int64_t row) {
    const auto bytes = static_cast<size_t>(result.row_bytes());
    const auto from = static_cast<size_t>(row) * bytes;
    return std::memcmp(result.codes.bytes() + from, before.codes.bytes() + from, bytes) == 0 &&
           result.scale(row, 0) == before.scale(row, 0) && result.scale(row, 1) == before.scale(row, 1);
  };
  EXPECT_TRUE(same(0));
  EXPECT_TRUE(same(1));
  EXPECT_FALSE(same(2));
}

TEST_P(CodeSweeps, SameBytesForAnyThreadCount) {
  const Tensor weight = random({300, 200});
  const Tensor gram = gram_of(200);
  const std::vector<float> ridge(200, 1.0f);
  for (const bool scales : {false, true}) {
    expect_same_for_any_thread_count([&] {
      QuantizedWeight result = quantize_to_nearest(weight, {}, {}, DType::f16);
      backend->sweep_codes({.weight = weight, .gram = gram, .ridge = ridge, .sweeps = 2}, result);
      return scales ? result.scales : result.codes;
    });
  }
}

TEST_P(CodeSweeps, WrongSizesAreInternalErrors) {
  const Tensor weight = random({3, 64});
  const Tensor gram = gram_of(64);
  const std::vector<float> ridge(64, 1.0f);
  QuantizedWeight result = quantize_to_nearest(weight, {}, {.group_size = 32}, DType::f16);
  const auto refused = [&](const CodeSweepProblem& problem) {
    error_of([&] { backend->sweep_codes(problem, result); }, ErrorKind::internal);
  };
  const Tensor small = gram_of(63);
  refused({.weight = weight, .gram = small, .ridge = ridge, .sweeps = 1});
  refused({.weight = weight, .gram = gram, .ridge = std::span(ridge).first(63), .sweeps = 1});
  const Tensor taller = random({4, 64});
  refused({.weight = taller, .gram = gram, .ridge = ridge, .sweeps = 1});
}

}  // namespace
}  // namespace salient::test
