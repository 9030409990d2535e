#include "backend/cuda/rounding_errors.h"

#include <bit>
#include <cmath>

#include "backend/backend.h"
#include "backend/cuda/device_arrays.h"
#include "backend/cuda/products.h"

namespace salient::test {
namespace {

struct RoundingCase {
  int bits;
  bool symmetric;
  int64_t group_size;
  DType scales;
  int64_t rows;
  int64_t columns;
  int64_t step;
};

const std::vector<RoundingCase> kCases{
    {4, false, 32, DType::bf16, 5, 96, 1},
    {4, true, 128, DType::f16, 7, 300, 1},
    {3, false, 16, DType::f32, 9, 80, 3},
    {8, true, 256, DType::f16, 4, 320, 2},
    {2, false, QuantizationScheme::kWholeRow, DType::bf16, 6, 70, 1},
    {8, false, QuantizationScheme::kWholeRow, DType::f16, 3, 300, 1},
    {4, false, QuantizationScheme::kWholeMatrix, DType::f16, 3, 270, 1},
    {5, true, QuantizationScheme::kWholeMatrix, DType::bf16, 3, 90, 2},
};

class CudaRoundingErrors : public DeviceArrays {
 protected:
  RoundingRule rule_of(const RoundingCase& shape, const Tensor& weight, std::span<const float> scales) {
    return rule_for_matrix(
        {.scheme = {.num_bits = shape.bits, .symmetric = shape.symmetric, .group_size = shape.group_size},
         .scale_dtype = shape.scales},
        weight, scales);
  }
  Tensor clip_of(const RoundingCase& shape) {
    if (shape.group_size == QuantizationScheme::kWholeMatrix) return {};
    Tensor clip = random({shape.rows, group_count({.group_size = shape.group_size}, shape.columns)});
    for (float& value : clip.mutable_values<float>()) value = 0.5f + std::fabs(value);
    return clip;
  }
  std::vector<float> positive(int64_t count) {
    std::vector<float> result;
    const Tensor exponents = random({count}, 0.5f);
    for (const float value : exponents.values<float>()) result.push_back(std::exp(value));
    return result;
  }
  float* errors_on_device(const RoundingCase& shape, const RoundingLossProblem& problem) {
    const int64_t rows = (shape.rows + shape.step - 1) / shape.step;
    auto* errors = room<float>(static_cast<size_t>(rows * shape.columns));
    const auto scales = problem.column_scales;
    const cuda::RoundingCandidate candidates[] = {
        cuda::rounding_candidate(problem.rule, scales.empty() ? nullptr : put(scales),
                                 problem.clip.defined() ? put(problem.clip) : nullptr)};
    cuda::rounding_errors(device, {.rule = problem.rule,
                                   .weight = put(problem.weight),
                                   .candidates = candidates,
                                   .errors = errors,
                                   .rows = rows,
                                   .row_step = shape.step,
                                   .columns = shape.columns});
    return errors;
  }
  /// By fake_quantize_row, the arithmetic of record.
  static std::vector<float> right_errors(const RoundingCase& shape, const RoundingLossProblem& problem) {
    std::vector<float> result;
    const auto columns = static_cast<size_t>(shape.columns);
    for (int64_t row = 0; row < shape.rows; row += shape.step) {
      const auto weights =
          problem.weight.values<float>().subspan(static_cast<size_t>(row) * columns, columns);
      std::vector<float> rounded(weights.begin(), weights.end());
      for (size_t c = 0; c < problem.column_scales.size(); ++c) rounded[c] *= problem.column_scales[c];
      std::span<const float> bounds;
      if (problem.clip.defined()) {
        const auto groups = static_cast<size_t>(problem.clip.dim(1));
        bounds = problem.clip.values<float>().subspan(static_cast<size_t>(row) * groups, groups);
      }
      fake_quantize_row(problem.rule, rounded, bounds, rounded);
      for (size_t c = 0; c < columns; ++c) {
        const float back = problem.column_scales.empty() ? rounded[c] : rounded[c] / problem.column_scales[c];
        result.push_back(back - weights[c]);
      }
    }
    return result;
  }
  static std::vector<uint32_t> bits_of(const std::vector<float>& values) {
    std::vector<uint32_t> result;
    for (const float value : values) result.push_back(std::bit_cast<uint32_t>(value + 0.0f));
    return result;
  }
};

TEST_F(CudaRoundingErrors, HaveTheBitsOfTheCpu) {
  for (const RoundingCase& shape : kCases) {
    Tensor weight = random({shape.rows, shape.columns}, 0.1f);
    for (int64_t c = 0; c < std::min<int64_t>(16, shape.columns); ++c)  // a group of zeros
      weight.mutable_values<float>()[static_cast<size_t>(c)] = 0;
    const Tensor clip = clip_of(shape);
    for (const auto& scales : {std::vector<float>(), positive(shape.columns)}) {
      for (const bool clipped : {false, true}) {
        const RoundingRule rule = rule_of(shape, weight, scales);
        const RoundingLossProblem problem{.rule = rule,
                                          .weight = weight,
                                          .column_scales = scales,
                                          .clip = clipped ? clip : Tensor(),
                                          .gram = weight,
                                          .row_step = shape.step};
        const auto expected = right_errors(shape, problem);
        const auto found = get(errors_on_device(shape, problem), expected.size());
        EXPECT_EQ(bits_of(found), bits_of(expected))
            << shape.bits << " bits, " << shape.columns << " columns";
      }
    }
  }
}

TEST_F(CudaRoundingErrors, OfWeightsOfAnySize) {
  const RoundingCase shape{4, false, 32, DType::f16, 8, 64, 1};
  for (const DType scales : {DType::f16, DType::bf16, DType::f32}) {
    for (const int bits : {4, 8}) {
      Tensor weight = random({8, 64});
      auto values = weight.mutable_values<float>();
      for (size_t i = 0; i < values.size(); ++i)
        values[i] *= std::ldexp(1.0f, static_cast<int>(i / 64) * 35 - 140);
      const RoundingRule rule{.scheme = {.num_bits = bits, .group_size = 32}, .scale_dtype = scales};
      const RoundingLossProblem problem{.rule = rule, .weight = weight, .clip = {}, .gram = weight};
      const auto expected = right_errors(shape, problem);
      EXPECT_EQ(bits_of(get(errors_on_device(shape, problem), expected.size())), bits_of(expected));
    }
  }
}

TEST_F(CudaRoundingErrors, ANumberThatIsNoneShows) {
  const RoundingCase shape{4, false, 32, DType::f16, 2, 64, 1};
  Tensor weight = random({2, 64});
  weight.mutable_values<float>()[70] = NAN;
  const RoundingRule rule{.scheme = {.group_size = 32}, .scale_dtype = DType::f16};
  const auto errors =
      get(errors_on_device(shape, {.rule = rule, .weight = weight, .clip = {}, .gram = weight}), 128);
  for (size_t i = 0; i < errors.size(); ++i) EXPECT_EQ(std::isnan(errors[i]), i == 70) << i;
}

/// Each by its own scales, clips and grid.
TEST_F(CudaRoundingErrors, OfSeveralCandidatesAreThoseOfEach) {
  for (const RoundingCase& shape : kCases) {
    const Tensor weight = random({shape.rows, shape.columns});
    const Tensor clip = clip_of(shape);
    std::vector<cuda::RoundingCandidate> candidates;
    std::vector<float> expected;
    const RoundingRule first = rule_of(shape, weight, {});
    for (int i = 0; i < 5; ++i) {
      const auto scales = i % 2 == 0 ? std::vector<float>() : positive(shape.columns);
      const RoundingRule rule = rule_of(shape, weight, scales);
      const RoundingLossProblem problem{.rule = rule,
                                        .weight = weight,
                                        .column_scales = scales,
                                        .clip = i < 2 ? Tensor() : clip,
                                        .gram = weight};
      candidates.push_back(cuda::rounding_candidate(rule, scales.empty() ? nullptr : put(scales),
                                                    problem.clip.defined() ? put(clip) : nullptr));
      const auto own = right_errors(shape, problem);
      expected.insert(expected.end(), own.begin(), own.end());
    }
    auto* errors = room<float>(expected.size());
    cuda::rounding_errors(device, {.rule = first,
                                   .weight = put(weight),
                                   .candidates = candidates,
                                   .errors = errors,
                                   .rows = (shape.rows + shape.step - 1) / shape.step,
                                   .row_step = shape.step,
                                   .columns = shape.columns});
    EXPECT_EQ(bits_of(get(errors, expected.size())), bits_of(expected)) << describe(first.scheme);
  }
}

/// Errors and their forms together are what Backend::rounding_loss promises.
TEST_F(CudaRoundingErrors, CostWhatTheCpuSays) {
  const auto cpu = make_cpu_backend();
  for (const RoundingCase& shape : kCases) {
    const Tensor weight = random({shape.rows, shape.columns});
    Tensor gram = Tensor::zeros(DType::f32, {shape.columns, shape.columns});
    cpu->accumulate_gram(random({2 * shape.columns, shape.columns}), MatmulPrecision::f32, gram);
    const RoundingRule rule = rule_of(shape, weight, {});
    const RoundingLossProblem problem{
        .rule = rule, .weight = weight, .clip = {}, .gram = gram, .row_step = shape.step};
    const int64_t rows = (shape.rows + shape.step - 1) / shape.step;
    const int64_t groups = group_count(rule.scheme, shape.columns);
    const float* errors = errors_on_device(shape, problem);
    for (const int64_t own : {int64_t{1}, groups}) {
      const auto count = static_cast<size_t>(rows * own);
      std::vector<double> expected(count);
      if (own == 1) {
        cpu->rounding_loss(problem, expected);
      } else {
        cpu->rounding_loss_by_group(problem, expected);
      }
      auto* result = room<double>(count);
      cuda::quadratic_form(
          device, {.x = errors,
                   .symmetric = put(gram),
                   .rows = rows,
                   .columns = shape.columns,
                   .group_width = own == 1 ? shape.columns : group_width(rule.scheme, shape.columns),
                   .precision = MatmulPrecision::f32,
                   .workspace = room<float>(cuda::form_workspace_bytes(rows, shape.columns) / sizeof(float)),
                   .result = result});
      const auto found = get(result, count);
      for (size_t i = 0; i < count; ++i) ASSERT_NEAR(found[i], expected[i], 2e-5 * expected[i]) << i;
    }
  }
}

}  // namespace
}  // namespace salient::test
