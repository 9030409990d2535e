#include "backend/backend_fixture.h"

namespace salient::test {
namespace {

/// Of a dot product's f32 rounding errors, relative to the sum of magnitudes. The a priori bound is depth *
/// 6e-8 (1.2e-4 for 2000); several running sums keep the real error far below.
constexpr double kProductBound = 1.5e-6;

class LinearTest : public EveryIsa {
 protected:
  Tensor run(const LinearWeight& weight, const Tensor& x) { return run_with(*backend, weight, x); }
  static Tensor run_with(Backend& with, const LinearWeight& weight, const Tensor& x) {
    Tensor y = Tensor::empty(DType::f32, {x.dim(0), weight.out_features()});
    with.linear(*with.prepare(weight), x, y);
    return y;
  }

  QuantizedWeight random_w4(int64_t outputs, int64_t depth, int64_t group_size, bool symmetric,
                            DType scale_type) {
    QuantizedWeight weight;
    weight.scheme = {.num_bits = 4, .symmetric = symmetric, .group_size = group_size};
    weight.out_features = outputs;
    weight.in_features = depth;
    const int64_t groups = group_size == QuantizationScheme::kWholeRow ? 1 : depth / group_size;
    weight.codes = Tensor::zeros(DType::u8, {outputs, weight.row_bytes()});
    auto codes = weight.codes.mutable_values<uint8_t>();
    std::uniform_int_distribution<int> code(0, 15);
    for (int64_t n = 0; n < outputs; ++n) {
      for (int64_t k = 0; k < depth; ++k) {
        const auto index = static_cast<size_t>(n * weight.row_bytes() + k / 2);
        codes[index] = static_cast<uint8_t>(codes[index] | code(generator) << (k % 2 * 4));
      }
    }
    Tensor scales = random({outputs, groups}, 0.01f);
    weight.scales = scales.to(scale_type);
    if (symmetric) return weight;
    weight.zeros = Tensor::empty(DType::u8, {outputs, groups});
    for (uint8_t& zero : weight.zeros.mutable_values<uint8_t>()) zero = static_cast<uint8_t>(code(generator));
    return weight;
  }

  /// (code - zero) * scale in f32, written out independently of the kernels.
  static Tensor expand(const QuantizedWeight& weight) {
    Tensor result = Tensor::empty(DType::f32, {weight.out_features, weight.in_features});
    auto out = result.mutable_values<float>();
    const Tensor scales = weight.scales.to(DType::f32);
    const int64_t width = weight.scheme.group_size == QuantizationScheme::kWholeRow
                              ? weight.in_features
                              : weight.scheme.group_size;
    for (int64_t n = 0; n < weight.out_features; ++n) {
      for (int64_t k = 0; k < weight.in_features; ++k) {
        const auto byte =
            weight.codes.values<uint8_t>()[static_cast<size_t>(n * weight.codes.dim(1) + k / 2)];
        const auto group = static_cast<size_t>(n * scales.dim(1) + k / width);
        const int zero = weight.zeros.defined() ? weight.zeros.values<uint8_t>()[group] : 8;
        const int code = k % 2 == 0 ? byte & 15 : byte >> 4;
        out[static_cast<size_t>(n * weight.in_features + k)] =
            static_cast<float>(code - zero) * scales.values<float>()[group];
      }
    }
    return result;
  }
};

SALIENT_EVERY_ISA(LinearTest);

TEST_P(LinearTest, DenseOfEveryTypeAgreesWithDoublePrecision) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (const auto& [outputs, depth] : std::vector<std::pair<int64_t, int64_t>>{
             {1, 1}, {3, 7}, {5, 16}, {17, 33}, {64, 64}, {129, 100}, {131, 1029}}) {
      const Tensor weight = random({outputs, depth}).to(dtype);
      for (const int64_t rows : {1, 2, 3, 4, 5, 7, 8, 9, 17, 33}) {
        const Tensor x = random({rows, depth});
        const Tensor y = run({.dense = weight, .quantized = {}, .bias = {}}, x);
        EXPECT_LT(product_error(x, weight.to(DType::f32), {}, y), kProductBound)
            << to_string(dtype) << " " << rows << " x " << depth << " x " << outputs;
      }
    }
  }
}

TEST_P(LinearTest, AddsABiasOfEveryType) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    const Tensor weight = random({37, 50});
    const Tensor bias = random({37}, 10.0f).to(dtype);
    for (const int64_t rows : {1, 6, 21}) {
      const Tensor x = random({rows, 50});
      const Tensor y = run({.dense = weight, .quantized = {}, .bias = bias}, x);
      EXPECT_LT(product_error(x, weight, bias.to(DType::f32), y), kProductBound) << to_string(dtype) << rows;
    }
  }
}

