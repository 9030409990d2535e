#include "backend/cuda/linear.cuh"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <set>

#include "backend/backend_fixture.h"
#include "backend/cuda/linear_products.h"
#include "backend/cuda/simulator.h"
#include "quant/group_quantize.h"

namespace salient::test {
namespace {

using cuda::HalfType;
using cuda::PackedProduct;
using cuda::ProductFamily;

QuantizationScheme scheme_of(int64_t group_size, bool symmetric, int bits = 4) {
  QuantizationScheme scheme;
  scheme.num_bits = bits;
  scheme.group_size = group_size;
  scheme.symmetric = symmetric;
  return scheme;
}

TEST(ProductLayout, EveryCodeOfATileHasAPlaceOfItsOwn) {
  std::set<std::tuple<int, int, int>> places;
  for (int row = 0; row < cuda::kTileRows; ++row) {
    for (int column = 0; column < cuda::kTileColumns; ++column) {
      const auto [lane, word, nibble] = cuda::code_place(row, column);
      EXPECT_TRUE(lane < 32 && word < 4 && nibble < 8);
      places.insert({lane, word, nibble});
    }
  }
  EXPECT_EQ(places.size(), 16u * 64);
}

TEST(ProductLayout, EveryColumnOfXHasAPlaceOfItsOwn) {
  std::set<int> places;
  for (int column = 0; column < cuda::kTileColumns; ++column) places.insert(cuda::input_place(column));
  EXPECT_EQ(places.size(), 64u);
  EXPECT_EQ(*places.rbegin(), 63);
}

TEST(ProductLayout, CodesLieWhereTheMapsSay) {
  std::mt19937 generator(7);
  const Tensor weight = random_tensor(generator, {40, 200});
  const QuantizedWeight quantized = quantize_to_nearest(weight, {}, scheme_of(32, false), DType::f16);
  const PackedProduct packed = cuda::pack_codes(quantized);
  ASSERT_EQ(packed.row_blocks, 3);
  ASSERT_EQ(packed.tiles, 4);
  ASSERT_EQ(cuda::tiles_of_row(257, true), 6) << "in pairs";
  ASSERT_EQ(cuda::tiles_of_row(257, false), 5);
  ASSERT_EQ(packed.groups, 8);
  for (int row = 0; row < 48; ++row) {
    for (int column = 0; column < 256; ++column) {
      const auto [lane, word, nibble] = cuda::code_place(row % 16, column % 64);
      const auto& words = packed.weight[static_cast<size_t>((row / 16 * 4 + column / 64) * 32 + lane)];
      const bool inside = row < 40 && column < 200;
      ASSERT_EQ(words.word[word] >> (4 * nibble) & 15u,
                inside ? static_cast<uint32_t>(quantized.code(row, column)) : 0u);
      const uint32_t factor =
          packed
              .factors[static_cast<size_t>((row / 16 * 8 + column / 32) * 16 + cuda::factor_place(row % 16))];
      if (!inside) continue;
      ASSERT_EQ(std::bit_cast<float>(factor & cuda::kScaleBits), quantized.scale(row, column / 32));
      ASSERT_EQ(factor & cuda::kZeroBits, static_cast<uint32_t>(quantized.zero(row, column / 32)));
    }
  }
}

/// Every code with every zero, at every place of a word: 16 x 16 x 8.
template <typename T, typename Value>
void expect_exact_differences(const Value& value) {
  for (uint32_t zero = 0; zero < 16; ++zero) {
    for (uint32_t code = 0; code < 16; ++code) {
      for (int nibble = 0; nibble < 8; ++nibble) {
        const uint32_t others = 0x5a3cf081u;
        const uint32_t word = (others & ~(0xfu << (4 * nibble))) | code << (4 * nibble);
        uint32_t zeros[2];
        cuda::Codes<T>::zeros(0x3f800000u | zero, 0x3f800000u | zero, zeros);
        uint32_t a[4];
        cuda::Codes<T>::expand(word, zeros, a);
        const auto half = static_cast<uint16_t>(a[nibble % 4] >> (nibble / 4 * 16));
        ASSERT_EQ(value(half), static_cast<float>(code) - static_cast<float>(zero)) << code << " " << zero;
      }
    }
  }
}

TEST(ProductCodes, DifferencesAreExactInF16) {
  expect_exact_differences<simt::F16>([](uint16_t bits) { return to_float(Half{bits}); });
}
TEST(ProductCodes, DifferencesAreExactInBf16) {
  expect_exact_differences<simt::BF16>([](uint16_t bits) { return to_float(BFloat16{bits}); });
}

class CudaProduct : public testing::Test {
 protected:
  ~CudaProduct() override { EXPECT_TRUE(device.guards_held()); }

