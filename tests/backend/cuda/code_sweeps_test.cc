// Sweeps over scales and codes on the simulated device, beside the CPU.
#include "backend/backend_fixture.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/simulator.h"
#include "backend/row_loss.h"

namespace salient::test {
namespace {

struct SweepCase {
  QuantizationScheme scheme;
  DType scales;
  int64_t rows;
  int64_t columns;
};

// Rows beyond a block of threads, columns beyond a block of them, groups narrower and wider than that, an odd
// one at the end, and columns that stand on no 16 bytes.
const std::vector<SweepCase> kCases{
    {{4, false, 32}, DType::bf16, 19, 160},
    {{4, true, 128}, DType::f16, 9, 264},
    {{3, true, QuantizationScheme::kWholeRow}, DType::f16, 5, 200},
    {{8, false, 64}, DType::f32, 5, 96},
    {{2, false, 256}, DType::bf16, 6, 320},
    {{3, false, QuantizationScheme::kWholeMatrix}, DType::f16, 7, 264},
    {{2, false, 64}, DType::bf16, 3, 99},
    {{5, true, 16}, DType::f16, 4, 1},
};

class CudaCodeSweeps : public testing::Test {
 protected:
  CudaCodeSweeps() { use_device(0, size_t{1} << 30); }

  void use_device(uint32_t seed, size_t bytes) {
    auto simulated = std::make_unique<SimulatedDevice>();
    simulated->set_seed(seed);
    simulated->set_total_bytes(bytes);
    device_ = simulated.get();
    cuda_ = cuda::make_cuda_backend(std::move(simulated), {});
  }
  Tensor random(Shape shape) { return random_tensor(generator_, std::move(shape)); }
  /// Of few samples: columns depend on each other.
  Tensor gram_of(int64_t columns) {
    Tensor gram = Tensor::zeros(DType::f32, {columns, columns});
    cpu_->accumulate_gram(random({columns / 2 + 1, columns}), MatmulPrecision::f32, gram);
    return gram;
  }
  static std::vector<float> ridge_of(const Tensor& gram, float share) {
    std::vector<float> result;
    for (int64_t k = 0; k < gram.dim(0); ++k)  // not the same for any two columns
      result.push_back(gram.values<float>()[0] * share * (1.0f + 0.01f * static_cast<float>(k)));
    return result;
  }
  static QuantizedWeight copy_of(const QuantizedWeight& weight) {
    QuantizedWeight result = weight;
    result.codes = weight.codes.duplicate();
    result.scales = weight.scales.duplicate();
    return result;
  }
  static double total_loss(const CodeSweepProblem& problem, const QuantizedWeight& result) {
    double sum = 0;
    for (int64_t row = 0; row < result.out_features; ++row) sum += row_loss(problem, result, row);
    return sum;
  }
  static bool same_bytes(const Tensor& a, const Tensor& b) {
    return a.byte_size() == b.byte_size() && std::memcmp(a.bytes(), b.bytes(), a.byte_size()) == 0;
  }
  static bool same_row(const QuantizedWeight& a, const QuantizedWeight& b, int64_t row) {
    return same_bytes(a.codes.slice(row, row + 1), b.codes.slice(row, row + 1)) &&
           same_bytes(a.scales.slice(row, row + 1), b.scales.slice(row, row + 1));
  }
  static double share_of_other_codes(const QuantizedWeight& a, const QuantizedWeight& b) {
    double other = 0;
    for (int64_t row = 0; row < a.out_features; ++row)
      for (int64_t k = 0; k < a.in_features; ++k) other += a.code(row, k) != b.code(row, k) ? 1 : 0;
    return other / static_cast<double>(a.out_features * a.in_features);
  }
  static void expect_in_bounds(const QuantizedWeight& result, const QuantizedWeight& before) {
    const bool keeps_scales = result.scheme.group_size == QuantizationScheme::kWholeMatrix;
    for (int64_t row = 0; row < result.out_features; ++row) {
      for (int64_t k = 0; k < result.in_features; ++k)
        ASSERT_LE(result.code(row, k), max_code(result.scheme));
      for (int64_t group = 0; group < result.groups(); ++group) {
        const float ratio = result.scale(row, group) / before.scale(row, group);
        ASSERT_TRUE(ratio > 0.08f && ratio < 9.1f) << ratio;  // a factor of 3 in each sweep
        ASSERT_TRUE(!keeps_scales || ratio == 1.0f) << ratio;
      }
    }
  }

