// Sequences side by side: what goes before attention, and attention, of whole batches by the CUDA back end.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/kv_rows.h"
#include "backend/cuda/simulator.h"
#include "base/error.h"
#include "support/random.h"

namespace salient::test {
namespace {

struct Sequence {
  int64_t count;
  int64_t first = 0;
  bool cached = true;
};

struct Case {
  KvType type = KvType::fp16;
  int64_t heads = 4;
  int64_t kv_heads = 2;
  int64_t head_dim = 32;
  int64_t value_dim = 32;
  int64_t window = 0;
  float softcap = 0;
  std::vector<float> slopes = {};
  RopePairs pairs = RopePairs::halves;
  int64_t rotated = 8;  ///< pairs; 0: no rotation
  std::vector<Sequence> sequences;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  out << to_string(c.type) << ", heads " << c.heads << " / " << c.kv_heads << " of " << c.head_dim
      << ", window " << c.window << ", queries";
  for (const Sequence& sequence : c.sequences) out << " " << sequence.count << " at " << sequence.first;
  return out;
}

/// Rows of the sequences that were run, one behind the other.
struct Result {
  Tensor query;  // rotated
  Tensor keys;
  Tensor output;
};

bool same(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && std::memcmp(a.bytes(), b.bytes(), a.byte_size()) == 0;
}

double distance(const Tensor& a, const Tensor& b) {
  double worst = 0;
  for (size_t i = 0; i < a.values<float>().size(); ++i) {
    const double off = std::abs(double{a.values<float>()[i]} - double{b.values<float>()[i]});
    worst = off <= worst ? worst : std::isnan(off) ? INFINITY : off;
  }
  return worst;
}

class PagedAttentionTest : public testing::Test {
 protected:
  PagedAttentionTest() {
    auto owned = std::make_unique<SimulatedDevice>();
    device_ = owned.get();
    cuda_ = cuda::make_cuda_backend(std::move(owned), {});
  }

  /// Blocks of one sequence, filled up to its new rows.
  struct Cache {
    std::vector<KvBlock> blocks;
    KvView view;
  };
  static Cache cache_for(Backend& backend, const Case& c, size_t index) {
    constexpr size_t kOffset = 256;  // as of a layer behind others
    const auto& [count, first, cached] = c.sequences[index];
    const KvFormat keys{c.type, c.kv_heads, c.head_dim};
    const KvFormat values{c.type, c.kv_heads, c.value_dim};
    const auto bytes = static_cast<int64_t>(kOffset + keys.page_bytes() + values.page_bytes());
    Cache cache;
    for (int64_t page = 0; page * kPageRows < first + count; ++page)
      cache.blocks.push_back(std::make_shared<Tensor>(Tensor::zeros(DType::u8, {bytes})));
    cache.view = {.keys = {keys, cache.blocks, kOffset},
                  .values = {values, cache.blocks, kOffset + keys.page_bytes()}};
    if (first == 0) return cache;
    const RowsForCache before{.count = first, .first = 0, .pages = cache.view};
    backend.rope_and_store({.keys = rows_of(index, 1, first, c.kv_heads * c.head_dim),
                            .values = rows_of(index, 2, first, c.kv_heads * c.value_dim),
                            .caches = {&before, 1}});
    return cache;
  }

  /// What a sequence brings is the same in every batch.
  static Tensor rows_of(size_t index, uint32_t kind, int64_t count, int64_t width) {
    return random_tensor({count, width}, static_cast<uint32_t>(index) * 10 + kind);
  }