  Tensor multiply(const PackedProduct& packed, HalfType half, const Tensor& x, const Tensor& bias,
                  std::optional<ProductFamily> family = {}) {
    cuda::ProductWeight weight(device, packed, half);
    if (bias.defined()) weight.bias = cuda::DeviceBuffer::of(device, bias.values<float>());
    cuda::Products products(device);
    products.force(family);
    const auto input = cuda::DeviceBuffer::of(device, x.values<float>());
    Tensor y = Tensor::empty(DType::f32, {x.dim(0), packed.out});
    cuda::DeviceBuffer output(device, y.byte_size());
    products.set_input(input.as<float>(), static_cast<int>(x.dim(0)), static_cast<int>(x.dim(1)));
    plan = products.plan(weight, static_cast<int>(x.dim(0)));
    products.multiply(weight, output.as<float>());
    device.copy_out(y.mutable_bytes(), output.address(), y.byte_size());
    return y;
  }

  static Tensor rounded(const Tensor& x, HalfType half) {
    return x.to(half == HalfType::f16 ? DType::f16 : DType::bf16).to(DType::f32);
  }

  /// Errors of f32 sums alone: x is rounded before.
  void expect_product(const QuantizedWeight& weight, int64_t rows, HalfType half,
                      std::optional<ProductFamily> family = {}) {
    const Tensor x = rounded(random_tensor(generator, {rows, weight.in_features}), half);
    const Tensor bias = random_tensor(generator, {weight.out_features});
    const Tensor y = multiply(cuda::pack_codes(weight), half, x, bias, family);
    Tensor exact = dequantize(weight);
    double bound = 4e-7;
    if (plan.family == ProductFamily::library) {
      exact = rounded(exact, half);
      bound = 1e-6;
    }
    EXPECT_LT(product_error(x, exact, bias, y), bound)
        << rows << " rows, " << describe(weight.scheme) << ", " << to_string(plan.family);
  }

  QuantizedWeight random_weight(int64_t out, int64_t in, const QuantizationScheme& scheme) {
    return quantize_to_nearest(random_tensor(generator, {out, in}), {}, scheme, DType::f16);
  }

