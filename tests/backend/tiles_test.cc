#include "backend/cpu/tiles.h"

#include <algorithm>
#include <array>

#include "backend/backend_fixture.h"

namespace salient::test {
namespace {

/// Each table of tile kernels; the one of this processor is skipped visibly where there is none.
class TilesTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    kernels = GetParam() ? fast_tile_kernels() : &kPortableTileKernels;
    if (kernels == nullptr) GTEST_SKIP() << "this processor or system has no tiles of bf16";
  }

  Tensor random(Shape shape) { return random_tensor(generator, std::move(shape)); }

  /// Filled with what must not be left over.
  static std::vector<uint16_t> packed(int64_t rows, int64_t depth) {
    return std::vector<uint16_t>(static_cast<size_t>(packed_elements(rows, depth)), uint16_t{0x7fc0});
  }

  std::vector<uint16_t> left(const Tensor& x) const {
    auto out = packed(x.dim(0), x.dim(1));
    kernels->pack_left(problem_of(x, depth_tiles(x.dim(1)), out));
    return out;
  }
  std::vector<uint16_t> right(const Tensor& x) const {
    auto out = packed(x.dim(1), x.dim(0));
    kernels->pack_right(problem_of(x, depth_tiles(x.dim(0)), out));
    return out;
  }
  static PackProblem problem_of(const Tensor& x, int64_t tiles, std::vector<uint16_t>& out) {
    return {.x = x.values<float>().data(),
            .stride = x.dim(1),
            .rows = x.dim(0),
            .columns = x.dim(1),
            .out = out.data(),
            .panel_stride = tiles * kTileElements};
  }

  const TileKernels* kernels = nullptr;
  std::mt19937 generator{42};
};

INSTANTIATE_TEST_SUITE_P(Kernels, TilesTest, testing::Values(false, true),
                         [](const auto& given) { return given.param ? "Fast" : "Portable"; });

uint16_t rounded(const Tensor& x, int64_t row, int64_t column) {
  return row < x.dim(0) && column < x.dim(1) ? to_bfloat16(at(x, row, column)).bits : uint16_t{0};
}

const std::vector<Shape> kShapes{{1, 1}, {3, 40}, {16, 32}, {17, 33}, {31, 64}, {50, 97}, {64, 70}};

TEST_P(TilesTest, RowsAreRoundedIntoLeftTilesAndPaddedWithZeros) {
  for (const Shape& shape : kShapes) {
    const Tensor x = random(shape);
    const auto out = left(x);
    for (int64_t i = 0; i < std::ssize(out); ++i) {
      const int64_t tile = i / kTileElements;
      const int64_t tiles = depth_tiles(shape[1]);
      const int64_t row = tile / tiles * kTileRows + i % kTileElements / kTileDepth;
      const int64_t column = tile % tiles * kTileDepth + i % kTileDepth;
      ASSERT_EQ(out[static_cast<size_t>(i)], rounded(x, row, column)) << to_string(shape) << " at " << i;
    }
  }
}

TEST_P(TilesTest, RowsAreRoundedIntoPairsOfRightTiles) {
  for (const Shape& shape : kShapes) {
    const Tensor x = random(shape);
    const auto out = right(x);
    for (int64_t i = 0; i < std::ssize(out); ++i) {
      const int64_t tile = i / kTileElements;
      const int64_t tiles = depth_tiles(shape[0]);
      const int64_t row = tile % tiles * kTileDepth + i % kTileElements / kTileDepth * 2 + i % 2;
      const int64_t column = tile / tiles * kTileRows + i % kTileDepth / 2;
      ASSERT_EQ(out[static_cast<size_t>(i)], rounded(x, row, column)) << to_string(shape) << " at " << i;
    }
  }
}