  /// Sequences `indices` of a case in one batch.
  static Result run(Backend& backend, const Case& c, std::span<const size_t> indices) {
    int64_t rows = 0;
    for (const size_t index : indices) rows += c.sequences[index].count;
    Result result{.query = Tensor::empty(DType::f32, {rows, c.heads * c.head_dim}),
                  .keys = Tensor::empty(DType::f32, {rows, c.kv_heads * c.head_dim}),
                  .output = Tensor::empty(DType::f32, {rows, c.heads * c.value_dim})};
    Tensor values = Tensor::empty(DType::f32, {rows, c.kv_heads * c.value_dim});
    Tensor angles = Tensor::empty(DType::f32, {rows, std::max<int64_t>(1, c.rotated)});
    std::vector<Cache> caches;
    std::vector<RowsForCache> kept;
    int64_t begin = 0;
    for (const size_t index : indices) {
      const auto& [count, first, cached] = c.sequences[index];
      copy_rows(rows_of(index, 3, count, result.query.dim(1)), result.query, begin);
      copy_rows(rows_of(index, 4, count, result.keys.dim(1)), result.keys, begin);
      copy_rows(rows_of(index, 5, count, values.dim(1)), values, begin);
      copy_rows(rows_of(index, 6, count, angles.dim(1)), angles, begin);
      caches.push_back(cache_for(backend, c, index));
      if (cached)
        kept.push_back({.begin = begin, .count = count, .first = first, .pages = caches.back().view});
      begin += count;
    }
    rotate_and_keep(backend, c, angles, values, kept, result);
    attend(backend, c, indices, caches, values, result);
    return result;
  }

  static void rotate_and_keep(Backend& backend, const Case& c, const Tensor& angles, const Tensor& values,
                              std::span<const RowsForCache> kept, const Result& result) {
    Tensor cosine = Tensor::empty(DType::f32, angles.shape());
    Tensor sine = Tensor::empty(DType::f32, angles.shape());
    for (size_t i = 0; i < angles.values<float>().size(); ++i) {
      cosine.mutable_values<float>()[i] = std::cos(angles.values<float>()[i]);
      sine.mutable_values<float>()[i] = std::sin(angles.values<float>()[i]);
    }
    const bool rotates = c.rotated > 0;
    backend.rope_and_store({.query = result.query,
                            .keys = result.keys,
                            .values = values,
                            .cosine = rotates ? cosine : Tensor(),
                            .sine = rotates ? sine : Tensor(),
                            .head_dim = c.head_dim,
                            .pairs = c.pairs,
                            .caches = kept});
  }

  static void attend(Backend& backend, const Case& c, std::span<const size_t> indices,
                     std::span<const Cache> caches, const Tensor& values, const Result& result) {
    struct Rows {
      Tensor query, keys, values, output;
    };
    std::vector<Rows> rows;
    std::vector<AttentionProblem> problems;
    rows.reserve(indices.size());
    int64_t begin = 0;
    for (size_t i = 0; i < indices.size(); ++i) {
      const auto& [count, first, cached] = c.sequences[indices[i]];
      const auto part = [&](const Tensor& all) { return all.slice(begin, begin + count); };
      Rows& own =
          rows.emplace_back(Rows{part(result.query), part(result.keys), part(values), part(result.output)});
      problems.push_back({.query = own.query,
                          .cache = cached ? &caches[i].view : nullptr,
                          .keys = own.keys,
                          .values = own.values,
                          .output = own.output,
                          .heads = c.heads,
                          .kv_heads = c.kv_heads,
                          .head_dim = c.head_dim,
                          .value_dim = c.value_dim,
                          .first_position = first,
                          .window = c.window,
                          .scale = 1 / std::sqrt(static_cast<float>(c.head_dim)),
                          .softcap = c.softcap,
                          .slopes = c.slopes});
      begin += count;
    }
    backend.attention(problems);
  }

  static std::vector<size_t> all_of(const Case& c) {
    std::vector<size_t> indices(c.sequences.size());
    std::iota(indices.begin(), indices.end(), size_t{0});
    return indices;
  }

