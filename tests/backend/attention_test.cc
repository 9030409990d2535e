#include "backend/backend_fixture.h"

namespace salient::test {
namespace {

struct Case {
  int64_t count;
  int64_t first_position = 0;
  int64_t heads = 1;
  int64_t kv_heads = 1;
  int64_t head_dim = 16;
  int64_t window = 0;
  int64_t value_dim = 0;  ///< 0: head_dim
  float softcap = 0;
  std::vector<float> slopes = {};

  int64_t values() const { return value_dim == 0 ? head_dim : value_dim; }
};

class AttentionTest : public EveryIsa {
 protected:
  struct Inputs {
    Tensor query;
    Tensor keys;
    Tensor values;
  };

  Inputs inputs_for(const Case& c) {
    // Rows past the filled ones hold NaN: reading them would show.
    const int64_t filled = c.first_position + c.count;
    Inputs result{.query = random({c.count, c.heads * c.head_dim}, 2.0f),
                  .keys = random({filled + 3, c.kv_heads * c.head_dim}, 2.0f),
                  .values = random({filled + 3, c.kv_heads * c.values()})};
    for (Tensor* tensor : {&result.keys, &result.values}) {
      auto values = tensor->mutable_values<float>();
      for (size_t i = static_cast<size_t>(filled * tensor->dim(1)); i < values.size(); ++i) values[i] = NAN;
    }
    return result;
  }

  static float scale(const Case& c) { return 1.0f / std::sqrt(static_cast<float>(c.head_dim)); }

