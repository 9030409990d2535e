// Models on a device that cannot hold all at once that they work with: slower, and the same results.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <optional>

#include "awq/awq.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/paged_attention.h"
#include "backend/cuda/simulator.h"
#include "backend/cuda/tiny_layer.h"
#include "runtime/decoder.h"
#include "support/error_matcher.h"
#include "support/golden_model.h"

namespace salient {
namespace {

using ::testing::HasSubstr;

bool same(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && std::memcmp(a.bytes(), b.bytes(), a.byte_size()) == 0;
}

struct OnSimulator {
  OnSimulator() {
    auto owned = std::make_unique<test::SimulatedDevice>();
    device = owned.get();
    backend = cuda::make_cuda_backend(std::move(owned), {});
  }
  test::SimulatedDevice* device = nullptr;
  std::unique_ptr<Backend> backend;
};

/// One model on two devices, of which one will be small.
class SmallDeviceDecoder : public testing::Test {
 protected:
  SmallDeviceDecoder() : golden_("llama_gqa") {
    golden_.widen_context(400);
    small_.emplace(load(on_small_));
    large_.emplace(load(on_large_));
    for (int32_t i = 0; i < 400; ++i)
      tokens_.push_back(i * 37 % static_cast<int32_t>(small_->spec().vocab_size));
  }
  Decoder load(const OnSimulator& on) const {
    return Decoder::load(golden_.directory().string(), *on.backend, {.kv_type = KvType::fp32});
  }
  std::span<const int32_t> tokens(size_t begin, size_t count) const {
    return std::span(tokens_).subspan(begin, count);
  }
  /// Takes away what is not in use, and `bytes` more.
  void shrink(size_t bytes) const {
    on_small_.device->set_total_bytes(on_small_.device->used_bytes() - bytes);
  }

  GoldenModel golden_;
  OnSimulator on_small_;
  OnSimulator on_large_;
  std::optional<Decoder> small_;
  std::optional<Decoder> large_;
  std::vector<int32_t> tokens_;
};

TEST_F(SmallDeviceDecoder, CachesOfManySequencesTakeTurns) {
  std::vector<KvCache> caches;
  std::vector<KvCache> expected;
  for (size_t i = 0; i < 3; ++i) {
    small_->forward(tokens(10 * i, 130 + 60 * i), caches.emplace_back(small_->make_cache()), {});
    large_->forward(tokens(10 * i, 130 + 60 * i), expected.emplace_back(large_->make_cache()), {});
  }
  shrink(3 * caches[0].block_bytes());
  for (int32_t i = 0; i < 12; ++i) {
    const std::vector<int32_t> next{i, i + 1, i + 2};
    ASSERT_TRUE(same(small_->step(next, caches, nullptr), large_->step(next, expected, nullptr))) << i;
  }
  EXPECT_GT(on_small_.device->graph_runs(), 0);
}

TEST_F(SmallDeviceDecoder, ASequenceLargerThanTheDeviceIsAttendedToOnTheHost) {
  KvCache cache = small_->make_cache();
  KvCache expected = large_->make_cache();
  small_->forward(tokens(0, 300), cache, {});
  large_->forward(tokens(0, 300), expected, {});
  shrink(cache.block_bytes());
  for (size_t i = 300; i < 304; ++i) {
    const Tensor logits = small_->forward(tokens(i, 1), cache, {});
    const Tensor wanted = large_->forward(tokens(i, 1), expected, {});
    EXPECT_LT(relative_error(logits.values<float>(), wanted.values<float>()), 1e-2) << i;
  }
}

TEST_F(SmallDeviceDecoder, APassThatHasNoRoomLeavesTheCacheAsItWas) {
  KvCache cache = small_->make_cache();
  KvCache expected = large_->make_cache();
  small_->forward(tokens(0, 20), cache, {});
  large_->forward(tokens(0, 20), expected, {});
  shrink(0);
  EXPECT_THAT([&] { small_->forward(tokens(20, 360), cache, {}); },
              throws_error(ErrorKind::out_of_memory, HasSubstr("take fewer tokens at a time")));
  EXPECT_EQ(cache.length(), 20);
  for (size_t i = 20; i < 24; ++i)
    EXPECT_TRUE(same(small_->forward(tokens(i, 1), cache, {}), large_->forward(tokens(i, 1), expected, {})));
}

TEST(LargeSequences, AreTriedOnceInAWhile) {
  cuda::LargeSequences large;
  EXPECT_TRUE(large.may_fit(1000));
  large.add(7);
  large.add(5);
  large.add(9);
  EXPECT_TRUE(large.may_fit(4));
  int tried = 0;
  EXPECT_TRUE(large.may_fit(5)) << "soon at first";
  EXPECT_FALSE(large.may_fit(5));
  EXPECT_TRUE(large.may_fit(5));
  for (int i = 0; i < 4096 * 4; ++i) tried += large.may_fit(5) ? 1 : 0;
  EXPECT_EQ(tried, 10 + 3) << "4, 8 ... 2048, then every 4096";
  large.remove(4);
  EXPECT_FALSE(large.may_fit(5));
  large.remove(6);
  EXPECT_TRUE(large.may_fit(9));
  large.add(5);
  EXPECT_TRUE(large.may_fit(5)) << "soon again";
}

/// A layer is quantized with hidden states in several batches.
class SmallDeviceQuantizer : public testing::Test {
 protected:
  QuantizedLayer quantize(const OnSimulator& on) {
    LayerStream stream(
        {.backend = *on.backend, .weights = *layer_.weights, .windows = windows_, .rows_per_batch = 24});
    AwqModifier settings;
    settings.n_grid = 2;
    return quantize_layer(layer_.job(*on.backend, *cpu_), settings, layer_.weights->layer(0), stream);
  }

  test::TinyLayer layer_;
  std::unique_ptr<Backend> cpu_ = make_cpu_backend();
  std::vector<std::vector<int32_t>> windows_ = random_windows(6, 12, 96);
};

TEST_F(SmallDeviceQuantizer, GivesTheSameBytes) {
  const OnSimulator large;
  const OnSimulator small;
  const QuantizedLayer expected = quantize(large);
  small.device->set_total_bytes(large.device->most_used_bytes() / 2);
  const QuantizedLayer found = quantize(small);
  EXPECT_GT(small.device->waits(), large.device->waits());
  for (const auto& [id, linear] : found.weights.linears) {
    const QuantizedWeight& mine = *linear.quantized;
    const QuantizedWeight& other = *expected.weights[id].quantized;
    EXPECT_TRUE(same(mine.codes, other.codes));
    EXPECT_TRUE(same(mine.scales, other.scales));
    EXPECT_TRUE(same(mine.zeros, other.zeros));
  }
}

}  // namespace
}  // namespace salient
