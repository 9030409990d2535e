#include "backend/cuda/attention.h"

#include <climits>

#include "backend/cuda/attention_fixture.h"
#include "base/error.h"

namespace salient::test {
namespace {

struct Case {
  int64_t count = 1;
  int64_t first_position = 0;
  int64_t heads = 1;
  int64_t kv_heads = 1;
  int64_t head_dim = 64;
  int64_t window = 0;
  int64_t value_dim = 0;  ///< 0: head_dim
  float softcap = 0;
  std::vector<float> slopes = {};

  int64_t values() const { return value_dim == 0 ? head_dim : value_dim; }
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.count << " from " << c.first_position << ", heads " << c.heads << " / " << c.kv_heads
             << " of " << c.head_dim << ", window " << c.window;
}

enum class Source { fp32, fp16, bf16, int8, tensors };
constexpr Source kSources[] = {Source::fp32, Source::fp16, Source::bf16, Source::int8, Source::tensors};

class DeviceAttentionTest : public testing::Test {
 protected:
  struct Inputs {
    Tensor query;
    Tensor keys;
    Tensor values;
  };

  Inputs inputs_for(const Case& c) {
    const int64_t filled = c.first_position + c.count;
    return {.query = random_tensor({c.count, c.heads * c.head_dim}, ++seed_),
            .keys = random_tensor({filled, c.kv_heads * c.head_dim}, ++seed_),
            .values = random_tensor({filled, c.kv_heads * c.values()}, ++seed_)};
  }

  struct Outputs {
    Tensor expected;
    Tensor found;
    cuda::AttentionPlan plan;
  };

  Outputs run(const Case& c, const Inputs& in, Source source) {
    const KvType type = source == Source::fp16   ? KvType::fp16
                        : source == Source::bf16 ? KvType::bf16
                        : source == Source::int8 ? KvType::int8
                                                 : KvType::fp32;
    const KvFormat keys{type, c.kv_heads, c.head_dim};
    const KvFormat values{type, c.kv_heads, c.values()};
    TwoCaches caches(device_, keys, values, c.first_position + c.count);
    caches.fill(*cpu_, in.keys, in.values, 0);
    Outputs result;
    const KvView view = caches.host();
    result.expected = on_cpu(c, in, source == Source::tensors ? nullptr : &view);
    const DeviceCopy key_rows(device_, in.keys.values<float>());
    const DeviceCopy value_rows(device_, in.values.values<float>());
    cuda::DeviceRows device_keys = caches.device_keys();
    cuda::DeviceRows device_values = caches.device_values();
    if (source == Source::tensors) {
      device_keys = {.format = keys, .rows = key_rows.as<float>()};
      device_values = {.format = values, .rows = value_rows.as<float>()};
    }
    on_device(c, in, device_keys, device_values, result);
    return result;
  }

  Tensor on_cpu(const Case& c, const Inputs& in, const KvView* cache) {
    Tensor output = Tensor::empty(DType::f32, {c.count, c.heads * c.values()});
    cpu_->attention({.query = in.query,
                     .cache = cache,
                     .keys = in.keys,
                     .values = in.values,
                     .output = output,
                     .heads = c.heads,
                     .kv_heads = c.kv_heads,
                     .head_dim = c.head_dim,
                     .value_dim = c.values(),
                     .first_position = c.first_position,
                     .window = c.window,
                     .scale = scale(c),
                     .softcap = c.softcap,
                     .slopes = c.slopes});
    return output;
  }

