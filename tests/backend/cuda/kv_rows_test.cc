#include "backend/cuda/kv_rows.h"

#include "backend/cuda/attention_fixture.h"

namespace salient::test {
namespace {

constexpr KvType kTypes[] = {KvType::fp32, KvType::fp16, KvType::bf16, KvType::int8};
constexpr RopePairs kLayouts[] = {RopePairs::halves, RopePairs::neighbours};

class KvRowsTest : public testing::Test {
 protected:
  struct Tables {
    Tensor cosine;
    Tensor sine;
  };
  static Tables tables(int64_t rows, int64_t pairs) {
    Tables result{Tensor::empty(DType::f32, {rows, pairs}), Tensor::empty(DType::f32, {rows, pairs})};
    for (int64_t i = 0; i < rows * pairs; ++i) {
      const double angle = 0.7 * static_cast<double>(i) + 0.1;
      result.cosine.mutable_values<float>()[static_cast<size_t>(i)] = static_cast<float>(std::cos(angle));
      result.sine.mutable_values<float>()[static_cast<size_t>(i)] = static_cast<float>(std::sin(angle));
    }
    return result;
  }

  static void expect_same_rows(const TwoCaches& caches, const KvFormat& keys, const KvFormat& values,
                               int64_t positions) {
    for (int64_t position = 0; position < positions; ++position) {
      for (int64_t head = 0; head < keys.heads; ++head) {
        EXPECT_EQ(caches.device_row(keys, TwoCaches::keys_at(), head, position),
                  caches.host_row(keys, TwoCaches::keys_at(), head, position))
            << to_string(keys.type) << ", key " << position << ", head " << head;
        EXPECT_EQ(caches.device_row(values, caches.values_at(), head, position),
                  caches.host_row(values, caches.values_at(), head, position))
            << to_string(keys.type) << ", value " << position << ", head " << head;
      }
    }
  }

  static void expect_floats(const TwoCaches::Row& row, const Tensor& x, int64_t at) {
    for (size_t i = 0; i < row.elements.size() / sizeof(float); ++i) {
      float value;
      std::memcpy(&value, &row.elements[i * sizeof(float)], sizeof(float));
      EXPECT_NEAR(value, x.values<float>()[static_cast<size_t>(at) + i], 1e-6) << i;
    }
  }
  int launches() const {
    const auto found = device_.launches().find(cuda::kKvRows.name);
    return found == device_.launches().end() ? 0 : found->second;
  }

