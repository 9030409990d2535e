#include "backend/cuda/products.h"

#include <cmath>
#include <cstring>

#include "backend/backend.h"
#include "backend/cuda/device_arrays.h"

namespace salient::test {
namespace {

using cuda::Layout;
using cuda::ProductPart;
using cuda::ProductUse;

/// Of a sum of products, relative to the sum of their magnitudes.
constexpr double kExactBound = 0x1p-21;

float at(const Tensor& matrix, int64_t row, int64_t column) {
  return matrix.values<float>()[static_cast<size_t>(row * matrix.dim(1) + column)];
}

Tensor transposed(const Tensor& matrix) {
  Tensor result = Tensor::empty(DType::f32, {matrix.dim(1), matrix.dim(0)});
  for (int64_t i = 0; i < result.dim(0); ++i)
    for (int64_t j = 0; j < result.dim(1); ++j)
      result.mutable_values<float>()[static_cast<size_t>(i * result.dim(1) + j)] = at(matrix, j, i);
  return result;
}

struct Sum {
  double value = 0;
  double size = 1e-30;
  void add(double term) {
    value += term;
    size += std::abs(term);
  }
};

Sum product_of(const Tensor& a, const Tensor& b, int64_t row, int64_t column) {
  Sum sum;
  for (int64_t k = 0; k < a.dim(1); ++k) sum.add(double{at(a, row, k)} * double{at(b, k, column)});
  return sum;
}

class CudaProducts : public DeviceArrays {
 protected:
  /// a [m, k] and b [k, n] in the layouts, the product beside `before` in rows that are 4 longer.
  void expect_product(int64_t m, int64_t n, int64_t k, Layout a_layout, Layout b_layout, ProductUse use,
                      ProductPart part, double scale = 1) {
    const Tensor a = random({m, k}, static_cast<float>(scale));
    const Tensor b = random({k, n});
    const Tensor before = random({m, n + 4}, static_cast<float>(scale));
    float* c = put(before);
    cuda::multiply(
        device, {.a = {put(a_layout == Layout::plain ? a : transposed(a)), a_layout == Layout::plain ? k : m},
                 .a_layout = a_layout,
                 .b = {put(b_layout == Layout::plain ? b : transposed(b)), b_layout == Layout::plain ? n : k},
                 .b_layout = b_layout,
                 .c = c,
                 .c_stride = n + 4,
                 .m = m,
                 .n = n,
                 .k = k,
                 .use = use,
                 .part = part});
    const Tensor found = get(c, {m, n + 4});
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n + 4; ++j) {
        const bool below = part == ProductPart::upper && j / cuda::kProductTile < i / cuda::kProductTile;
        if (j >= n || below) {
          ASSERT_EQ(at(found, i, j), at(before, i, j)) << i << ", " << j;
          continue;
        }
        Sum sum = product_of(a, b, i, j);
        if (use == ProductUse::subtract) sum.value = -sum.value;
        if (use != ProductUse::set) sum.add(double{at(before, i, j)});
        ASSERT_NEAR(at(found, i, j), sum.value, kExactBound * sum.size)
            << i << ", " << j << " of " << m << " x " << n << " x " << k;
      }
    }
  }
};

TEST_F(CudaProducts, AreAsExactAsF32InEveryLayout) {
  for (const auto& [a, b] :
       std::vector<std::pair<Layout, Layout>>{{Layout::plain, Layout::plain},
                                              {Layout::plain, Layout::transposed},
                                              {Layout::transposed, Layout::plain},
                                              {Layout::transposed, Layout::transposed}}) {
    device.set_seed(static_cast<uint32_t>(device.counts().products));
    expect_product(4, 4, 4, a, b, ProductUse::set, ProductPart::all);
    expect_product(132, 140, 68, a, b, ProductUse::add, ProductPart::all);
    expect_product(20, 12, 100, a, b, ProductUse::subtract, ProductPart::all, 1e-20);
  }
  EXPECT_EQ(device.launches().at("product_of_rows"), 3);
  EXPECT_EQ(device.launches().at("product_of_rows_and_columns"), 3);
  EXPECT_EQ(device.launches().at("product_of_columns"), 3);
  EXPECT_EQ(device.launches().at("plain_product"), 3);
  EXPECT_EQ(device.counts().shared_conflicts, 0u);
}