  void on_device(const Case& c, const Inputs& in, const cuda::DeviceRows& keys,
                 const cuda::DeviceRows& values, Outputs& result) {
    const DeviceCopy query(device_, in.query.values<float>());
    const DeviceCopy output(device_, result.expected.byte_size());
    const DeviceCopy slopes(device_, std::span<const float>(c.slopes));
    const cuda::DeviceAttention problem{.query = query.as<float>(),
                                        .keys = keys,
                                        .values = values,
                                        .output = output.as<float>(),
                                        .count = c.count,
                                        .heads = c.heads,
                                        .first_position = c.first_position,
                                        .window = c.window,
                                        .scale = scale(c),
                                        .softcap = c.softcap,
                                        .slopes = c.slopes.empty() ? nullptr : slopes.as<float>()};
    cuda::DeviceProperties properties = device_.properties();
    properties.multiprocessors = multiprocessors_;
    result.plan = cuda::plan_attention(problem, properties);
    const DeviceCopy workspace(device_, cuda::attention_workspace_bytes(problem, result.plan));
    cuda::attend(device_, problem, result.plan, workspace.as<void>());
    result.found = to_host(device_, output.as<void>(), result.expected.shape());
  }

  static float scale(const Case& c) { return 1.0f / std::sqrt(static_cast<float>(c.head_dim)); }

  /// Products in f32: sums of some hundred terms of order 1. Products of halves: each operand is off by 2^-11
  /// of its size, so a score by some 2^-10 times its terms' root mean square, and weights and values by
  /// 2^-11; of bf16 by eight times as much.
  static double bound(const cuda::AttentionPlan& plan) {
    const std::string_view name = plan.kernel->name;
    return name.starts_with("split_attention") ? 1e-5 : name.ends_with("_bf16") ? 24e-3 : 3e-3;
  }

  void expect_close(const Case& c, Source source) {
    const Inputs in = inputs_for(c);
    const Outputs out = run(c, in, source);
    EXPECT_LT(distance(out.found, out.expected), bound(out.plan))
        << c << ", " << out.plan.kernel->name << ", source " << static_cast<int>(source) << ", splits "
        << out.plan.splits.splits;
    EXPECT_TRUE(device_.guards_held());
  }

