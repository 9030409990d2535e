#include "runtime/kv_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/counting_device.h"
#include "support/random.h"

namespace salient::test {
namespace {

using Counts = CountingDevice::Counts;

class KvCacheTest : public ::testing::Test {
 protected:
  static DecoderSpec spec() {
    DecoderSpec result;
    result.layers = 2;
    result.kv_heads = 2;
    result.head_dim = 4;
    result.value_dim = 8;
    return result;
  }
  /// Appends positions to both layers.
  void append(KvCache& cache, const Tensor& keys, const Tensor& values) const {
    const int64_t count = keys.dim(0);
    cache.reserve(cache.length(), count);
    for (int64_t layer = 0; layer < 2; ++layer) {
      const RowsForCache rows{.count = count, .first = cache.length(), .pages = cache.view(layer)};
      cpu->rope_and_store({.keys = keys, .values = values, .caches = {&rows, 1}});
    }
    cache.advance(keys.dim(0));
  }
  /// What a kernel does that has written all blocks: the bytes are the device's alone.
  void move_to_device(const KvCache& cache) const {
    for (const KvBlock& block : cache.view(0).keys.blocks) block->device_update(device);
    counting->counts();
  }
  static std::vector<float> all(const Tensor& tensor) {
    const auto values = tensor.values<float>();
    return {values.begin(), values.end()};
  }

  const std::unique_ptr<Backend> cpu = make_cpu_backend();
  const std::shared_ptr<CountingDevice> counting = std::make_shared<CountingDevice>();
  const std::shared_ptr<DeviceMemory> device = counting;
};

TEST_F(KvCacheTest, ForksOfWhatIsOnADeviceAreCopiedThere) {
  KvCache cache(spec(), KvType::fp32);
  append(cache, random_tensor({200, 8}, 1), random_tensor({200, 16}, 2));
  const auto before = all(cache.keys(1).elements);
  move_to_device(cache);
  KvCache fork = cache;
  EXPECT_EQ(fork.view(0).keys.blocks[0], cache.view(0).keys.blocks[0]);
  EXPECT_EQ(counting->counts(), Counts{});
  append(fork, random_tensor({3, 8}, 3), random_tensor({3, 16}, 4));
  EXPECT_EQ(fork.view(0).keys.blocks[0], cache.view(0).keys.blocks[0]) << "a full one is shared";
  EXPECT_NE(fork.view(0).keys.blocks[1], cache.view(0).keys.blocks[1]);
  EXPECT_EQ(counting->counts(), (Counts{.downloads = 1, .copies = 1})) << "the CPU writes into the copy";
  EXPECT_EQ(all(cache.keys(1).elements), before);
  EXPECT_EQ(counting->counts(), (Counts{.downloads = 2})) << "each block once for all layers";
  EXPECT_EQ(all(cache.keys(0).elements), before) << "the same keys in both layers";
  fork.truncate(200);
  EXPECT_EQ(all(fork.keys(1).elements), before);
  EXPECT_EQ(counting->counts(), Counts{});
}

TEST_F(KvCacheTest, PrefixesStayWhereTheyAre) {
  KvCache cache(spec(), KvType::int8);
  append(cache, random_tensor({130, 8}, 5), random_tensor({130, 16}, 6));
  move_to_device(cache);
  KvCache next(spec(), KvType::int8);
  next.begin_with(cache.full_blocks());
  EXPECT_EQ(next.length(), 128);
  append(next, random_tensor({2, 8}, 7), random_tensor({2, 16}, 8));
  EXPECT_EQ(counting->counts(), Counts{}) << "new positions have a block of their own";
  KvTensors found = next.values(1);
  KvTensors expected = cache.values(1);
  for (int64_t head = 0; head < 2; ++head) {
    for (int64_t i = 0; i < 128; ++i) {
      const auto at = static_cast<size_t>(head * 130 + i);
      EXPECT_EQ(found.scales.values<float>()[at], expected.scales.values<float>()[at]);
      EXPECT_EQ(found.elements.values<int8_t>()[at * 8], expected.elements.values<int8_t>()[at * 8]);
    }
  }
}

TEST_F(KvCacheTest, WhatIsRestoredReachesTheDevice) {
  KvCache cache(spec(), KvType::fp32);
  append(cache, random_tensor({140, 8}, 9), random_tensor({140, 16}, 10));
  KvCache other(spec(), KvType::fp32);
  append(other, random_tensor({140, 8}, 11), random_tensor({140, 16}, 12));
  move_to_device(other);
  for (int64_t layer = 0; layer < 2; ++layer) other.restore(layer, cache.keys(layer), cache.values(layer));
  EXPECT_EQ(counting->counts(), (Counts{.downloads = 2}));
  move_to_device(other);
  EXPECT_EQ(all(other.values(1).elements), all(cache.values(1).elements));
  EXPECT_EQ(all(other.keys(0).elements), all(cache.keys(0).elements));
}

}  // namespace
}  // namespace salient::test