TEST_P(LinearTest, ManyRowsCrossEveryBlockBoundary) {
  const Tensor weight = random({150, 1100}).to(DType::bf16);
  const Tensor x = random({530, 1100});
  const Tensor bias = random({150});
  const Tensor y = run({.dense = weight, .quantized = {}, .bias = bias}, x);
  EXPECT_LT(product_error(x, weight.to(DType::f32), bias, y), kProductBound);
}

TEST_P(LinearTest, Int4AgreesWithDoublePrecisionForEveryScheme) {
  for (const bool symmetric : {false, true}) {
    for (const int64_t group : {int64_t{32}, int64_t{64}, int64_t{128}, int64_t{256}, int64_t{-1}}) {
      for (const DType scale_type : {DType::f32, DType::f16, DType::bf16}) {
        const QuantizedWeight weight = random_w4(21, 512, group, symmetric, scale_type);
        const Tensor bias = random({21});
        for (const int64_t rows : {1, 2, 3, 6, 8, 19}) {
          const Tensor x = random({rows, 512});
          const Tensor y = run({.dense = {}, .quantized = weight, .bias = bias}, x);
          EXPECT_LT(product_error(x, expand(weight), bias, y), kProductBound)
              << "group " << group << " symmetric " << symmetric << " rows " << rows;
        }
      }
    }
  }
}

TEST_P(LinearTest, Int4WholeRowsOfAnyLength) {
  for (const int64_t depth : {1, 2, 7, 8, 31, 32, 33, 63, 100, 1025, 1111}) {
    const QuantizedWeight weight = random_w4(7, depth, QuantizationScheme::kWholeRow, false, DType::f32);
    for (const int64_t rows : {1, 3, 4, 12}) {
      const Tensor x = random({rows, depth});
      const Tensor y = run({.dense = {}, .quantized = weight, .bias = {}}, x);
      EXPECT_LT(product_error(x, expand(weight), {}, y), kProductBound) << depth << " rows " << rows;
    }
  }
}

TEST_P(LinearTest, Int4ExpandsToTheArithmeticOfRecord) {
  const QuantizedWeight weight = random_w4(9, 320, 64, false, DType::f16);
  const Tensor scales = weight.scales.to(DType::f32);
  const W4Rows rows{.codes = weight.codes.values<uint8_t>().data(),
                    .row_bytes = weight.codes.dim(1),
                    .scales = scales.values<float>().data(),
                    .zeros = weight.zeros.values<uint8_t>().data(),
                    .groups = 5,
                    .group_width = 64};
  const Tensor exact = expand(weight);
  for (const auto& [column, columns] :
       std::vector<std::pair<int64_t, int64_t>>{{0, 320}, {6, 1}, {62, 5}, {96, 193}}) {
    std::vector<float> out(static_cast<size_t>(9 * columns));
    kernels->expand_w4({.weights = rows,
                        .rows = 9,
                        .column = column,
                        .columns = columns,
                        .out = out.data(),
                        .stride = columns});
    for (int64_t n = 0; n < 9; ++n) {
      for (int64_t i = 0; i < columns; ++i) {
        EXPECT_EQ(out[static_cast<size_t>(n * columns + i)], at(exact, n, column + i));
      }
    }
  }
}

TEST_P(LinearTest, ARowDoesNotDependOnItsNeighbours) {
  const LinearWeight dense{.dense = random({70, 130}).to(DType::bf16), .quantized = {}, .bias = {}};
  const LinearWeight int4{.dense = {}, .quantized = random_w4(70, 128, 32, false, DType::f16), .bias = {}};
  for (const LinearWeight* weight : {&dense, &int4}) {
    const Tensor x = random({8, weight->in_features()});
    const Tensor together = run(*weight, x);
    for (int64_t r = 0; r < 8; ++r) {
      const Tensor alone = run(*weight, x.slice(r, r + 1));
      EXPECT_EQ(std::memcmp(alone.bytes(), together.slice(r, r + 1).bytes(), alone.byte_size()), 0) << r;
    }
  }
}

TEST_P(LinearTest, SameBytesForAnyThreadCount) {
  const LinearWeight dense{
      .dense = random({300, 260}).to(DType::f16), .quantized = {}, .bias = random({300})};
  const LinearWeight int4{.dense = {}, .quantized = random_w4(300, 256, 64, false, DType::f16), .bias = {}};
  for (const LinearWeight* weight : {&dense, &int4}) {
    for (const int64_t rows : {1, 5, 40, 700}) {
      const Tensor x = random({rows, weight->in_features()});
      expect_same_for_any_thread_count([&] { return run(*weight, x); });
    }
  }
}