  std::unique_ptr<Backend> cpu_ = make_cpu_backend();
  std::unique_ptr<Backend> cuda_;
  SimulatedDevice* device_ = nullptr;
  std::mt19937 generator_{42};
};

TEST_F(CudaCodeSweeps, LowerTheLossAsTheCpuDoes) {
  for (const SweepCase& shape : kCases) {
    SCOPED_TRACE(describe(shape.scheme));
    use_device(static_cast<uint32_t>(shape.columns), size_t{1} << 30);
    const Tensor weight = random({shape.rows, shape.columns});
    const Tensor gram = gram_of(shape.columns);
    const std::vector<float> ridge = ridge_of(gram, 0.05f);
    const CodeSweepProblem problem{.weight = weight, .gram = gram, .ridge = ridge, .sweeps = 2};
    const QuantizedWeight before = quantize_to_nearest(weight, {}, shape.scheme, shape.scales);
    QuantizedWeight expected = copy_of(before);
    QuantizedWeight found = copy_of(before);
    cpu_->sweep_codes(problem, expected);
    cuda_->sweep_codes(problem, found);
    for (int64_t row = 0; row < shape.rows; ++row)
      ASSERT_LE(row_loss(problem, found, row), row_loss(problem, before, row) * (1 + 1e-6)) << row;
    EXPECT_LE(total_loss(problem, found), 1.01 * total_loss(problem, expected));
    const double most = shape.columns > 1 ? 0.9 : 1.0;
    EXPECT_LE(total_loss(problem, found), most * total_loss(problem, before));
    EXPECT_LT(share_of_other_codes(found, expected), 0.02);
    expect_in_bounds(found, before);
  }
  EXPECT_EQ(device_->counts().shared_conflicts, 0u);
}

/// By the definition: behind the last sweep no other code of a column is better than its own.
TEST_F(CudaCodeSweeps, EndWhereNoCodeAloneIsBetter) {
  const Tensor weight = random({4, 140});
  const Tensor gram = gram_of(140);
  const std::vector<float> ridge = ridge_of(gram, 0.1f);
  const CodeSweepProblem problem{.weight = weight, .gram = gram, .ridge = ridge, .sweeps = 10};
  const QuantizationScheme scheme{3, false, QuantizationScheme::kWholeMatrix};
  QuantizedWeight result = quantize_to_nearest(weight, {}, scheme, DType::f16);
  cuda_->sweep_codes(problem, result);
  for (int64_t row = 0; row < 4; ++row) expect_no_better_code(problem, result, row, 3);
}

TEST_F(CudaCodeSweeps, RowsThatCannotImproveStay) {
  const Tensor gram = gram_of(64);
  const std::vector<float> ridge(64, 1.0f);
  Tensor weight = random({3, 64});
  const QuantizedWeight before = quantize_to_nearest(weight, {}, {4, false, 32}, DType::f16);
  const auto values = weight.mutable_values<float>();
  dequantize_row(before, 0, values.first(64));  // exact: nothing to gain
  values[64 + 5] = std::nanf("");               // nothing that could be compared
  QuantizedWeight result = copy_of(before);
  cuda_->sweep_codes({.weight = weight, .gram = gram, .ridge = ridge, .sweeps = 2}, result);
  EXPECT_TRUE(same_row(result, before, 0));
  EXPECT_TRUE(same_row(result, before, 1));
  EXPECT_FALSE(same_row(result, before, 2));
}

/// Where the Gram matrix is none, each code goes to where the loss is largest.
TEST_F(CudaCodeSweeps, RowsThatGotWorseStay) {
  const Tensor weight = random({3, 64});
  Tensor gram = Tensor::zeros(DType::f32, {64, 64});
  for (size_t k = 0; k < 64; ++k) gram.mutable_values<float>()[k * 65] = -1.0f;
  const std::vector<float> ridge(64, 0.0f);
  QuantizedWeight before = quantize_to_nearest(weight, {}, {4, false, 32}, DType::f16);
  for (int64_t k = 0; k < 64; ++k) before.set_code(1, k, (before.code(1, k) + 5) % 16);
  QuantizedWeight result = copy_of(before);
  cuda_->sweep_codes({.weight = weight, .gram = gram, .ridge = ridge, .sweeps = 1}, result);
  for (int64_t row = 0; row < 3; ++row) EXPECT_TRUE(same_row(result, before, row)) << row;
}

/// Rows get the same bytes whatever else is swept, in any order of threads, and where memory is scarce.
TEST_F(CudaCodeSweeps, RowsDoNotDependOnEachOther) {
  const Tensor weight = random({21, 136});
  const Tensor gram = gram_of(136);
  const std::vector<float> ridge = ridge_of(gram, 0.05f);
  const CodeSweepProblem problem{.weight = weight, .gram = gram, .ridge = ridge, .sweeps = 2};
  for (const QuantizationScheme& scheme :
       {QuantizationScheme{4, false, 32}, QuantizationScheme{5, true, QuantizationScheme::kWholeRow}}) {
    const QuantizedWeight before = quantize_to_nearest(weight, {}, scheme, DType::f16);
    QuantizedWeight expected = copy_of(before);
    cuda_->sweep_codes(problem, expected);
    use_device(7, 200000);
    QuantizedWeight found = copy_of(before);
    cuda_->sweep_codes(problem, found);
    EXPECT_GT(device_->launches().at("load_steps"), 1);
    EXPECT_TRUE(same_bytes(found.codes, expected.codes));
    EXPECT_TRUE(same_bytes(found.scales, expected.scales));
  }
}

TEST_F(CudaCodeSweeps, WrongSizesAreInternalErrors) {
  const Tensor weight = random({3, 64});
  const Tensor small = gram_of(63);
  const std::vector<float> ridge(64, 1.0f);
  QuantizedWeight result = quantize_to_nearest(weight, {}, {.group_size = 32}, DType::f16);
  const CodeSweepProblem problem{.weight = weight, .gram = small, .ridge = ridge, .sweeps = 1};
  error_of([&] { cuda_->sweep_codes(problem, result); }, ErrorKind::internal);
}

}  // namespace
}  // namespace salient::test