TEST_F(CudaProducts, OfAnyOddShape) {
  for (const auto& [m, n, k] : std::vector<std::array<int64_t, 3>>{{1, 1, 1}, {5, 3, 7}, {33, 10, 30}}) {
    expect_product(m, n, k, Layout::plain, Layout::plain, ProductUse::add, ProductPart::all);
    expect_product(m, n, k, Layout::transposed, Layout::plain, ProductUse::subtract, ProductPart::all);
  }
  // The depth of operands with columns in memory may be anything.
  expect_product(8, 12, 45, Layout::transposed, Layout::plain, ProductUse::set, ProductPart::all);
  EXPECT_EQ(device.launches().at("product_of_columns"), 1);
}

TEST_F(CudaProducts, OfTheUpperPart) {
  expect_product(260, 264, 36, Layout::plain, Layout::transposed, ProductUse::subtract, ProductPart::upper);
}

/// Sums of terms of one sign are where a chain of sums that are cut off would drift.
TEST_F(CudaProducts, GramMatrices) {
  for (const auto& [rows, k] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {33, 7}, {70, 132}, {41, 300}}) {
    const Tensor x = random({rows, k});
    Tensor before = Tensor::zeros(DType::f32, {k, k});
    for (int64_t i = 0; i < k * k; ++i)
      before.mutable_values<float>()[static_cast<size_t>(i)] = static_cast<float>(i % k + i / k);
    for (const auto precision : {MatmulPrecision::f32, MatmulPrecision::bf16}) {
      float* gram = put(before);
      cuda::accumulate_gram(device,
                            {.x = put(x), .rows = rows, .k = k, .precision = precision, .gram = gram});
      const Tensor found = get(gram, {k, k});
      const bool regular = k % 4 == 0;
      const Tensor own = precision == MatmulPrecision::bf16 && regular ? x.to(DType::bf16).to(DType::f32) : x;
      const Tensor left = transposed(own);
      for (int64_t i = 0; i < k; ++i) {
        for (int64_t j = 0; j < k; ++j) {
          Sum sum = product_of(left, own, i, j);
          sum.add(double{at(before, i, j)});
          ASSERT_NEAR(at(found, i, j), sum.value, kExactBound * sum.size) << i << ", " << j << " of " << k;
          ASSERT_EQ(at(found, i, j), at(found, j, i));
        }
      }
    }
  }
  EXPECT_EQ(device.launches().at("rounded_product_of_columns"), 2);
  EXPECT_EQ(device.counts().shared_conflicts, 0u);
}

TEST_F(CudaProducts, SumsOfProducts) {
  const Tensor a = random({37, 20});
  const Tensor b = random({37, 136});
  for (const auto precision : {MatmulPrecision::f32, MatmulPrecision::bf16}) {
    const auto rounded = [&](const Tensor& x) {
      return precision == MatmulPrecision::bf16 ? x.to(DType::bf16).to(DType::f32) : x;
    };
    const Tensor before = random({20, 136});
    float* result = put(before);
    cuda::accumulate_product(device, {.a = put(a),
                                      .b = put(b),
                                      .rows = 37,
                                      .a_columns = 20,
                                      .b_columns = 136,
                                      .precision = precision,
                                      .result = result});
    const Tensor found = get(result, {20, 136});
    const Tensor left = transposed(rounded(a));
    for (int64_t i = 0; i < 20; ++i) {
      for (int64_t j = 0; j < 136; ++j) {
        Sum sum = product_of(left, rounded(b), i, j);
        sum.add(double{at(before, i, j)});
        ASSERT_NEAR(at(found, i, j), sum.value, kExactBound * sum.size) << i << ", " << j;
      }
    }
  }
}