  SimulatedDevice device;
  std::mt19937 generator{3};
  cuda::ProductPlan plan{};
};

TEST_F(CudaProduct, FewRowsOfEverySchemeAndType) {
  for (const int64_t group_size : {32, 64, 128, -1}) {
    for (const bool symmetric : {false, true}) {
      const QuantizedWeight weight = random_weight(48, 256, scheme_of(group_size, symmetric));
      for (const HalfType half : {HalfType::f16, HalfType::bf16}) expect_product(weight, 1, half);
    }
  }
}

TEST_F(CudaProduct, EveryNumberOfRows) {
  const QuantizedWeight weight = random_weight(80, 256, scheme_of(64, false));
  for (int64_t rows = 1; rows <= 9; ++rows) expect_product(weight, rows, HalfType::f16);
  for (const int64_t rows : {15, 16, 17, 31, 33, 64, 65, 130}) expect_product(weight, rows, HalfType::f16);
}

TEST_F(CudaProduct, ManyRowsOfEverySchemeAndType) {
  for (const int64_t group_size : {32, 64, 128, -1}) {
    const QuantizedWeight weight = random_weight(48, 384, scheme_of(group_size, group_size == 64));
    for (const HalfType half : {HalfType::f16, HalfType::bf16})
      for (const int64_t rows : {12, 24, 40}) expect_product(weight, rows, half);
  }
}

/// More columns than a warp has room for at a time, in groups that end within its share and beyond it.
TEST_F(CudaProduct, RingsGoRound) {
  for (const int64_t group_size : {32, 64, 128, 256}) {
    const QuantizedWeight weight = random_weight(160, 6400, scheme_of(group_size, false));
    for (const int64_t rows : {1, 3}) {
      device.set_seed(static_cast<uint32_t>(group_size + rows));
      expect_product(weight, rows, HalfType::f16);
      EXPECT_EQ(plan.grid.y, 1);
    }
    for (const int64_t rows : {16, 32, 64}) expect_product(weight, rows, HalfType::f16);
  }
}

TEST_F(CudaProduct, SizesThatFillNoTile) {
  for (const auto& [out, in] : {std::pair{1, 8}, {17, 72}, {257, 136}, {5, 1000}}) {
    const QuantizedWeight weight = random_weight(out, in, scheme_of(-1, false));
    expect_product(weight, 2, HalfType::f16);
    expect_product(weight, 11, HalfType::f16);
  }
}

TEST_F(CudaProduct, SharesOfTheColumnsAddUp) {
  const QuantizedWeight weight = random_weight(32, 2048, scheme_of(128, false));
  expect_product(weight, 1, HalfType::f16);
  EXPECT_GT(plan.grid.y, 1);
  expect_product(weight, 16, HalfType::f16);
  EXPECT_GT(plan.grid.y, 1);
}

TEST_F(CudaProduct, ALibraryTakesManyRows) {
  const QuantizedWeight weight = random_weight(33, 136, scheme_of(-1, false));
  for (const HalfType half : {HalfType::f16, HalfType::bf16}) {
    expect_product(weight, 257, half);
    EXPECT_EQ(plan.family, ProductFamily::library);
  }
  device.set_multiplies(false);
  expect_product(weight, 257, HalfType::f16);
  EXPECT_EQ(plan.family, ProductFamily::gemm);
}

TEST_F(CudaProduct, EveryOrderOfWarpsGivesTheSameBytes) {
  const QuantizedWeight weight = random_weight(64, 1024, scheme_of(128, false));
  for (const int64_t rows : {3, 20}) {
    const Tensor x = random_tensor(generator, {rows, 1024});
    const Tensor first = multiply(cuda::pack_codes(weight), HalfType::f16, x, {});
    for (const uint32_t seed : {1u, 2u, 3u}) {
      device.set_seed(seed);
      const Tensor again = multiply(cuda::pack_codes(weight), HalfType::f16, x, {});
      EXPECT_EQ(std::memcmp(first.bytes(), again.bytes(), first.byte_size()), 0);
    }
  }
}

TEST_F(CudaProduct, RowsOfFewAreWhatEachIsAlone) {
  const QuantizedWeight weight = random_weight(48, 512, scheme_of(128, false));
  const Tensor x = random_tensor(generator, {8, 512});
  const Tensor together = multiply(cuda::pack_codes(weight), HalfType::f16, x, {});
  for (int64_t row = 0; row < 8; ++row) {
    const Tensor alone = multiply(cuda::pack_codes(weight), HalfType::f16, x.slice(row, row + 1), {});
    EXPECT_EQ(std::memcmp(alone.bytes(), together.slice(row, row + 1).bytes(), alone.byte_size()), 0);
  }
}

TEST_F(CudaProduct, DenseWeights) {
  const Tensor weight = random_tensor(generator, {70, 200});
  for (const HalfType half : {HalfType::f16, HalfType::bf16}) {
    const Tensor exact = rounded(weight, half);
    for (const int64_t rows : {1, 8, 13, 30, 64, 300}) {
      const Tensor x = rounded(random_tensor(generator, {rows, 200}), half);
      const Tensor y = multiply(cuda::pack_halves(weight, half), half, x, {});
      EXPECT_LT(product_error(x, exact, {}, y), 4e-7) << rows;
    }
  }
}

TEST_F(CudaProduct, SharedMemoryHasNoConflicts) {
  const QuantizedWeight weight = random_weight(256, 256, scheme_of(128, false));
  for (const int64_t rows : {16, 32, 64}) {
    const Tensor x = random_tensor(generator, {rows, 256});
    multiply(cuda::pack_codes(weight), HalfType::f16, x, {}, ProductFamily::gemm);
  }
  EXPECT_EQ(device.counts().shared_conflicts, 0u);
}

TEST_F(CudaProduct, WeightsAreReadOnce) {
  const QuantizedWeight weight = random_weight(128, 1024, scheme_of(128, false));
  const uint64_t before = device.counts().stream_bytes;
  multiply(cuda::pack_codes(weight), HalfType::f16, random_tensor(generator, {1, 1024}), {});
  EXPECT_EQ(device.counts().stream_bytes - before, 128u * 1024 / 2);
}

/// NVIDIA's figures.
const cuda::DeviceProperties kH100{.multiprocessors = 132, .multiprocessor_shared_bytes = size_t{228} << 10};
const cuda::DeviceProperties kA100{.multiprocessors = 108, .multiprocessor_shared_bytes = size_t{164} << 10};
const cuda::DeviceProperties kRtx3090{.multiprocessors = 82,
                                      .multiprocessor_shared_bytes = size_t{100} << 10};

TEST(ProductPlan, SaysWhy) {
  const auto planned = [&](int rows, const cuda::ProductLimits& limits) {
    return cuda::plan_product({.rows = rows, .out = 8192, .tiles = 128, .columns_per_group = 128}, limits);
  };
  const cuda::ProductLimits limits{.device = kH100, .library = true};
  EXPECT_EQ(planned(1, limits).family, ProductFamily::gemv);
  EXPECT_STREQ(planned(16, limits).kernel.name, "w4_gemm_f16_16");
  EXPECT_EQ(planned(256, limits).family, ProductFamily::gemm);
  EXPECT_EQ(planned(257, limits).reason, "257 rows, 257 or more");
  const cuda::ProductLimits forced{.device = kH100, .library = true, .forced = ProductFamily::gemm};
  EXPECT_EQ(planned(1, forced).family, ProductFamily::gemm);
  EXPECT_EQ(planned(1000, forced).family, ProductFamily::gemm);
  const cuda::ProductLimits impossible{.device = kH100, .library = false, .forced = ProductFamily::gemv};
  EXPECT_EQ(planned(9, impossible).family, ProductFamily::gemm);
}

/// Shares of the columns fill the device once, with as many blocks as there is room for and use of.
TEST(ProductPlan, FillsTheDevice) {
  const auto shares = [](const cuda::DeviceProperties& device, int rows, int out) {
    return cuda::plan_product({.rows = rows, .out = out, .tiles = 128, .columns_per_group = 128},
                              {.device = device, .library = true})
        .grid.y;
  };
  EXPECT_EQ(shares(kH100, 1, 8192), 1);
  EXPECT_EQ(shares(kH100, 1, 4096), 1) << "128 blocks, each with enough on its way";
  EXPECT_EQ(shares(kH100, 1, 1024), 4);
  EXPECT_EQ(shares(kH100, 16, 8192), 4) << "64 blocks, two for each of 132";
  EXPECT_EQ(shares(kA100, 16, 8192), 3);
  EXPECT_EQ(shares(kRtx3090, 16, 8192), 1) << "100 KiB are enough for one";
  EXPECT_EQ(shares(kH100, 64, 8192), 4);
}

TEST(ResidentBlocks, AreLimitedByRegistersAndSharedMemory) {
  const cuda::Kernel kernel{"any", 256, 3};
  EXPECT_EQ(cuda::resident_blocks(kH100, kernel, 0), 3);
  EXPECT_EQ(cuda::resident_blocks(kH100, kernel, size_t{75} << 10), 3);
  EXPECT_EQ(cuda::resident_blocks(kH100, kernel, size_t{76} << 10), 2) << "1 KiB is the system's";
  EXPECT_EQ(cuda::resident_blocks(kRtx3090, kernel, size_t{99} << 10), 1);
}

/// Every tile of columns is in exactly one share, whatever their number.
TEST(ProductShares, CoverEveryTileOnce) {
  for (int tiles = 1; tiles < 70; ++tiles) {
    for (int parts = 1; parts < 20; ++parts) {
      int next = 0;
      for (int part = 0; part < parts; ++part) {
        const auto range = cuda::share_of(0, tiles, part, parts);
        EXPECT_EQ(range.begin, next);
        next = range.end;
      }
      EXPECT_EQ(next, tiles);
    }
  }
}

}  // namespace
}  // namespace salient::test