  std::unique_ptr<Backend> cpu_ = make_cpu_backend();
  SimulatedDevice device_;
  int multiprocessors_ = 4;
  uint32_t seed_ = 0;
};

TEST_F(DeviceAttentionTest, OneQueryAroundTheEdgesOfPages) {
  for (const int64_t position : {0, 1, 63, 64, 126, 127, 128, 129, 300}) {
    for (const Source source : kSources)
      expect_close({.first_position = position, .heads = 2, .kv_heads = 2, .head_dim = 16}, source);
  }
}

TEST_F(DeviceAttentionTest, OneQueryWithHeadsOfEverySize) {
  for (const int64_t dim : {8, 64, 72, 80, 96, 128, 256}) {
    for (const Source source : kSources) expect_close({.first_position = 200, .head_dim = dim}, source);
  }
}

TEST_F(DeviceAttentionTest, HeadsThatShareTheirKeys) {
  for (const int64_t group : {2, 3, 4, 7, 16, 20}) {
    for (const Source source : kSources)
      expect_close({.first_position = 140, .heads = 2 * group, .kv_heads = 2, .head_dim = 32}, source);
  }
}

TEST_F(DeviceAttentionTest, AFewQueries) {
  for (const int64_t count : {2, 5, 8}) {
    for (const Source source : kSources) {
      expect_close({.count = count, .first_position = 125, .heads = 4, .kv_heads = 2, .head_dim = 80},
                   source);
      expect_close({.count = count, .first_position = 61, .heads = 7, .kv_heads = 1, .window = 70}, source);
    }
  }
}

TEST_F(DeviceAttentionTest, ManyQueries) {
  const std::vector<Case> cases{
      {.count = 9, .head_dim = 64},
      {.count = 64, .heads = 2, .kv_heads = 2, .head_dim = 64},
      {.count = 65, .heads = 2, .kv_heads = 2, .head_dim = 128},
      {.count = 130, .first_position = 31, .heads = 4, .kv_heads = 2, .head_dim = 80},
      {.count = 40, .first_position = 100, .heads = 7, .kv_heads = 1, .head_dim = 96},
      {.count = 33, .first_position = 127, .heads = 2, .kv_heads = 1, .head_dim = 256},
      {.count = 20, .first_position = 64, .heads = 2, .kv_heads = 1, .head_dim = 192, .value_dim = 128},
      {.count = 20, .first_position = 64, .heads = 2, .kv_heads = 1, .head_dim = 40, .value_dim = 72},
  };
  for (const Case& c : cases) {
    for (const Source source : kSources) expect_close(c, source);
  }
}

/// With one multiprocessor they are enough for blocks of 128 rows.
TEST_F(DeviceAttentionTest, VeryManyQueries) {
  multiprocessors_ = 1;
  const std::vector<Case> cases{
      {.count = 129, .head_dim = 64},
      {.count = 150, .first_position = 31, .heads = 2, .kv_heads = 2, .head_dim = 128},
      {.count = 50, .first_position = 100, .heads = 7, .kv_heads = 1, .head_dim = 80, .window = 40},
      {.count = 70,
       .first_position = 60,
       .heads = 4,
       .kv_heads = 1,
       .head_dim = 24,
       .value_dim = 72,
       .softcap = 2},
  };
  for (const Case& c : cases) {
    for (const Source source : kSources) expect_close(c, source);
  }
  EXPECT_GT(device_.launches().at("tile_attention_64_wide"), 0);
  EXPECT_GT(device_.launches().at("tile_attention_128_wide"), 0);
  EXPECT_GT(device_.launches().at("tile_attention_64_wide_bf16"), 0);
  EXPECT_GT(device_.launches().at("tile_attention_128_wide_bf16"), 0);
  EXPECT_EQ(device_.counts().shared_conflicts, 0u);
}

TEST_F(DeviceAttentionTest, Windows) {
  for (const int64_t window : {1, 2, 63, 64, 65, 128, 129, 1000}) {
    for (const int64_t count : {1, 3, 70}) {
      for (const int64_t heads : {1, 4}) {
        for (const Source source : {Source::fp16, Source::int8})
          expect_close(
              {.count = count, .first_position = 190, .heads = heads, .head_dim = 16, .window = window},
              source);
      }
    }
  }
}

TEST_F(DeviceAttentionTest, CapsAndSlopes) {
  for (const int64_t count : {1, 4, 40}) {
    for (const Source source : {Source::fp32, Source::fp16}) {
      expect_close({.count = count, .first_position = 90, .heads = 4, .softcap = 2}, source);
      expect_close({.count = count,
                    .first_position = 90,
                    .heads = 4,
                    .kv_heads = 2,
                    .slopes = {0.5f, 0.25f, 0.125f, 0.0625f}},
                   source);
      expect_close({.count = count,
                    .first_position = 90,
                    .heads = 4,
                    .window = 50,
                    .softcap = 3,
                    .slopes = {0.5f, 0.25f, 0.125f, 0.0625f}},
                   source);
    }
  }
}

TEST_F(DeviceAttentionTest, AnyNumberOfSplits) {
  const std::vector<Case> cases{
      {.first_position = 700, .heads = 2, .kv_heads = 2},
      {.first_position = 700, .heads = 8, .kv_heads = 2, .head_dim = 128},
      {.count = 12, .first_position = 900, .heads = 2, .kv_heads = 2, .window = 600}};
  for (const Case& c : cases) {
    const Inputs in = inputs_for(c);
    int most = 0;
    for (const int multiprocessors : {1, 2, 5, 100}) {
      multiprocessors_ = multiprocessors;
      const Outputs first = run(c, in, Source::fp16);
      device_.set_seed(77);
      const Outputs second = run(c, in, Source::fp16);
      EXPECT_LT(distance(first.found, first.expected), bound(first.plan))
          << c << ", " << first.plan.splits.splits;
      EXPECT_EQ(std::memcmp(first.found.bytes(), second.found.bytes(), first.found.byte_size()), 0) << c;
      most = std::max(most, first.plan.splits.splits);
    }
    EXPECT_GE(most, 2) << c;
  }
}

/// A warp has the totals of 32 splits at once.
TEST_F(DeviceAttentionTest, MoreSplitsThanLanes) {
  multiprocessors_ = 100;
  const Case c{.first_position = 2500, .head_dim = 8, .value_dim = 136};
  const Inputs in = inputs_for(c);
  const Outputs out = run(c, in, Source::fp16);
  EXPECT_EQ(out.plan.splits.splits, 40);
  EXPECT_LT(distance(out.found, out.expected), bound(out.plan));
}

TEST_F(DeviceAttentionTest, AnyOrderOfThreads) {
  const std::vector<Case> cases{
      {.first_position = 300, .heads = 3},
      {.first_position = 300, .heads = 8, .kv_heads = 2, .head_dim = 128},
      {.count = 2, .first_position = 200, .heads = 7, .head_dim = 256},
      {.count = 70, .first_position = 60, .heads = 2, .kv_heads = 2, .head_dim = 96},
      {.count = 20, .first_position = 200, .heads = 1, .head_dim = 256}};
  for (const Case& c : cases) {
    for (uint32_t seed = 1; seed < 5; ++seed) {
      device_.set_seed(seed);
      for (const Source source : {Source::fp16, Source::bf16, Source::int8}) expect_close(c, source);
    }
  }
}

TEST_F(DeviceAttentionTest, TilesAreFreeOfBankConflicts) {
  for (const int64_t dim : {64, 80, 128, 256}) {
    for (const int64_t count : {1, 40})
      expect_close({.count = count, .first_position = 100, .heads = 4, .head_dim = dim}, Source::fp16);
  }
  EXPECT_GT(device_.counts().products, 0u);
  EXPECT_EQ(device_.counts().shared_conflicts, 0u);
}

/// One key far above the others, in whatever tile or split it stands: the output is its value.
TEST_F(DeviceAttentionTest, ScoresFarApart) {
  for (const int64_t count : {1, 30}) {
    const Case c{.count = count, .first_position = 399, .heads = 4, .head_dim = 16};
    for (const int64_t peak : {0, 200, 399}) {
      Inputs in = inputs_for(c);
      auto queries = in.query.mutable_values<float>();
      for (size_t i = 16; i < queries.size(); ++i) queries[i] = queries[i % 16];
      for (size_t d = 0; d < 16; ++d)
        in.keys.mutable_values<float>()[static_cast<size_t>(peak) * 16 + d] = queries[d] * 500;
      for (const Source source : {Source::fp32, Source::fp16}) {
        const Outputs out = run(c, in, source);
        EXPECT_LT(distance(out.found, out.expected), bound(out.plan)) << c << ", " << peak;
      }
    }
  }
}

/// Values above what f16 holds come out as bf16 keeps them, whichever kernel mixes them; so do scores of keys
/// above it.
TEST_F(DeviceAttentionTest, Bf16LosesNoRange) {
  multiprocessors_ = 1;
  for (const auto& [count, heads] : {std::pair{1, 1}, {1, 4}, {30, 4}, {140, 2}}) {
    const Case c{.count = count, .first_position = 90, .heads = heads, .head_dim = 16};
    Inputs in = inputs_for(c);
    for (float& value : in.values.mutable_values<float>()) value *= 1e6f;
    const auto first_key = in.keys.mutable_values<float>().first(16);
    for (float& feature : in.query.mutable_values<float>()) feature = std::abs(feature);
    std::ranges::fill(first_key, -3e7f);  // far below all others
    const Outputs out = run(c, in, Source::bf16);
    EXPECT_LT(distance(out.found, out.expected), 1e6 * bound(out.plan)) << c << ", " << out.plan.kernel->name;
    std::ranges::fill(first_key, 3e7f);  // far above
    const Outputs other = run(c, in, Source::bf16);
    EXPECT_LT(distance(other.found, other.expected), 1e6 * bound(other.plan)) << c;
    for (size_t d = 0; d < 16; ++d) {
      const float value = in.values.values<float>()[d];
      EXPECT_NEAR(other.found.values<float>()[d], value, std::abs(value) / 256) << c;
    }
  }
}

TEST_F(DeviceAttentionTest, ABrokenKeySpoilsTheQueriesThatSeeIt) {
  for (const int64_t heads : {1, 4}) {
    const Case c{.count = 1, .first_position = 150, .heads = heads, .head_dim = 16};
    Inputs in = inputs_for(c);
    in.keys.mutable_values<float>()[140 * 16 + 3] = NAN;
    for (const Source source : kSources)
      EXPECT_TRUE(std::isnan(run(c, in, source).found.values<float>()[0])) << static_cast<int>(source);
  }
}

TEST_F(DeviceAttentionTest, QueriesSkipTilesBehindTheirWindow) {
  const Case c{.count = 64, .first_position = 448, .head_dim = 64, .window = 64};
  multiprocessors_ = 1;
  run(c, inputs_for(c), Source::fp16);
  // Two tiles of 64 keys: 4 warps, 8 blocks of keys, 4 steps, for scores and for what they mix.
  EXPECT_EQ(device_.counts().products, 2u * 4 * 8 * 4 * 2);
}

/// NVIDIA's figures.
const cuda::DeviceProperties kH100{.multiprocessors = 132, .multiprocessor_shared_bytes = size_t{228} << 10};
const cuda::DeviceProperties kRtx4090{.multiprocessors = 128,
                                      .multiprocessor_shared_bytes = size_t{100} << 10};

/// However many of a batch's sequences are run at a time, and whatever splits they have.
TEST_F(DeviceAttentionTest, BatchesInSeveralLaunches) {
  const Case c{.heads = 4, .kv_heads = 2, .head_dim = 32};
  const KvFormat format{KvType::fp16, c.kv_heads, c.head_dim};
  const std::vector<int> positions{300, 0, 64, 511, 130};
  const Tensor query = random_tensor({std::ssize(positions), c.heads * c.head_dim}, 1);
  Tensor expected = Tensor::empty(DType::f32, query.shape());
  std::vector<std::unique_ptr<TwoCaches>> caches;
  std::vector<cuda::BatchRow> rows;
  for (size_t i = 0; i < positions.size(); ++i) {
    Case own = c;
    own.first_position = positions[i];
    const Inputs in = inputs_for(own);
    caches.push_back(std::make_unique<TwoCaches>(device_, format, format, positions[i] + 1));
    caches.back()->fill(*cpu_, in.keys, in.values, 0);
    const auto row = static_cast<int64_t>(i);
    const KvView cache = caches.back()->host();
    copy_rows(on_cpu(own, {query.slice(row, row + 1), in.keys, in.values}, &cache), expected, row);
    rows.push_back({caches.back()->device_keys().blocks, positions[i], static_cast<int>(i)});
  }
  const DeviceCopy queries(device_, query.values<float>());
  const DeviceCopy output(device_, expected.byte_size());
  const DeviceCopy batch(device_, std::span<const cuda::BatchRow>(rows));
  cuda::DeviceAttention problem{.query = queries.as<float>(),
                                .keys = caches[0]->device_keys(),
                                .values = caches[0]->device_values(),
                                .output = output.as<float>(),
                                .count = 1,
                                .heads = c.heads,
                                .first_position = 0,
                                .scale = scale(c),
                                .positions = positions,
                                .batch = batch.as<cuda::BatchRow>()};
  for (const int multiprocessors : {1, 2, 7}) {
    cuda::DeviceProperties properties = device_.properties();
    properties.multiprocessors = multiprocessors;
    for (const bool as_alone : {true, false}) {
      problem.as_alone = as_alone;
      cuda::AttentionPlan plan = cuda::plan_attention(problem, properties);
      for (const int64_t at_once : {1, 2, 5}) {
        plan.at_once = at_once;
        const DeviceCopy workspace(device_, cuda::attention_workspace_bytes(problem, plan));
        cuda::attend(device_, problem, plan, workspace.as<void>());
        EXPECT_LT(distance(to_host(device_, output.as<void>(), query.shape()), expected), 1e-5) << at_once;
        device_.fill_zero(output.as<void>(), expected.byte_size());
      }
    }
  }
  EXPECT_TRUE(device_.guards_held());
}

TEST(AttentionPlanTest, BatchesKeepTheirSplitsOrShareTheDevice) {
  const KvFormat format{KvType::fp16, 8, 128};
  std::vector<int> positions(32, 2000);
  positions[7] = 100;
  positions[9] = 30000;
  cuda::DeviceAttention problem{.keys = {.format = format},
                                .values = {.format = format},
                                .count = 1,
                                .heads = 32,
                                .first_position = 30000,
                                .scale = 1};
  const cuda::DeviceProperties device = kH100;
  EXPECT_TRUE(cuda::takes_batches(problem, device));
  const cuda::AttentionPlan alone = cuda::plan_attention(problem, device);
  problem.positions = positions;
  const cuda::AttentionPlan as_alone = cuda::plan_attention(problem, device);
  EXPECT_EQ(as_alone.splits.splits, alone.splits.splits);
  EXPECT_EQ(as_alone.splits.split_keys, alone.splits.split_keys);
  EXPECT_EQ(as_alone.kernel, alone.kernel);
  problem.as_alone = false;
  const cuda::AttentionPlan shared = cuda::plan_attention(problem, device);
  EXPECT_LE(shared.splits.splits, alone.splits.splits);
  int64_t splits = 0;
  for (const int position : positions)
    splits += cuda::splits_of_keys(shared.rule, INT_MAX, position, position + 1).splits;
  EXPECT_GT(splits * 8, 132 * 3) << "blocks, for those that are at work at once";
  EXPECT_LE(splits * 8, 132 * 3 * 5);
  // A launch has room for so many.
  positions.assign(100000, 30000);
  problem.positions = positions;
  problem.as_alone = true;
  const cuda::AttentionPlan many = cuda::plan_attention(problem, device);
  EXPECT_LE(many.at_once * many.splits.splits, 65535);
  EXPECT_LE(cuda::attention_workspace_bytes(problem, many), size_t{64} << 20);
  EXPECT_EQ(many.grid.z, many.at_once * many.splits.splits);
}

TEST(AttentionPlanTest, SaysWhatItCannotRun) {
  const auto problem = [](int64_t heads, int64_t dim) {
    const KvFormat format{KvType::fp16, 2, dim};
    return cuda::DeviceAttention{.keys = {.format = format},
                                 .values = {.format = format},
                                 .count = 1,
                                 .heads = heads,
                                 .first_position = 0,
                                 .scale = 1};
  };
  EXPECT_TRUE(cuda::supports_split_attention(problem(4, 64)));
  EXPECT_TRUE(cuda::supports_tile_attention(problem(4, 64)));
  for (const auto& [heads, dim] : {std::pair{3, 64}, {4, 264}, {4, 60}}) {
    EXPECT_FALSE(cuda::supports_split_attention(problem(heads, dim)));
    const cuda::AttentionPlan plan = cuda::plan_attention(problem(heads, dim), {.multiprocessors = 4});
    EXPECT_EQ(plan.kernel, nullptr);
    EXPECT_FALSE(plan.reason.empty());
    SimulatedDevice device;
    EXPECT_THROW(cuda::attend(device, problem(heads, dim), plan, nullptr), Error);
  }
}

TEST(AttentionPlanTest, ChoosesByRowsTypesAndSizes) {
  struct Choice {
    KvType type;
    int64_t count;
    int64_t heads;  // of one kv head
    int64_t dim;
    const char* kernel;
  };
  const std::vector<Choice> choices{
      {KvType::fp16, 1, 1, 128, "split_attention_fp16"},
      {KvType::int8, 1, 1, 128, "split_attention_int8"},
      {KvType::fp32, 1, 1, 128, "split_attention_fp32"},
      {KvType::bf16, 1, 1, 128, "split_attention_bf16"},
      {KvType::bf16, 1, 2, 128, "split_attention4_bf16"},
      {KvType::bf16, 1, 4, 64, "row_attention_64_bf16"},
      {KvType::bf16, 4, 4, 128, "row_attention_128_bf16"},
      {KvType::bf16, 8, 2, 256, "row_attention_256_bf16"},
      {KvType::bf16, 17, 1, 64, "tile_attention_64_bf16"},
      {KvType::bf16, 17, 1, 80, "tile_attention_128_bf16"},
      {KvType::bf16, 17, 1, 136, "tile_attention_256_bf16"},
      {KvType::bf16, 2000, 8, 64, "tile_attention_64_wide_bf16"},
      {KvType::bf16, 2000, 8, 128, "tile_attention_128_wide_bf16"},
      {KvType::fp16, 1, 3, 128, "split_attention4_fp16"},
      {KvType::fp32, 2, 8, 128, "split_attention4_fp32"},
      {KvType::fp16, 1, 4, 64, "row_attention_64"},
      {KvType::int8, 8, 8, 80, "row_attention_128"},
      {KvType::fp16, 4, 4, 256, "row_attention_256"},
      {KvType::fp16, 5, 4, 256, "tile_attention_256"},
      {KvType::fp16, 8, 8, 96, "tile_attention_128"},
      {KvType::int8, 9, 8, 64, "tile_attention_64"},
      {KvType::fp32, 9, 1, 64, "tile_attention_64"},
      {KvType::fp32, 2000, 8, 64, "tile_attention_64_wide"},
      {KvType::fp16, 2000, 8, 112, "tile_attention_128_wide"},
  };
  for (const Choice& c : choices) {
    const KvFormat format{c.type, 1, c.dim};
    const cuda::AttentionPlan plan = cuda::plan_attention({.keys = {.format = format},
                                                           .values = {.format = format},
                                                           .count = c.count,
                                                           .heads = c.heads,
                                                           .first_position = 0,
                                                           .scale = 1},
                                                          {.multiprocessors = 20});
    EXPECT_STREQ(plan.kernel->name, c.kernel);
    EXPECT_LE(plan.shared_bytes, size_t{99} << 10);
    EXPECT_FALSE(plan.reason.empty());
  }
}

TEST(AttentionPlanTest, FillsTheDeviceWithSplits) {
  const KvFormat format{KvType::fp16, 8, 128};
  cuda::DeviceAttention problem{.keys = {.format = format},
                                .values = {.format = format},
                                .count = 1,
                                .heads = 32,
                                .first_position = 8191,
                                .scale = 1};
  const cuda::AttentionPlan plan = cuda::plan_attention(problem, kH100);
  const auto& [first_key, split_keys, splits] = plan.splits;
  EXPECT_EQ(first_key, 0);
  EXPECT_GT(splits * 8, 132 * 2);
  EXPECT_LE(splits * 8, 132 * 3);
  EXPECT_GE(splits * split_keys, 8192);
  EXPECT_LT((splits - 1) * split_keys, 8192);
  // 70 KiB of shared memory: there is room for one block a multiprocessor, not for three.
  const cuda::AttentionPlan smaller = cuda::plan_attention(problem, kRtx4090);
  EXPECT_STREQ(smaller.kernel->name, "row_attention_128");
  EXPECT_LE(smaller.splits.splits * 8, 128);
  EXPECT_GT(smaller.splits.splits * 8, 64);
  problem.first_position = 0;
  EXPECT_EQ(cuda::plan_attention(problem, kH100).splits.splits, 1);
}

}  // namespace
}  // namespace salient::test