  /// `cache`: read in place of keys and values.
  Tensor run(const Case& c, const Inputs& in, const KvView* cache = nullptr) {
    Tensor output = Tensor::empty(DType::f32, {c.count, c.heads * c.values()});
    backend->attention({.query = in.query,
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

  /// Queries [begin, end) of a case.
  Tensor run_part(Case c, const Inputs& in, const KvView& cache, int64_t begin, int64_t end) {
    c.first_position += begin;
    c.count = end - begin;
    return run(c, {in.query.slice(begin, end), in.keys, in.values}, &cache);
  }

  /// Filled in two calls, the second of which begins inside a page.
  KvView cached(const Case& c, const Inputs& in, KvType type) {
    const int64_t filled = c.first_position + c.count;
    const KvFormat keys{type, c.kv_heads, c.head_dim};
    const KvFormat values{type, c.kv_heads, c.values()};
    const size_t offset = 64;
    blocks_.clear();
    for (int64_t page = 0; page * kPageRows < filled; ++page) {
      blocks_.push_back(std::make_shared<Tensor>(Tensor::zeros(
          DType::u8, {static_cast<int64_t>(offset + keys.page_bytes() + values.page_bytes())})));
    }
    const KvView view{.keys = {keys, blocks_, offset},
                      .values = {values, blocks_, offset + keys.page_bytes()}};
    const int64_t middle = filled / 3;
    for (const auto& [begin, end] : {std::pair{int64_t{0}, middle}, std::pair{middle, filled}}) {
      const RowsForCache rows{.begin = begin, .count = end - begin, .first = begin, .pages = view};
      backend->rope_and_store({.keys = in.keys, .values = in.values, .caches = {&rows, 1}});
    }
    return view;
  }

  /// What such a cache keeps of x.
  static Tensor kept(const Tensor& x, int64_t dim, KvType type) {
    if (type == KvType::fp32) return x;
    if (type == KvType::fp16) return x.to(DType::f16).to(DType::f32);
    if (type == KvType::bf16) return x.to(DType::bf16).to(DType::f32);
    Tensor result = x.to(DType::f32);
    auto all = result.mutable_values<float>();
    for (size_t begin = 0; begin < all.size(); begin += static_cast<size_t>(dim)) {
      const auto row = all.subspan(begin, static_cast<size_t>(dim));
      float bound = 0;
      for (const float value : row) bound = std::max(bound, std::abs(value));
      const float scale = bound / 127;
      for (float& value : row) value = static_cast<float>(std::lrintf(value * (127 / bound))) * scale;
    }
    return result;
  }

  std::vector<KvBlock> blocks_;

  static double score(const Case& c, const Inputs& in, int64_t query, int64_t head, int64_t key) {
    const int64_t kv = head / (c.heads / c.kv_heads);
    double result = 0;
    for (int64_t d = 0; d < c.head_dim; ++d) {
      result +=
          double{at(in.query, query, head * c.head_dim + d)} * double{at(in.keys, key, kv * c.head_dim + d)};
    }
    result *= double{scale(c)};
    if (c.softcap > 0) result = double{c.softcap} * std::tanh(result / double{c.softcap});
    return c.slopes.empty() ? result
                            : result + double{c.slopes[static_cast<size_t>(head)]} * static_cast<double>(key);
  }

  /// Largest absolute error; values are of order 1, so are the outputs.
  static double error(const Case& c, const Inputs& in, const Tensor& output) {
    double worst = 0;
    for (int64_t query = 0; query < c.count; ++query) {
      for (int64_t head = 0; head < c.heads; ++head) {
        const int64_t position = c.first_position + query;
        const int64_t oldest = c.window == 0 ? 0 : std::max<int64_t>(0, position - c.window + 1);
        std::vector<double> weights;
        double highest = -1e300;
        for (int64_t key = oldest; key <= position; ++key) {
          weights.push_back(score(c, in, query, head, key));
          highest = std::max(highest, weights.back());
        }
        double total = 0;
        for (double& weight : weights) total += weight = std::exp(weight - highest);
        for (int64_t d = 0; d < c.values(); ++d) {
          double exact = 0;
          for (int64_t key = oldest; key <= position; ++key) {
            exact += weights[static_cast<size_t>(key - oldest)] / total *
                     double{at(in.values, key, head / (c.heads / c.kv_heads) * c.values() + d)};
          }
          worst = std::max(worst, std::abs(double{at(output, query, head * c.values() + d)} - exact));
        }
      }
    }
    return worst;
  }
};

SALIENT_EVERY_ISA(AttentionTest);

/// Scores reach about 15 with relative error 1e-7 each, hence weights are off by about 2e-6.
constexpr double kBound = 6e-6;

TEST_P(AttentionTest, AgreesWithDoublePrecision) {
  const std::vector<Case> cases{
      {.count = 1},
      {.count = 3, .first_position = 9, .heads = 4, .kv_heads = 2, .head_dim = 24, .value_dim = 16},
      {.count = 20, .heads = 4, .kv_heads = 4, .head_dim = 12, .value_dim = 20, .softcap = 2},
      {.count = 9, .first_position = 5, .heads = 2, .kv_heads = 1, .window = 6, .softcap = 5},
      {.count = 30, .heads = 3, .kv_heads = 3, .slopes = {0.5f, 0.0625f, 0.25f}},
      {.count = 1, .first_position = 33, .heads = 2, .kv_heads = 2, .slopes = {0.5f, 0.0625f}},
      {.count = 1, .first_position = 77, .heads = 6, .kv_heads = 2, .head_dim = 20},
      {.count = 1, .first_position = 40, .heads = 16, .kv_heads = 1, .head_dim = 64},
      {.count = 2, .first_position = 5, .heads = 4, .kv_heads = 4, .head_dim = 7},
      {.count = 3, .first_position = 9, .heads = 9, .kv_heads = 3, .head_dim = 64},
      {.count = 33, .heads = 3, .kv_heads = 1, .head_dim = 33},
      {.count = 64, .first_position = 3, .heads = 2, .kv_heads = 2, .head_dim = 64},
      {.count = 65, .heads = 2, .kv_heads = 1, .head_dim = 80},
      {.count = 150, .first_position = 31, .heads = 4, .kv_heads = 2, .head_dim = 24},
  };
  for (const Case& c : cases) {
    const Inputs in = inputs_for(c);
    EXPECT_LT(error(c, in, run(c, in)), kBound)
        << c.count << " from " << c.first_position << ", heads " << c.heads;
  }
}

TEST_P(AttentionTest, AWindowHidesOlderPositions) {
  for (const int64_t window : {1, 2, 5, 64, 100, 1000}) {
    for (const int64_t count : {1, 4, 130}) {
      const Case c{
          .count = count, .first_position = 70, .heads = 4, .kv_heads = 2, .head_dim = 12, .window = window};
      const Inputs in = inputs_for(c);
      EXPECT_LT(error(c, in, run(c, in)), kBound) << "window " << window << " count " << count;
    }
  }
}

TEST_P(AttentionTest, HugeScoresDoNotOverflow) {
  const Case c{.count = 20, .heads = 2, .kv_heads = 2, .head_dim = 16};
  Inputs in = inputs_for(c);
  for (float& value : in.query.mutable_values<float>()) value *= 1e4f;
  const Tensor output = run(c, in);
  for (const float value : output.values<float>()) ASSERT_TRUE(std::isfinite(value));
  if (!use_bf16()) return;
  const Tensor rounded = run(c, in);
  for (const float value : rounded.values<float>()) ASSERT_TRUE(std::isfinite(value));
}

/// Of inputs that bf16 holds, and a power of two as their scale, only weights are rounded: one part in 512 of
/// values up to 4.
TEST_P(AttentionTest, ProductsOfBf16RoundNothingButOperands) {
  if (!use_bf16()) GTEST_SKIP() << "no bf16 products: " << backend->description();
  const std::vector<Case> cases{
      {.count = 30, .heads = 3, .kv_heads = 3, .slopes = {0.5f, 0.0625f, 0.25f}},
      {.count = 40, .heads = 4, .kv_heads = 4, .value_dim = 20, .softcap = 2},
      {.count = 64, .first_position = 3, .heads = 9, .kv_heads = 3, .head_dim = 64},
      {.count = 130, .first_position = 70, .heads = 4, .kv_heads = 2, .window = 5},
      {.count = 130, .first_position = 70, .heads = 4, .kv_heads = 2, .head_dim = 64, .window = 100},
      {.count = 200, .first_position = 31, .heads = 4, .kv_heads = 2},
  };
  for (const Case& c : cases) {
    Inputs in = inputs_for(c);
    for (Tensor* tensor : {&in.query, &in.keys, &in.values}) *tensor = tensor->to(DType::bf16).to(DType::f32);
    EXPECT_LT(error(c, in, run(c, in)), 8e-3)
        << c.count << " from " << c.first_position << ", heads " << c.heads;
    expect_same_for_any_thread_count([&] { return run(c, in); });
  }
}

/// Parts are 128 keys: contexts around their borders, and every number of queries up to the one from which
/// other products take over.
TEST_P(AttentionTest, FewQueriesOverKeysInParts) {
  for (const int64_t position : {0, 119, 126, 127, 128, 129, 255, 256, 700}) {
    for (const int64_t count : {1, 2, 7, 8, 9}) {
      const Case c{.count = count,
                   .first_position = position,
                   .heads = 6,
                   .kv_heads = 2,
                   .head_dim = 20,
                   .value_dim = 36};
      const Inputs in = inputs_for(c);
      EXPECT_LT(error(c, in, run(c, in)), kBound) << count << " from " << position;
    }
  }
}

/// Passes are 512 keys. Behind a window later queries see nothing of a pass that earlier ones of their block
/// see.
TEST_P(AttentionTest, ManyQueriesOverKeysInPasses) {
  const std::vector<Case> cases{
      {.count = 60, .first_position = 1000, .heads = 6, .kv_heads = 2, .head_dim = 20, .value_dim = 36},
      {.count = 60, .first_position = 1000, .heads = 4, .kv_heads = 2, .window = 9},
      {.count = 100, .first_position = 1500, .heads = 4, .kv_heads = 2, .window = 530},
      {.count = 30, .first_position = 1010, .heads = 2, .kv_heads = 1, .softcap = 2},
      {.count = 30, .first_position = 1030, .heads = 2, .kv_heads = 2, .slopes = {0.5f, 0.0625f}},
      {.count = 20, .first_position = 500, .heads = 40, .kv_heads = 1},
  };
  for (const Case& c : cases) {
    const Inputs in = inputs_for(c);
    EXPECT_LT(error(c, in, run(c, in)), kBound)
        << c.count << " from " << c.first_position << ", heads " << c.heads << ", window " << c.window;
    expect_same_for_any_thread_count([&] { return run(c, in); });
    if (!use_bf16()) continue;
    EXPECT_LT(error(c, in, run(c, in)), 3e-2) << "bf16, " << c.count << " from " << c.first_position;
  }
}

/// One pass far below another, on either side, has no weight.
TEST_P(AttentionTest, PassesOfVeryDifferentScores) {
  const Case c{.count = 10, .first_position = 1100, .head_dim = 16};
  for (const int64_t peak : {0, 700, 1050}) {
    Inputs in = inputs_for(c);
    float* key = in.keys.mutable_values<float>().data() + peak * 16;
    for (int64_t d = 0; d < 16; ++d) key[d] = at(in.query, 0, d) * 500;
    EXPECT_LT(error(c, in, run(c, in)), kBound) << peak;
  }
}

TEST_P(AttentionTest, PartsOfEveryKind) {
  const std::vector<Case> cases{
      {.count = 1, .first_position = 300, .heads = 8, .kv_heads = 1, .head_dim = 64},
      {.count = 1, .first_position = 300, .heads = 5, .kv_heads = 1, .head_dim = 128},
      {.count = 1, .first_position = 300, .heads = 3, .kv_heads = 3, .head_dim = 192, .value_dim = 128},
      {.count = 1, .first_position = 411, .heads = 4, .kv_heads = 2, .window = 130},
      {.count = 1, .first_position = 411, .heads = 4, .kv_heads = 2, .window = 128, .softcap = 3},
      {.count = 8, .first_position = 411, .heads = 4, .kv_heads = 4, .head_dim = 9, .window = 3},
      {.count = 5, .first_position = 140, .heads = 4, .kv_heads = 2, .window = 129, .softcap = 2},
      {.count = 3, .first_position = 300, .heads = 2, .kv_heads = 2, .slopes = {0.5f, 0.0625f}},
      {.count = 2, .first_position = 300, .heads = 7, .kv_heads = 1, .head_dim = 40, .value_dim = 1},
  };
  for (const Case& c : cases) {
    const Inputs in = inputs_for(c);
    EXPECT_LT(error(c, in, run(c, in)), kBound)
        << c.count << " from " << c.first_position << ", heads " << c.heads << ", window " << c.window;
    expect_same_for_any_thread_count([&] { return run(c, in); });
  }
}

/// A part whose scores are far below another's has no weight; nothing overflows on the way.
TEST_P(AttentionTest, PartsOfVeryDifferentScores) {
  const Case c{.count = 1, .first_position = 399, .head_dim = 16};
  for (const int64_t peak : {0, 200, 399}) {
    Inputs in = inputs_for(c);
    float* key = in.keys.mutable_values<float>().data() + peak * 16;
    for (int64_t d = 0; d < 16; ++d) key[d] = at(in.query, 0, d) * 500;
    EXPECT_LT(error(c, in, run(c, in)), kBound) << peak;
  }
}

/// A cache gives what tensors of the values that it keeps would give, to the bit.
TEST_P(AttentionTest, CachesOfEveryType) {
  const std::vector<Case> cases{
      {.count = 1, .first_position = 300, .heads = 8, .kv_heads = 2, .head_dim = 64},
      {.count = 5, .first_position = 125, .heads = 3, .kv_heads = 3, .head_dim = 7, .value_dim = 20},
      {.count = 1, .first_position = 411, .heads = 4, .kv_heads = 2, .window = 130},
      {.count = 300, .heads = 4, .kv_heads = 2, .head_dim = 33},
      {.count = 140, .first_position = 250, .heads = 4, .kv_heads = 1, .head_dim = 64, .window = 100},
      {.count = 3, .first_position = 0, .heads = 2, .kv_heads = 2, .head_dim = 16},
      {.count = 40, .first_position = 1000, .heads = 4, .kv_heads = 2, .head_dim = 33},
  };
  for (const KvType type : {KvType::fp32, KvType::fp16, KvType::bf16, KvType::int8}) {
    for (const Case& c : cases) {
      const Inputs in = inputs_for(c);
      const KvView cache = cached(c, in, type);
      const Tensor expected =
          run(c, {in.query, kept(in.keys, c.head_dim, type), kept(in.values, c.values(), type)});
      const Tensor found = run(c, in, &cache);
      EXPECT_EQ(std::memcmp(found.bytes(), expected.bytes(), found.byte_size()), 0)
          << to_string(type) << ", " << c.count << " from " << c.first_position;
      expect_same_for_any_thread_count([&] { return run(c, in, &cache); });
    }
  }
}

/// What lets a prompt be run in pieces beside others without another result, within a pass of 512 keys and
/// beyond.
TEST_P(AttentionTest, APromptCutBetweenPagesGivesTheSameBytes) {
  const std::vector<Case> cases{
      {.count = 391, .heads = 6, .kv_heads = 2, .head_dim = 40},
      {.count = 291, .first_position = 100, .heads = 6, .kv_heads = 2, .head_dim = 40},
      {.count = 1200, .heads = 2, .kv_heads = 1, .head_dim = 16},
      {.count = 700, .first_position = 400, .heads = 2, .kv_heads = 1, .head_dim = 16, .window = 530},
  };
  const auto expect_same = [&](const Case& c, const Inputs& in, const KvView& cache) {
    const Tensor whole = run(c, in, &cache);
    const int64_t last = c.first_position + c.count;
    for (const std::vector<int64_t>& cuts :
         {std::vector<int64_t>{128, 256, 384}, {256}, {512, 640}, {1024}}) {
      int64_t begin = 0;
      for (size_t i = 0; i <= cuts.size(); ++i) {
        const int64_t end = (i == cuts.size() ? last : std::min(cuts[i], last)) - c.first_position;
        if (end <= begin) continue;
        const Tensor part = run_part(c, in, cache, begin, end);
        EXPECT_EQ(std::memcmp(part.bytes(), whole.slice(begin, end).bytes(), part.byte_size()), 0)
            << begin << " to " << end << " of " << c.count;
        begin = end;
      }
    }
  };
  for (const Case& c : cases) {
    const Inputs in = inputs_for(c);
    for (const KvType type : {KvType::fp32, KvType::int8}) expect_same(c, in, cached(c, in, type));
    if (use_bf16()) expect_same(c, in, cached(c, in, KvType::fp32));
    backend = make_cpu_backend_for(GetParam(), {});
  }
}

TEST_P(AttentionTest, WhatACacheCannotHold) {
  const Case c{.count = 4, .heads = 2, .kv_heads = 2, .head_dim = 8};
  Inputs in = inputs_for(c);
  in.keys.mutable_values<float>()[3] = 1e6f;
  const KvView clamped = cached(c, in, KvType::fp16);
  EXPECT_TRUE(std::isfinite(run(c, in, &clamped).values<float>()[0]));
  in.values.mutable_values<float>()[5] = 1e6f;
  const KvView halves = cached(c, in, KvType::fp16);
  EXPECT_EQ(at(run(c, in, &halves), 0, 5), 65504);
  const KvView wide = cached(c, in, KvType::bf16);
  EXPECT_EQ(at(run(c, in, &wide), 0, 5), 999424);
  for (const float bad : {INFINITY, NAN}) {
    in.keys.mutable_values<float>()[3] = bad;
    const KvView cache = cached(c, in, KvType::int8);
    EXPECT_TRUE(std::isnan(run(c, in, &cache).values<float>()[0])) << bad;
  }
  const KvView cache = cached(c, in, KvType::int8);
  const RowsForCache behind{.count = 4, .first = 126, .pages = cache};
  const auto store = [&] {
    backend->rope_and_store({.keys = in.keys, .values = in.values, .caches = {&behind, 1}});
  };
  EXPECT_NE(error_of(store, ErrorKind::internal).find("past its pages"), std::string::npos);
  Case wrong = c;
  wrong.head_dim = 4;
  in.query = random({4, 8});
  EXPECT_NE(error_of([&] { run(wrong, in, &cache); }, ErrorKind::internal).find("other heads"),
            std::string::npos);
}

TEST_P(AttentionTest, SameBytesForAnyThreadCount) {
  for (const int64_t count : {1, 5, 200}) {
    const Case c{.count = count, .first_position = 50, .heads = 6, .kv_heads = 2, .head_dim = 32};
    const Inputs in = inputs_for(c);
    expect_same_for_any_thread_count([&] { return run(c, in); });
  }
}

TEST_P(AttentionTest, WrongSizesAreInternalErrors) {
  const Case c{.count = 4, .heads = 4, .kv_heads = 2, .head_dim = 8};
  Inputs in = inputs_for(c);
  Case wrong = c;
  wrong.kv_heads = 3;
  EXPECT_NE(error_of([&] { run(wrong, in); }, ErrorKind::internal).find("multiple of its kv heads"),
            std::string::npos);
  wrong = c;
  wrong.first_position = 4;
  EXPECT_NE(error_of([&] { run(wrong, in); }, ErrorKind::internal).find("past its keys"), std::string::npos);
  wrong = c;
  wrong.head_dim = 7;
  EXPECT_NE(error_of([&] { run(wrong, in); }, ErrorKind::internal).find("query of an attention"),
            std::string::npos);
}

}  // namespace
}  // namespace salient::test
