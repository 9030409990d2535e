#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/isa.h"
#include "base/error.h"
#include "base/parallel.h"

namespace salient::test {

inline Tensor random_tensor(std::mt19937& generator, Shape shape, float scale = 1.0f) {
  std::normal_distribution<float> normal(0.0f, scale);
  Tensor result = Tensor::empty(DType::f32, std::move(shape));
  for (float& value : result.mutable_values<float>()) value = normal(generator);
  return result;
}

/// Every test of an operation runs once per table of kernels; one that the processor lacks is skipped
/// visibly.
class EveryIsa : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!cpu_supports(GetParam())) GTEST_SKIP() << "this processor lacks " << to_string(GetParam());
    set_thread_count(2);
    backend = make_cpu_backend_for(GetParam(), {});
    kernels = &kernels_for(GetParam());
  }
  void TearDown() override { set_thread_count(2); }

  /// `backend` computes in bf16 from here on. False, and the test skipped, where it cannot.
  [[nodiscard]] bool use_bf16() {
    backend = make_cpu_backend_for(GetParam(), {.precision = MatmulPrecision::bf16});
    const std::string description = backend->description();
    return description.find("bf16 needs") == std::string::npos;
  }

  Tensor random(Shape shape, float scale = 1.0f) { return random_tensor(generator, std::move(shape), scale); }

  std::unique_ptr<Backend> backend;
  const CpuKernels* kernels = nullptr;
  std::mt19937 generator{42};
};

inline std::string isa_name(const testing::TestParamInfo<Isa>& info) {
  return std::string(to_string(info.param));
}

#define SALIENT_EVERY_ISA(suite) \
  INSTANTIATE_TEST_SUITE_P(Isa, suite, testing::ValuesIn(built_isas().begin(), built_isas().end()), isa_name)

inline float at(const Tensor& matrix, int64_t row, int64_t column) {
  return matrix.values<float>()[static_cast<size_t>(row * matrix.dim(1) + column)];
}

/// Largest |y - x W^T - bias| over sum |x| |w|, the size that rounding errors of a dot product are relative
/// to; or over sum |x| sizes.
inline double product_error(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& y,
                            const Tensor& sizes = {}) {
  double worst = 0;
  const int64_t depth = x.dim(1);
  for (int64_t r = 0; r < x.dim(0); ++r) {
    if (x.dim(0) > 100 && r % 13 != 0 && r < x.dim(0) - 20) continue;
    const float* row = x.values<float>().data() + r * depth;
    for (int64_t n = 0; n < weight.dim(0); ++n) {
      const float* factors = weight.values<float>().data() + n * depth;
      const float* own_sizes = sizes.defined() ? sizes.values<float>().data() + n * depth : factors;
      double exact = bias.defined() ? bias.values<float>()[static_cast<size_t>(n)] : 0.0;
      double size = std::abs(exact) + 1e-30;
      for (int64_t k = 0; k < depth; ++k) {
        const double term = double{row[k]} * double{factors[k]};
        exact += term;
        size += std::abs(double{row[k]} * double{own_sizes[k]});
      }
      const double error = std::abs(double{at(y, r, n)} - exact) / size;
      if (std::isnan(error)) return error;  // a maximum would lose it
      worst = std::max(worst, error);
    }
  }
  return worst;
}

/// Runs `compute` with 1, 2 and 3 threads and expects the same bytes each time.
inline void expect_same_for_any_thread_count(const std::function<Tensor()>& compute) {
  set_thread_count(1);
  const Tensor one = compute();
  for (const size_t threads : {2, 3}) {
    set_thread_count(threads);
    const Tensor many = compute();
    ASSERT_EQ(one.shape(), many.shape());
    EXPECT_EQ(std::memcmp(one.bytes(), many.bytes(), one.byte_size()), 0) << threads << " threads";
  }
  set_thread_count(2);
}

inline std::string error_of(const std::function<void()>& body, ErrorKind kind) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

/// (code + zero) |scale|: what rounding errors are relative to where zeros are subtracted from sums.
inline Tensor code_sizes(const QuantizedWeight& weight) {
  Tensor result = Tensor::empty(DType::f32, {weight.out_features, weight.in_features});
  const int64_t width = group_width(weight.scheme, weight.in_features);
  for (int64_t n = 0; n < weight.out_features; ++n) {
    for (int64_t k = 0; k < weight.in_features; ++k) {
      const auto codes = static_cast<float>(weight.code(n, k) + weight.zero(n, k / width));
      result.mutable_values<float>()[static_cast<size_t>(n * weight.in_features + k)] =
          codes * std::abs(weight.scale(n, k / width));
    }
  }
  return result;
}

}  // namespace salient::test