  static void expect_as_alone(Backend& backend, const Case& c) {
    const Result together = run(backend, c, all_of(c));
    int64_t begin = 0;
    for (size_t index = 0; index < c.sequences.size(); ++index) {
      const Result alone = run(backend, c, {&index, 1});
      const int64_t end = begin + c.sequences[index].count;
      EXPECT_TRUE(same(together.query.slice(begin, end), alone.query)) << c << ", sequence " << index;
      EXPECT_TRUE(same(together.keys.slice(begin, end), alone.keys)) << c << ", sequence " << index;
      EXPECT_TRUE(same(together.output.slice(begin, end), alone.output)) << c << ", sequence " << index;
      begin = end;
    }
  }

  /// Queries, keys, values and weights are rounded to halves in some kernels.
  void expect_as_on_cpu(const Case& c) {
    const Result got = run(*cuda_, c, all_of(c));
    const Result expected = run(*cpu_, c, all_of(c));
    EXPECT_LT(distance(got.query, expected.query), 1e-5) << c;
    EXPECT_LT(distance(got.keys, expected.keys), 1e-5) << c;
    EXPECT_LT(distance(got.output, expected.output), c.type == KvType::bf16 ? 24e-3 : 4e-3) << c;
    EXPECT_TRUE(device_->guards_held());
  }

  int launches(const char* kernel) const {
    const auto found = device_->launches().find(kernel);
    return found == device_->launches().end() ? 0 : found->second;
  }
  /// Of kernels whose names have this in them.
  int launches_of_all(std::string_view part) const {
    int sum = 0;
    for (const auto& [name, count] : device_->launches())
      if (name.find(part) != std::string::npos) sum += count;
    return sum;
  }