  std::unique_ptr<Backend> cpu_ = make_cpu_backend();
  SimulatedDevice device_;
};

TEST_F(KvRowsTest, PagesGetTheBytesOfTheCpu) {
  for (const KvType type : kTypes) {
    const KvFormat keys{type, 2, 80};
    const KvFormat values{type, 2, 136};
    TwoCaches caches(device_, keys, values, 260);
    int64_t first = 0;
    for (const int64_t count : {1, 126, 3, 128, 2}) {
      const auto seed = static_cast<uint32_t>(first);
      caches.fill(*cpu_, random_tensor({count, 160}, seed), random_tensor({count, 272}, seed + 1), first);
      first += count;
    }
    expect_same_rows(caches, keys, values, first);
  }
  EXPECT_TRUE(device_.guards_held());
}

TEST_F(KvRowsTest, WhatPagesCannotHold) {
  const std::vector<float> extremes{1e6f,  -1e6f, 65504, 65519,  65520, 1e-8f,
                                    6e-8f, -0.0f, 1e38f, 1e-42f, 0.5f,  1.5f};
  for (const KvType type : kTypes) {
    const KvFormat format{type, 1, 8};
    TwoCaches caches(device_, format, format, 64);
    Tensor keys = Tensor::zeros(DType::f32, {40, 8});
    for (size_t row = 0; row < 39; ++row) {
      for (size_t d = 0; d <= row % 8; ++d)
        keys.mutable_values<float>()[row * 8 + d] = extremes[(row + d * d) % extremes.size()];
    }
    Tensor values = random_tensor({40, 8}, 3);
    values.mutable_values<float>()[8] = NAN;
    if (type != KvType::fp16) values.mutable_values<float>()[17] = INFINITY;
    // Of a row so small that its scale is no normal number int8 keeps nothing.
    for (size_t d = 0; d < 8; ++d) values.mutable_values<float>()[24 + d] *= 1e-33f;
    caches.fill(*cpu_, keys, values, 5);
    for (int64_t position = 5; position < 45; ++position) {
      EXPECT_EQ(caches.device_row(format, TwoCaches::keys_at(), 0, position),
                caches.host_row(format, TwoCaches::keys_at(), 0, position))
          << to_string(type) << ", " << position;
      if (position == 6 && type != KvType::int8) continue;  // a NaN has many bits
      EXPECT_EQ(caches.device_row(format, caches.values_at(), 0, position),
                caches.host_row(format, caches.values_at(), 0, position))
          << to_string(type) << ", " << position;
    }
  }
}

TEST_F(KvRowsTest, RotationsOfEveryLayout) {
  for (const RopePairs layout : kLayouts) {
    for (const auto& [dim, first, pairs] : {std::tuple{64, 0, 32}, {80, 16, 20}, {96, 0, 24}, {8, 2, 1}}) {
      Tensor expected = random_tensor({5, 3 * dim}, 11);
      const DeviceCopy x(device_, expected.values<float>());
      const Tables angles = tables(5, pairs);
      const DeviceCopy cosine(device_, angles.cosine.values<float>());
      const DeviceCopy sine(device_, angles.sine.values<float>());
      cuda::rope(device_,
                 {.cosine = cosine.as<float>(),
                  .sine = sine.as<float>(),
                  .pairs = pairs,
                  .first = first,
                  .layout = layout},
                 {.x = x.as<float>(), .heads = 3, .head_dim = dim}, 5);
      cpu_->rope({.cosine = angles.cosine,
                  .sine = angles.sine,
                  .head_dim = dim,
                  .pairs = layout,
                  .first = first,
                  .x = expected});
      EXPECT_LT(distance(to_host(device_, x.as<void>(), expected.shape()), expected), 1e-6) << dim;
    }
  }
}

TEST_F(KvRowsTest, RotatesAndStoresInOneLaunch) {
  constexpr int64_t kCount = 5;
  for (const RopePairs layout : kLayouts) {
    const KvFormat keys{KvType::fp32, 2, 32};
    const KvFormat values{KvType::fp32, 2, 48};
    TwoCaches caches(device_, keys, values, 130);
    Tensor query = random_tensor({kCount, 4 * 32}, 1);
    Tensor key = random_tensor({kCount, 2 * 32}, 2);
    const Tensor value = random_tensor({kCount, 2 * 48}, 3);
    const Tables angles = tables(kCount, 12);
    const DeviceCopy cosine(device_, angles.cosine.values<float>());
    const DeviceCopy sine(device_, angles.sine.values<float>());
    const DeviceCopy queries(device_, query.values<float>());
    const DeviceCopy new_keys(device_, key.values<float>());
    const DeviceCopy new_values(device_, value.values<float>());
    const int launched = launches();
    cuda::rope_and_store(
        device_,
        {.cosine = cosine.as<float>(), .sine = sine.as<float>(), .pairs = 12, .first = 8, .layout = layout},
        {.x = queries.as<float>(), .heads = 4, .head_dim = 32},
        {.count = kCount,
         .keys = new_keys.as<float>(),
         .values = new_values.as<float>(),
         .to_keys = caches.device_keys(),
         .to_values = caches.device_values(),
         .first = 125});
    EXPECT_EQ(launches(), launched + 1);
    for (Tensor* x : {&query, &key})
      cpu_->rope({.cosine = angles.cosine,
                  .sine = angles.sine,
                  .head_dim = 32,
                  .pairs = layout,
                  .first = 8,
                  .x = *x});
    EXPECT_LT(distance(to_host(device_, queries.as<void>(), query.shape()), query), 1e-6);
    EXPECT_LT(distance(to_host(device_, new_keys.as<void>(), key.shape()), key), 1e-6);
    for (int64_t row = 0; row < kCount; ++row) {
      for (int64_t head = 0; head < 2; ++head) {
        expect_floats(caches.device_row(keys, TwoCaches::keys_at(), head, 125 + row), key,
                      row * 64 + head * 32);
        expect_floats(caches.device_row(values, caches.values_at(), head, 125 + row), value,
                      row * 96 + head * 48);
      }
    }
  }
}

}  // namespace
}  // namespace salient::test
