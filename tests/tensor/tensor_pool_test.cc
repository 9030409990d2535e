#include "tensor/tensor_pool.h"

#include <gtest/gtest.h>

#include <optional>

#include "base/parallel.h"

namespace salient::test {
namespace {

constexpr int64_t kMega = int64_t{1} << 20;

Tensor bytes_of(TensorPool& pool, int64_t bytes) { return pool.empty(DType::u8, {bytes}); }

TEST(TensorPool, WhatIsGivenBackServesTheNextOfItsSize) {
  TensorPool pool;
  const std::byte* first = nullptr;
  {
    Tensor tensor = pool.empty(DType::f32, {100, 3000});
    first = tensor.bytes();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % 64, 0u);
    tensor.mutable_values<float>()[299999] = 1;
  }
  const size_t taken = pool.byte_size();
  EXPECT_GE(taken, 1200000u);
  const Tensor again = pool.empty(DType::f32, {100, 3000});
  EXPECT_EQ(again.bytes(), first);
  EXPECT_EQ(again.shape(), (Shape{100, 3000}));
  const Tensor other = pool.empty(DType::f32, {100, 3000});
  EXPECT_NE(other.bytes(), first);
  EXPECT_EQ(pool.byte_size(), 2 * taken);
}

TEST(TensorPool, TakesLittleMoreThanItsTensorsNeededAtOnce) {
  TensorPool pool;
  size_t most = 0;
  for (int64_t size = 1; size < 40; ++size) {
    const Tensor large = bytes_of(pool, size * kMega);
    const Tensor small = bytes_of(pool, (41 - size) * kMega);
    most = std::max(most, large.byte_size() + small.byte_size());
    EXPECT_LE(static_cast<double>(pool.byte_size()), static_cast<double>(most) * TensorPool::kSlack) << size;
  }
}

TEST(TensorPool, TensorsMayOutliveIt) {
  std::optional<TensorPool> pool(std::in_place);
  Tensor kept = bytes_of(*pool, 3 * kMega);
  { const Tensor dropped = bytes_of(*pool, 3 * kMega); }
  pool.reset();
  kept.mutable_bytes()[3 * kMega - 1] = std::byte{7};
  EXPECT_EQ(kept.bytes()[3 * kMega - 1], std::byte{7});
}

TEST(TensorPool, ThreadsShareIt) {
  TensorPool pool;
  set_thread_count(3);
  parallel_for(200, 1, [&](size_t i, size_t) {
    Tensor mine = bytes_of(pool, 100000 + static_cast<int64_t>(i % 7) * 1000);
    std::ranges::fill(mine.mutable_values<uint8_t>(), static_cast<uint8_t>(i));
    for (const uint8_t value : mine.values<uint8_t>()) ASSERT_EQ(value, static_cast<uint8_t>(i));
  });
  set_thread_count(2);
  EXPECT_LE(pool.byte_size(), 10u * 110000);
}

TEST(TensorPool, WithoutOneTensorsComeFromTheSystem) {
  EXPECT_EQ(pool_or_new(nullptr, DType::f32, {2, 3}).shape(), (Shape{2, 3}));
  TensorPool pool;
  EXPECT_EQ(pool_or_new(&pool, DType::f32, {0, 3}).byte_size(), 0u);
  EXPECT_EQ(pool.byte_size(), 0u) << "small ones are left to the allocator";
}

}  // namespace
}  // namespace salient::test
