#include "backend/cuda/simulator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "backend/cuda/halves.h"
#include "backend/cuda/simt.h"
#include "base/error.h"
#include "tensor/dtype.h"

namespace salient::test {
namespace {

using cuda::bytes_of;

template <typename Arguments>
SimulatedCounts run(void (*kernel)(const Arguments&), const Arguments& arguments, const SimulatedGrid& grid,
                    uint32_t seed = 0) {
  static thread_local void (*body)(const Arguments&);
  body = kernel;
  return simulate(
      grid, [](const std::byte* bytes) { body(*reinterpret_cast<const Arguments*>(bytes)); },
      bytes_of(arguments).data(), seed);
}

struct Sums {
  const float* x;
  float* y;
};

void block_sums(const Sums& a) {
  float* parts = simt::shared_memory<float>();
  const float sum = simt::warp_sum(a.x[simt::thread()]);
  if (simt::lane() == 0) parts[simt::warp()] = sum;
  simt::sync_block();
  float whole = 0;
  for (int i = 0; i < simt::block_threads() / simt::kWarp; ++i) whole += parts[i];
  a.y[simt::thread()] = whole;
}

void block_sums_without_barrier(const Sums& a) {
  float* parts = simt::shared_memory<float>();
  const float sum = simt::warp_sum(a.x[simt::thread()]);
  if (simt::lane() == 0) parts[simt::warp()] = sum;
  float whole = 0;
  for (int i = 0; i < simt::block_threads() / simt::kWarp; ++i) whole += parts[i];
  a.y[simt::thread()] = whole;
}

class Simulator : public testing::Test {
 protected:
  Simulator() { std::iota(x.begin(), x.end(), 1.0f); }
  std::vector<float> x = std::vector<float>(128);
  std::vector<float> y = std::vector<float>(128);
  const SimulatedGrid grid{.grid = {}, .threads = 128, .shared_bytes = 64};
};

TEST_F(Simulator, ThreadsOfABlockAddUp) {
  for (uint32_t seed = 0; seed < 8; ++seed) {
    run(block_sums, Sums{x.data(), y.data()}, grid, seed);
    for (const float value : y) EXPECT_EQ(value, 128.0f * 129 / 2);
  }
}

TEST_F(Simulator, AMissingBarrierShowsAsNaN) {
  run(block_sums_without_barrier, Sums{x.data(), y.data()}, grid);
  EXPECT_TRUE(std::ranges::any_of(y, [](float value) { return std::isnan(value); }));
}

TEST_F(Simulator, ThreadsThatPartAtABarrierAreFound) {
  const auto kernel = +[](const Sums&) {
    if (simt::thread() < 32) simt::sync_block();
  };
  EXPECT_THROW(run(kernel, Sums{x.data(), y.data()}, grid), Error);
}

TEST_F(Simulator, LanesThatPartAtAnInstructionAreFound) {
  const auto kernel = +[](const Sums& a) {
    a.y[simt::thread()] = simt::lane() < 16 ? simt::shuffle_xor(1.0f, 1) : simt::shuffle(1.0f, 0);
  };
  EXPECT_THROW(run(kernel, Sums{x.data(), y.data()}, grid), Error);
}

TEST_F(Simulator, CopiesArriveWhenTheyAreWaitedFor) {
  const auto kernel = +[](const Sums& a) {
    float* shared = simt::shared_memory<float>();
    simt::copy_async(shared + 4 * simt::lane(), a.x + 4 * simt::lane());
    simt::copy_commit();
    const float before = shared[4 * simt::lane()];
    simt::copy_wait<0>();
    a.y[simt::lane()] = std::isnan(before) ? shared[4 * simt::lane()] : -1.0f;
  };
  run(kernel, Sums{x.data(), y.data()}, {.grid = {}, .threads = 32, .shared_bytes = 512});
  for (size_t i = 0; i < 32; ++i) EXPECT_EQ(y[i], x[4 * i]);
}

TEST_F(Simulator, WhatIsWrittenBehindSharedMemoryIsFound) {
  const auto kernel = +[](const Sums&) { simt::shared_memory<float>()[16 + simt::lane()] = 1; };
  EXPECT_THROW(run(kernel, Sums{x.data(), y.data()}, {.grid = {}, .threads = 32, .shared_bytes = 64}), Error);
}

TEST_F(Simulator, RowsOnTheSameBanksAreCounted) {
  const auto kernel = +[](const Sums& a) {
    const auto stride = static_cast<int>(a.x[0]);
    uint32_t rows[4];
    simt::load_matrices(rows, simt::shared_memory<std::byte>() + stride * simt::lane());
    a.y[simt::lane()] = 0;
  };
  const SimulatedGrid one{.grid = {}, .threads = 32, .shared_bytes = 4096};
  x[0] = 16;
  EXPECT_EQ(run(kernel, Sums{x.data(), y.data()}, one).shared_conflicts, 0u);
  x[0] = 128;  // eight rows begin on the same bank
  EXPECT_EQ(run(kernel, Sums{x.data(), y.data()}, one).shared_conflicts, 4u * 7);
}

struct Product {
  const float* a;  // [16, 16]
  const float* b;  // [16, 8]
  float* c;        // [16, 8]
};

template <typename T>
void product(const Product& p) {
  const int g = simt::lane() / 4;
  const int t = simt::lane() % 4;
  const auto left = [&](int row, int column) { return p.a[row * 16 + column]; };
  const auto right = [&](int row, int column) { return p.b[row * 8 + column]; };
  const uint32_t a[4] = {T::pack(left(g, 2 * t), left(g, 2 * t + 1)),
                         T::pack(left(g + 8, 2 * t), left(g + 8, 2 * t + 1)),
                         T::pack(left(g, 2 * t + 8), left(g, 2 * t + 9)),
                         T::pack(left(g + 8, 2 * t + 8), left(g + 8, 2 * t + 9))};
  float c[4] = {};
  T::mma(c, a, T::pack(right(2 * t, g), right(2 * t + 1, g)),
         T::pack(right(2 * t + 8, g), right(2 * t + 9, g)));
  for (int i = 0; i < 4; ++i) p.c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = c[i];
}

TEST(SimulatedMma, MultipliesMatrices) {
  std::vector<float> a(256), b(128), c(128);
  for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i % 13) - 6;
  for (size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(i % 7) - 3;
  for (const auto kernel : {&product<simt::F16>, &product<simt::BF16>}) {
    run(kernel, Product{a.data(), b.data(), c.data()}, {.grid = {}, .threads = 32});
    for (size_t row = 0; row < 16; ++row) {
      for (size_t column = 0; column < 8; ++column) {
        float expected = 0;
        for (size_t k = 0; k < 16; ++k) expected += a[row * 16 + k] * b[k * 8 + column];
        EXPECT_EQ(c[row * 8 + column], expected) << row << ", " << column;
      }
    }
  }
}

TEST(SimulatedDevice, HalvesOfRowsArePaddedWithZeros) {
  SimulatedDevice device;
  const std::vector<float> x{1.5f, -2.0f, 1e6f, 0.25f, -1e6f, 3.0f};
  auto* from = static_cast<float*>(device.allocate(x.size() * sizeof(float)));
  auto* to = static_cast<uint32_t*>(device.allocate(4 * 4 * sizeof(uint16_t)));
  device.copy_in(from, x.data(), x.size() * sizeof(float));
  const cuda::HalvesArguments arguments{
      .x = from, .to = to, .rows = 2, .columns = 3, .padded_rows = 4, .padded_columns = 4};
  device.launch({.kernel = cuda::kHalvesF16, .grid = {}, .arguments = bytes_of(arguments)});
  std::vector<uint16_t> halves(16);
  device.copy_out(halves.data(), to, 32);
  const std::vector<float> expected{1.5f, -2, 65504, 0, 0.25f, -65504, 3};
  for (size_t i = 0; i < halves.size(); ++i)
    EXPECT_EQ(to_float(Half{halves[i]}), i < expected.size() ? expected[i] : 0.0f) << i;
  device.release(from);
  device.release(to);
  EXPECT_TRUE(device.guards_held());
  EXPECT_EQ(device.used_bytes(), 0u);
}

TEST(SimulatedDevice, AnOverwrittenGuardIsNoticed) {
  SimulatedDevice device;
  auto* memory = static_cast<std::byte*>(device.allocate(10));
  memory[10] = std::byte{0};
  device.release(memory);
  EXPECT_FALSE(device.guards_held());
}

}  // namespace
}  // namespace salient::test