TEST_P(TilesTest, ATransposedLeftTileIsARightTile) {
  const Tensor x = random({48, 96});
  Tensor turned = Tensor::empty(DType::f32, {96, 48});
  for (int64_t r = 0; r < 48; ++r) {
    for (int64_t c = 0; c < 96; ++c)
      turned.mutable_values<float>()[static_cast<size_t>(c * 48 + r)] = at(x, r, c);
  }
  const auto in = left(x);
  auto out = packed(48, 96);
  kernels->transpose(in.data(), std::ssize(in) / kTileElements, out.data());
  EXPECT_EQ(out, right(turned));
  kernels->transpose(out.data(), std::ssize(out) / kTileElements, out.data());
  EXPECT_EQ(out, in) << "twice, in place";
}

TEST_P(TilesTest, ProductsAgreeWithDoublePrecisionAndTouchNothingElse) {
  for (const auto& [rows, columns, depth] : std::vector<std::array<int64_t, 3>>{{1, 1, 1},
                                                                                {16, 16, 32},
                                                                                {17, 15, 31},
                                                                                {32, 32, 640},
                                                                                {33, 47, 100},
                                                                                {64, 49, 1100},
                                                                                {5, 80, 513}}) {
    const Tensor a = random({rows, depth});
    const Tensor b = random({depth, columns});
    for (const int64_t accumulate : {0, 1}) {
      constexpr int64_t kMargin = 3;
      Tensor y = random({rows, columns + kMargin});
      const Tensor before = y.to(DType::f32);
      const auto packed_a = left(a);
      const auto packed_b = right(b);
      const int64_t stride = depth_tiles(depth) * kTileElements;
      kernels->multiply({.left = packed_a.data(),
                         .left_stride = stride,
                         .right = packed_b.data(),
                         .right_stride = stride,
                         .tiles = depth_tiles(depth),
                         .rows = rows,
                         .columns = columns,
                         .out = y.mutable_values<float>().data(),
                         .out_stride = columns + kMargin,
                         .accumulate = accumulate});
      const Tensor exact_a = a.to(DType::bf16).to(DType::f32);
      const Tensor exact_b = b.to(DType::bf16).to(DType::f32);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < columns + kMargin; ++c) {
          double sum = c >= columns || accumulate != 0 ? double{at(before, r, c)} : 0.0;
          double size = std::abs(sum) + 1e-30;
          for (int64_t k = 0; k < depth && c < columns; ++k) {
            sum += double{at(exact_a, r, k)} * double{at(exact_b, k, c)};
            size += std::abs(double{at(exact_a, r, k)} * double{at(exact_b, k, c)});
          }
          ASSERT_LT(std::abs(double{at(y, r, c)} - sum) / size, 2e-6)
              << rows << " x " << columns << " x " << depth << " at " << r << ", " << c;
        }
      }
    }
  }
}

TEST_P(TilesTest, AttentionWeightsAreExponentialsOfTheDistanceToTheLargest) {
  for (const int64_t count : {1, 15, 16, 17, 32, 33, 100}) {
    Tensor scores = random({1, count});
    auto values = scores.mutable_values<float>();
    for (float& value : values) value *= 10;
    if (count > 20) values[3] = -INFINITY;
    const int64_t tiles = depth_tiles(count) + 1;
    std::vector<uint16_t> out(static_cast<size_t>(tiles * kTileElements), uint16_t{0x7fc0});
    const SoftmaxTotal total = kernels->attention_weights(
        {.scores = values.data(), .count = count, .out = out.data(), .out_tiles = tiles});
    const float largest = *std::ranges::max_element(values);
    double sum = 0;
    for (int64_t k = 0; k < tiles * kTileDepth; ++k) {
      const double exact =
          k < count ? std::exp(double{values[static_cast<size_t>(k)]} - double{largest}) : 0.0;
      const auto place = static_cast<size_t>(k / kTileDepth * kTileElements + k % kTileDepth);
      ASSERT_NEAR(to_float(BFloat16{out[place]}), exact, exact / 250) << k << " of " << count;
      sum += exact;
    }
    EXPECT_EQ(total.highest, largest) << count;
    EXPECT_NEAR(total.sum, sum, 1e-5 * sum) << count;
    EXPECT_EQ(out[kTileDepth], 0x7fc0) << "the next row";
  }
}

}  // namespace
}  // namespace salient::test