  SimulatedDevice* device_ = nullptr;
  std::unique_ptr<Backend> cuda_;
  std::unique_ptr<Backend> cpu_ = make_cpu_backend();
};

std::vector<Sequence> single_queries(std::initializer_list<int64_t> positions) {
  std::vector<Sequence> result;
  for (const int64_t position : positions) result.push_back({.count = 1, .first = position});
  return result;
}

constexpr KvType kTypes[] = {KvType::fp32, KvType::fp16, KvType::bf16, KvType::int8};

TEST_F(PagedAttentionTest, EachGetsWhatItGetsAlone) {
  const std::vector<Case> cases{
      {.sequences = single_queries({0, 63, 64, 300, 700, 128})},
      {.sequences = single_queries({330, 340, 350, 360, 370, 380, 383, 320})},
      {.heads = 2, .sequences = single_queries({5, 500, 130})},
      {.heads = 7, .kv_heads = 1, .head_dim = 64, .sequences = single_queries({200, 3, 450})},
      {.heads = 16, .kv_heads = 2, .head_dim = 128, .value_dim = 64, .sequences = single_queries({190, 66})},
      {.heads = 40, .kv_heads = 2, .sequences = single_queries({190, 66})},
      {.window = 100, .sequences = single_queries({500, 20, 99, 100, 260})},
      {.softcap = 2, .slopes = {0.5f, 0.25f, 0.125f, 0.0625f}, .sequences = single_queries({400, 77})},
      {.sequences = {{.count = 3, .first = 126}, {.count = 1, .first = 400}, {.count = 4, .first = 0}}},
      {.sequences = {{.count = 2, .cached = false},
                     {.count = 1, .first = 70},
                     {.count = 1, .cached = false}}},
  };
  for (Case c : cases) {
    for (const KvType type : kTypes) {
      c.type = type;
      expect_as_alone(*cuda_, c);
      expect_as_on_cpu(c);
    }
    expect_as_alone(*cpu_, c);
  }
}

TEST_F(PagedAttentionTest, AnyOrderOfThreads) {
  const Case c{.heads = 8, .sequences = single_queries({400, 70, 3, 129})};
  for (uint32_t seed = 1; seed < 4; ++seed) {
    device_->set_seed(seed);
    expect_as_alone(*cuda_, c);
    expect_as_on_cpu(c);
  }
}

/// More queries than are promised the bytes that they get alone, with prompts among them.
TEST_F(PagedAttentionTest, ManySequencesOfEveryKind) {
  const std::vector<Case> cases{
      {.sequences = single_queries({0, 900, 64, 300, 700, 128, 31, 32, 500, 5, 6, 127})},
      {.sequences = single_queries({330, 340, 350, 360, 370, 380, 383, 320, 450, 440, 0, 520})},
      {.heads = 2, .window = 70, .sequences = single_queries({0, 900, 64, 300, 700, 128, 31, 32, 500, 5})},
      {.sequences = {{.count = 1, .first = 300},
                     {.count = 70, .first = 100},
                     {.count = 1, .first = 90},
                     {.count = 5, .first = 125},
                     {.count = 1, .first = 0}}},
      {.sequences = {{.count = 1, .first = 300}, {.count = 20, .cached = false}, {.count = 1, .first = 3}}},
      {.pairs = RopePairs::neighbours,
       .rotated = 16,
       .sequences = {{.count = 12, .cached = false}, {.count = 9}}},
      {.rotated = 0, .sequences = {{.count = 12, .first = 120}, {.count = 1, .first = 9}}},
      {.rotated = 0, .sequences = {{.count = 12, .cached = false}, {.count = 3, .cached = false}}},
  };
  for (Case c : cases) {
    for (const KvType type : kTypes) {
      c.type = type;
      expect_as_on_cpu(c);
    }
    expect_as_alone(*cpu_, c);
  }
}

TEST_F(PagedAttentionTest, ABatchIsOneLaunchOfEach) {
  const Case c{.sequences = single_queries({400, 70, 3, 129})};
  run(*cuda_, c, all_of(c));  // another pass before it, with other tables
  const int attention = launches_of_all("attention");
  const int merges = launches("merge_splits");
  const int stores = launches("kv_rows");
  run(*cuda_, c, all_of(c));
  EXPECT_EQ(launches_of_all("attention"), attention + 1);
  EXPECT_EQ(launches("merge_splits"), merges + 1);
  EXPECT_EQ(launches("kv_rows"), stores + 4 + 1) << "four that fill caches";
}

/// Heads of no multiple of 8: pages stay on the host.
TEST_F(PagedAttentionTest, WhatTheDeviceDoesNotTake) {
  Case c{.head_dim = 36, .value_dim = 36, .sequences = {{.count = 1, .first = 40}, {.count = 9, .first = 5}}};
  expect_as_on_cpu(c);
  EXPECT_EQ(launches_of_all("attention"), 0);
  c = {.head_dim = 264, .value_dim = 264, .sequences = single_queries({3, 4})};
  expect_as_on_cpu(c);
  EXPECT_EQ(launches_of_all("attention"), 0);
}

TEST_F(PagedAttentionTest, WrongRowsAreInternalErrors) {
  const Case c{.sequences = single_queries({40})};
  const Cache cache = cache_for(*cpu_, c, 0);
  const Tensor keys = random_tensor({3, 64}, 1);
  const auto fails = [&](const RopeStoreProblem& problem) {
    for (Backend* backend : {cpu_.get(), cuda_.get()}) {
      try {
        backend->rope_and_store(problem);
        ADD_FAILURE() << "no error";
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::internal);
      }
    }
  };
  const RowsForCache past_pages{.count = 3, .first = 126, .pages = cache.view};
  fails({.keys = keys, .values = keys, .caches = {&past_pages, 1}});
  const RowsForCache past_rows{.begin = 2, .count = 2, .first = 0, .pages = cache.view};
  fails({.keys = keys, .values = keys, .caches = {&past_rows, 1}});
  const RowsForCache fine{.count = 3, .first = 0, .pages = cache.view};
  fails({.keys = keys, .values = random_tensor({3, 32}, 1), .caches = {&fine, 1}});
  fails({.keys = keys, .values = keys, .cosine = keys, .sine = keys, .head_dim = 32, .caches = {&fine, 1}});
}

}  // namespace
}  // namespace salient::test
