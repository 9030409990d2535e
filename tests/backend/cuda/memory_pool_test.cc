#include "backend/cuda/memory_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <thread>
#include <vector>

namespace salient::cuda {
namespace {

class CountedMemory final : public MemorySource {
 public:
  void* allocate(size_t bytes) override {
    if (used + bytes > limit) return nullptr;
    ++allocations;
    used += bytes;
    void* memory = std::malloc(1);
    sizes[memory] = bytes;
    return memory;
  }
  void release(void* memory) noexcept override {
    used -= sizes.at(memory);
    sizes.erase(memory);
    std::free(memory);
  }

  size_t limit = size_t{1} << 30;
  size_t used = 0;
  int allocations = 0;
  std::map<void*, size_t> sizes;
};

TEST(MemoryPool, SizesGrowInEighthsUpToPages) {
  EXPECT_EQ(MemoryPool::size_class(0), 256u);
  EXPECT_EQ(MemoryPool::size_class(256), 256u);
  EXPECT_EQ(MemoryPool::size_class(257), 512u);
  EXPECT_EQ(MemoryPool::size_class(4097), 4096u + 512);
  EXPECT_EQ(MemoryPool::size_class((size_t{1} << 20) + 1), (size_t{9} << 20) / 8);
  EXPECT_EQ(MemoryPool::size_class((size_t{1} << 30) + 1), (size_t{1} << 30) + (size_t{2} << 20));
  for (size_t bytes = 1; bytes < (size_t{1} << 32); bytes = bytes * 9 / 7 + 1) {
    EXPECT_GE(MemoryPool::size_class(bytes), bytes);
    EXPECT_LE(MemoryPool::size_class(bytes), bytes + std::max(bytes / 8 + 1, size_t{255}));
    EXPECT_EQ(MemoryPool::size_class(bytes) % 256, 0u);
  }
}

TEST(MemoryPool, WhatIsReleasedServesTheNext) {
  CountedMemory source;
  {
    MemoryPool pool(source);
    void* first = pool.allocate(100'000);
    const size_t size = pool.used_bytes();
    pool.release(first);
    EXPECT_EQ(pool.used_bytes(), 0u);
    EXPECT_EQ(pool.kept_bytes(), size);
    EXPECT_EQ(pool.allocate(99'000), first);
    EXPECT_EQ(pool.kept_bytes(), 0u);
    EXPECT_NE(pool.allocate(100'000), first);
    pool.release(first);
    EXPECT_NE(pool.allocate(50'000), first) << "far too large";
    EXPECT_NE(pool.allocate(110'000), first) << "too small";
    EXPECT_EQ(source.allocations, 4);
    pool.release(nullptr);
  }
  EXPECT_EQ(source.used, 0u);
}

TEST(MemoryPool, WhatIsKeptGoesBackWhenThereIsNoRoom) {
  CountedMemory source;
  source.limit = size_t{64} << 20;
  MemoryPool pool(source);
  void* large = pool.allocate(size_t{40} << 20);
  EXPECT_EQ(pool.allocate(size_t{48} << 20), nullptr);
  pool.release(large);
  EXPECT_NE(pool.allocate(size_t{48} << 20), nullptr);
  EXPECT_EQ(pool.kept_bytes(), 0u);
  EXPECT_EQ(source.used, pool.used_bytes());
}

TEST(MemoryPool, ThreadsShareIt) {
  CountedMemory source;
  MemoryPool pool(source);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&pool, t] {
      for (size_t i = 0; i < 500; ++i) {
        void* a = pool.allocate(1000 * (1 + (i + t) % 7));
        void* b = pool.allocate(1000 * (1 + i % 3));
        EXPECT_NE(a, b);
        pool.release(a);
        pool.release(b);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(pool.used_bytes(), 0u);
  EXPECT_EQ(pool.kept_bytes(), source.used);
}

}  // namespace
}  // namespace salient::cuda
