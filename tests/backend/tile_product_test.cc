#include "backend/cpu/tile_product.h"

#include "backend/backend_fixture.h"

namespace salient::test {
namespace {

/// The orchestration of products in tiles, by portable tile kernels and by the library that stands in for
/// them: neither is what a processor with tiles uses of itself.
class TileProductTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (GetParam() && !gemm_has_fast_bf16()) GTEST_SKIP() << "no bf16 products on this processor";
  }

  CpuContext context() {
    return {.kernels = kPortableKernels,
            .gemm = gemm,
            .panels = kPortablePanels,
            .tiles = GetParam() ? nullptr : &kPortableTileKernels};
  }
  Tensor rounded(Shape shape) {
    return random_tensor(generator, std::move(shape)).to(DType::bf16).to(DType::f32);
  }
  static Tensor transposed(const Tensor& x) {
    Tensor result = Tensor::empty(DType::f32, {x.dim(1), x.dim(0)});
    for (int64_t r = 0; r < x.dim(0); ++r) {
      for (int64_t c = 0; c < x.dim(1); ++c)
        result.mutable_values<float>()[static_cast<size_t>(c * x.dim(0) + r)] = at(x, r, c);
    }
    return result;
  }

  Gemm gemm;
  std::mt19937 generator{7};
};

INSTANTIATE_TEST_SUITE_P(By, TileProductTest, testing::Values(false, true),
                         [](const auto& given) { return given.param ? "Library" : "PortableTiles"; });

/// Of a thousand products that the portable kernel sums one after the other.
constexpr double kBound = 1e-5;

TEST_P(TileProductTest, LinearsOfAnySize) {
  for (const auto& [rows, outputs, depth] :
       std::vector<std::array<int64_t, 3>>{{9, 3, 7}, {33, 150, 70}, {270, 130, 40}, {20, 17, 1100}}) {
    const Tensor x = rounded({rows, depth});
    const Tensor matrix = rounded({outputs, depth});
    const Tensor bias = random_tensor(generator, {outputs});
    const DenseWeight weight(matrix.to(DType::bf16));
    Tensor y = Tensor::empty(DType::f32, {rows, outputs});
    multiply(context(), {.weight = weight,
                         .x = x.values<float>().data(),
                         .rows = rows,
                         .bias = bias.values<float>(),
                         .y = y.mutable_values<float>().data(),
                         .precision = MatmulPrecision::bf16});
    EXPECT_LT(product_error(x, matrix, bias, y), kBound) << rows << " x " << depth << " x " << outputs;
  }
}

TEST_P(TileProductTest, GramMatricesAndTheirKin) {
  for (const auto& [rows, k] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 5}, {40, 33}, {1100, 20}, {33, 270}}) {
    const Tensor x = rounded({rows, k});
    const Tensor other = rounded({rows, 18});
    Tensor gram = Tensor::zeros(DType::f32, {k, k});
    accumulate_gram(context(), {.x = x.values<float>().data(),
                                .rows = rows,
                                .k = k,
                                .precision = MatmulPrecision::bf16,
                                .gram = gram.mutable_values<float>().data()});
    EXPECT_LT(product_error(transposed(x), transposed(x), {}, gram), kBound) << rows << " x " << k;
    Tensor cross = Tensor::zeros(DType::f32, {k, 18});
    accumulate_product(context(), {.a = x.values<float>().data(),
                                   .b = other.values<float>().data(),
                                   .rows = rows,
                                   .a_columns = k,
                                   .b_columns = 18,
                                   .precision = MatmulPrecision::bf16,
                                   .result = cross.mutable_values<float>().data()});
    EXPECT_LT(product_error(transposed(x), transposed(other), {}, cross), kBound) << rows << " x " << k;
  }
}

}  // namespace
}  // namespace salient::test