TEST_P(LinearTest, RoundedModeMultipliesRoundedOperands) {
  const auto rounding = make_cpu_backend_for(GetParam(), {.precision = MatmulPrecision::bf16});
  if (rounding->description().find("bf16 needs") != std::string::npos) {
    GTEST_SKIP() << "no bf16 products: " << rounding->description();
  }
  const auto round = [](const Tensor& tensor) { return tensor.to(DType::bf16).to(DType::f32); };
  for (const auto& [rows, outputs, depth] : std::vector<std::array<int64_t, 3>>{
           {9, 3, 7}, {16, 64, 64}, {33, 129, 101}, {520, 130, 1100}, {4100, 5, 3}}) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      const Tensor weight = random({outputs, depth}).to(dtype);
      const Tensor bias = random({outputs});
      const Tensor x = random({rows, depth});
      const Tensor y = run_with(*rounding, {.dense = weight, .quantized = {}, .bias = bias}, x);
      EXPECT_LT(product_error(round(x), round(weight.to(DType::f32)), bias, y), kProductBound)
          << to_string(dtype) << " " << rows << " x " << depth << " x " << outputs;
    }
  }
  const QuantizedWeight int4 = random_w4(33, 1280, 128, false, DType::f16);
  const Tensor x = random({40, 1280});
  EXPECT_LT(product_error(round(x), round(expand(int4)), {},
                          run_with(*rounding, {.dense = {}, .quantized = int4, .bias = {}}, x)),
            kProductBound);
  const Tensor few = random({3, 1280});
  EXPECT_LT(product_error(few, expand(int4), {},
                          run_with(*rounding, {.dense = {}, .quantized = int4, .bias = {}}, few)),
            kProductBound)
      << "few rows are exact in every mode";
  expect_same_for_any_thread_count(
      [&] { return run_with(*rounding, {.dense = {}, .quantized = int4, .bias = {}}, x); });
}

TEST_P(LinearTest, NoRowsIsNoWork) {
  const Tensor y =
      run({.dense = random({4, 6}), .quantized = {}, .bias = {}}, Tensor::empty(DType::f32, {0, 6}));
  EXPECT_EQ(y.dim(0), 0);
}

TEST_P(LinearTest, DescribesItsSizes) {
  const auto dense =
      backend->prepare({.dense = random({6, 8}).to(DType::bf16), .quantized = {}, .bias = random({6})});
  EXPECT_EQ(dense->out_features(), 6);
  EXPECT_EQ(dense->in_features(), 8);
  EXPECT_EQ(dense->byte_size(), 6u * 8 * 2 + 6 * 4);
  const auto int4 =
      backend->prepare({.dense = {}, .quantized = random_w4(4, 64, 32, false, DType::f16), .bias = {}});
  EXPECT_EQ(int4->byte_size(), 4u * (32 + 2 * 5));
}

TEST_P(LinearTest, WrongSizesAreInternalErrors) {
  const auto weight = backend->prepare({.dense = random({6, 8}), .quantized = {}, .bias = {}});
  Tensor y = Tensor::empty(DType::f32, {2, 6});
  const Tensor narrow = random({2, 7});
  EXPECT_EQ(error_of([&] { backend->linear(*weight, narrow, y); }, ErrorKind::internal),
            "cpu back end: x of a linear is F32 [2, 7], expected F32 [2, 8]");
  Tensor wrong = Tensor::empty(DType::f32, {3, 6});
  const Tensor x = random({2, 8});
  EXPECT_EQ(error_of([&] { backend->linear(*weight, x, wrong); }, ErrorKind::internal),
            "cpu back end: y of a linear is F32 [3, 6], expected F32 [2, 6]");
  error_of([&] { backend->prepare({}); }, ErrorKind::internal);
  error_of(
      [&] {
        backend->prepare({.dense = random({6, 8}), .quantized = {}, .bias = random({5})});
      },
      ErrorKind::internal);
  QuantizedWeight broken = random_w4(4, 64, 32, false, DType::f16);
  broken.zeros = Tensor();
  EXPECT_NE(
      error_of([&] { backend->prepare({.dense = {}, .quantized = broken, .bias = {}}); }, ErrorKind::internal)
          .find("int4 weight [4, 64]"),
      std::string::npos);
}

}  // namespace
}  // namespace salient::test
