#include <algorithm>
#include <numeric>

#include "backend/backend_fixture.h"

namespace salient::test {
namespace {

class ColumnRounding : public EveryIsa {
 protected:
  /// A unit upper triangle whose feedback stays of the size of a step.
  Tensor factor(int64_t k) {
    Tensor upper = random({k, k}, 0.1f);
    const auto values = upper.mutable_values<float>();
    for (int64_t i = 0; i < k; ++i) values[static_cast<size_t>(i * (k + 1))] = 1.0f;
    return upper;
  }

  std::vector<int64_t> shuffled(int64_t k) {
    std::vector<int64_t> order(static_cast<size_t>(k));
    std::iota(order.begin(), order.end(), int64_t{0});
    std::shuffle(order.begin(), order.end(), generator);
    return order;
  }
};

SALIENT_EVERY_ISA(ColumnRounding);

/// By the definition in double, row by row, with the errors of the codes that were chosen: rows beyond one
/// thread's piece and beside a vector, columns beyond a block, groups that the order tears apart.
TEST_P(ColumnRounding, EveryCodeIsNearestToItsTarget) {
  constexpr int64_t kRows = 150;
  for (const int64_t columns : {1, 100, 300}) {
    const Tensor weight = random({kRows, columns});
    const Tensor upper = factor(columns);
    const std::vector<int64_t> order = shuffled(columns);
    for (const QuantizationScheme& scheme :
         std::vector<QuantizationScheme>{{4, false, 64}, {3, true, 0}, {8, false, 32}}) {
      QuantizedWeight result = quantize_to_nearest(weight, {}, scheme, DType::f16);
      const QuantizedWeight before = quantize_to_nearest(weight, {}, scheme, DType::f16);
      backend->round_compensated({.weight = weight, .upper = upper, .order = order}, result);
      EXPECT_EQ(std::memcmp(result.scales.bytes(), before.scales.bytes(), before.scales.byte_size()), 0);
      const int64_t width = group_width(scheme, columns);
      int64_t moved = 0;
      for (int64_t row = 0; row < kRows; ++row) {
        std::vector<double> errors(order.size());
        for (size_t k = 0; k < order.size(); ++k) {
          const int64_t column = order[k];
          const double scale = double{result.scale(row, column / width)};
          const int zero = result.zero(row, column / width);
          const double w = double{at(weight, row, column)};
          double target = w;
          for (size_t i = 0; i < k; ++i) {
            target += errors[i] * double{at(upper, static_cast<int64_t>(i), static_cast<int64_t>(k))};
          }
          const double wanted = std::clamp<double>(target / scale + zero, 0, max_code(scheme));
          const int code = result.code(row, column);
          ASSERT_NEAR(code, wanted, 0.501) << row << ", " << column << " of " << columns;
          moved += code != before.code(row, column) ? 1 : 0;
          errors[k] = w - (code - zero) * scale;
        }
      }
      if (columns > 1) {
        EXPECT_GT(moved, kRows);
      }
    }
  }
}

TEST_P(ColumnRounding, SameBytesForAnyThreadCount) {
  const Tensor weight = random({300, 200});
  const Tensor upper = factor(200);
  const std::vector<int64_t> order = shuffled(200);
  expect_same_for_any_thread_count([&] {
    QuantizedWeight result = quantize_to_nearest(weight, {}, {}, DType::f16);
    backend->round_compensated({.weight = weight, .upper = upper, .order = order}, result);
    return result.codes;
  });
}

TEST_P(ColumnRounding, WrongSizesAreInternalErrors) {
  const Tensor weight = random({3, 64});
  const Tensor upper = factor(64);
  const std::vector<int64_t> order = shuffled(64);
  QuantizedWeight result = quantize_to_nearest(weight, {}, {.group_size = 32}, DType::f16);
  const auto refused = [&](const CompensationProblem& problem) {
    error_of([&] { backend->round_compensated(problem, result); }, ErrorKind::internal);
  };
  const Tensor small = factor(63);
  refused({.weight = weight, .upper = small, .order = order});
  refused({.weight = weight, .upper = upper, .order = std::span(order).first(63)});
  const Tensor taller = random({4, 64});
  refused({.weight = taller, .upper = upper, .order = order});
}

}  // namespace
}  // namespace salient::test