class CudaForms : public DeviceArrays {
 protected:
  Tensor symmetric(int64_t k) {
    Tensor result = random({k, k});
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < i; ++j)
        result.mutable_values<float>()[static_cast<size_t>(j * k + i)] = at(result, i, j);
    return result;
  }
  std::vector<double> forms(const Tensor& x, const Tensor& s, int64_t width, MatmulPrecision precision) {
    const int64_t groups = (x.dim(1) + width - 1) / width;
    auto* result = room<double>(static_cast<size_t>(x.dim(0) * groups));
    cuda::quadratic_form(device,
                         {.x = put(x),
                          .symmetric = put(s),
                          .rows = x.dim(0),
                          .columns = x.dim(1),
                          .group_width = width,
                          .precision = precision,
                          .workspace = room<float>(cuda::form_workspace_bytes(x.dim(0), x.dim(1)) / 4),
                          .result = result});
    return get(result, static_cast<size_t>(x.dim(0) * groups));
  }
  /// Products of the values as `precision` rounds them, times the values as they are.
  void expect_forms(int64_t rows, int64_t columns, int64_t width, MatmulPrecision precision) {
    const Tensor x = random({rows, columns});
    const Tensor s = symmetric(columns);
    const std::vector<double> found = forms(x, s, width, precision);
    const bool rounded = precision == MatmulPrecision::bf16;
    const Tensor left = rounded ? x.to(DType::bf16).to(DType::f32) : x;
    const Tensor right = rounded ? s.to(DType::bf16).to(DType::f32) : s;
    const int64_t groups = (columns + width - 1) / width;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t group = 0; group < groups; ++group) {
        Sum sum;
        const int64_t end = std::min(columns, (group + 1) * width);
        for (int64_t i = group * width; i < end; ++i) {
          for (int64_t j = group * width; j < end; ++j) {
            // A block before the one on the diagonal counts twice, with the rounded value on that side.
            const bool before = i / cuda::kProductTile < j / cuda::kProductTile;
            const bool after = i / cuda::kProductTile > j / cuda::kProductTile;
            const int64_t product_side = before || !after ? i : j;
            const int64_t other = product_side == i ? j : i;
            sum.add(double{at(left, row, product_side)} * double{at(right, i, j)} *
                    double{at(x, row, other)});
          }
        }
        ASSERT_NEAR(found[static_cast<size_t>(row * groups + group)], sum.value, kExactBound * sum.size)
            << row << ", group " << group << " of " << columns << " by " << width;
      }
    }
  }
};

TEST_F(CudaForms, OfWholeRows) {
  expect_forms(3, 8, 8, MatmulPrecision::f32);
  expect_forms(131, 132, 132, MatmulPrecision::f32);
  expect_forms(5, 300, 300, MatmulPrecision::f32);
  expect_forms(5, 300, 300, MatmulPrecision::bf16);
  EXPECT_EQ(device.counts().shared_conflicts, 0u);
}

TEST_F(CudaForms, OfGroups) {
  for (const int64_t width : {16, 32, 64, 128, 256}) {
    device.set_seed(static_cast<uint32_t>(width));
    expect_forms(4, 272, width, MatmulPrecision::f32);
    expect_forms(3, 64, width, MatmulPrecision::f32);
  }
  expect_forms(3, 272, 64, MatmulPrecision::bf16);
  expect_forms(3, 544, 256, MatmulPrecision::bf16);
}

TEST_F(CudaForms, OfAnyOddShape) {
  expect_forms(3, 7, 7, MatmulPrecision::f32);
  expect_forms(2, 301, 64, MatmulPrecision::f32);
  expect_forms(2, 24, 12, MatmulPrecision::f32);
  EXPECT_EQ(device.launches().at("plain_form"), 3);
}

}  // namespace
}  // namespace salient::test
