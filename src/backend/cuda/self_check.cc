#include "backend/cuda/self_check.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "base/error.h"
#include "quant/group_quantize.h"

namespace salient::cuda {
namespace {

/// Halves have 8 bits or more, and errors of sums cancel in part.
constexpr double kTolerance = 0.02;

Tensor random_matrix(std::mt19937& generator, int64_t rows, int64_t columns) {
  Tensor result = Tensor::empty(DType::f32, {rows, columns});
  for (float& value : result.mutable_values<float>())
    value = static_cast<float>(generator() % 2001) / 1000.0f - 1.0f;
  return result;
}

/// Largest difference over the largest value.
double difference(const Tensor& found, const Tensor& expected) {
  const auto a = found.values<float>();
  const auto b = expected.values<float>();
  double most = 0;
  double largest = 1e-30;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i])) return INFINITY;
    most = std::max(most, std::abs(double{a[i]} - double{b[i]}));
    largest = std::max(largest, std::abs(double{b[i]}));
  }
  return most / largest;
}

class Check {
 public:
  explicit Check(Backend& backend) : backend_(backend), cpu_(make_cpu_backend()) {}

  std::string run() {
    LinearWeight weight;
    QuantizationScheme scheme;
    scheme.num_bits = 4;
    scheme.group_size = 128;
    scheme.symmetric = false;
    weight.quantized = quantize_to_nearest(random_matrix(generator_, 96, 512), {}, scheme, DType::f16);
    for (const int64_t rows : {1, 20, 300}) product("codes", weight, rows);
    const LinearWeight halves{.dense = random_matrix(generator_, 96, 512).to(DType::bf16)};
    for (const int64_t rows : {1, 20}) product("halves", halves, rows);
    norm();
    rope();
    attention(1);
    attention(80);
    largest();
    for (const KvType type : {KvType::fp16, KvType::bf16, KvType::int8}) {
      for (const int64_t kv_heads : {2, 1}) paged_attention(type, kv_heads, 1);
      paged_attention(type, 2, 20);
      batch(type);
    }
    return wrong_;
  }

 private:
  template <typename Operation>
  void compare(const std::string& what, int64_t rows, int64_t columns, const Operation& operation) {
    Tensor found = Tensor::empty(DType::f32, {rows, columns});
    Tensor expected = Tensor::empty(DType::f32, {rows, columns});
    operation(backend_, found);
    operation(*cpu_, expected);
    const double error = difference(found, expected);
    if (error <= kTolerance || !wrong_.empty()) return;
    wrong_ = fmt::format("{} is off by {:.2g} of the largest value", what, error);
  }

  void product(const char* kind, const LinearWeight& weight, int64_t rows) {
    const Tensor x = random_matrix(generator_, rows, weight.in_features());
    compare(fmt::format("a product of {} rows and {}", rows, kind), rows, weight.out_features(),
            [&](Backend& backend, Tensor& y) { backend.linear(*backend.prepare(weight), x, y); });
  }

  void norm() {
    const Tensor x = random_matrix(generator_, 3, 300);
    const Tensor weight = random_matrix(generator_, 1, 300).reshape({300});
    compare("a norm", 3, 300, [&](Backend& backend, Tensor& y) { backend.rms_norm(x, weight, 1e-5, y); });
  }

  void rope() {
    constexpr int64_t kRows = 3;
    constexpr int64_t kHeadDim = 32;
    const Tensor cosine = random_matrix(generator_, kRows, kHeadDim / 2);
    const Tensor sine = random_matrix(generator_, kRows, kHeadDim / 2);
    const Tensor x = random_matrix(generator_, kRows, 4 * kHeadDim);
    for (const RopePairs pairs : {RopePairs::halves, RopePairs::neighbours}) {
      compare("a rotation", kRows, 4 * kHeadDim, [&](Backend& backend, Tensor& y) {
        std::ranges::copy(x.values<float>(), y.mutable_values<float>().begin());
        backend.rope({.cosine = cosine, .sine = sine, .head_dim = kHeadDim, .pairs = pairs, .x = y});
      });
    }
  }

  void attention(int64_t queries) {
    const Tensor query = random_matrix(generator_, queries, kHeads * kDim);
    const Tensor keys = random_matrix(generator_, kBefore + queries, kKvHeads * kDim);
    const Tensor values = random_matrix(generator_, kBefore + queries, kKvHeads * kDim);
    compare(fmt::format("attention of {} queries", queries), queries, kHeads * kDim,
            [&](Backend& backend, Tensor& output) {
              backend.attention({.query = query,
                                 .keys = keys,
                                 .values = values,
                                 .output = output,
                                 .heads = kHeads,
                                 .kv_heads = kKvHeads,
                                 .head_dim = kDim,
                                 .value_dim = kDim,
                                 .first_position = kBefore,
                                 .window = 0,
                                 .scale = 0.125f});
            });
  }

  /// Tokens are drawn from these.
  void largest() {
    const Tensor x = random_matrix(generator_, 2, 3000);
    const std::vector<float> scales{1.0f, 3.0f};
    const LargestProblem problem{.x = x, .wanted = 20, .scales = scales};
    const LargestValues found = backend_.largest(problem);
    const LargestValues expected = cpu_->largest(problem);
    bool right = found.indices == expected.indices && found.values == expected.values &&
                 found.reaching == expected.reaching;
    for (size_t row = 0; right && row < scales.size(); ++row)
      right = std::abs(found.sums[row] / expected.sums[row] - 1) <= kSumError;
    if (!right && wrong_.empty()) wrong_ = "the largest values of rows are others";
  }

  /// For so many positions of keys and values.
  static std::vector<KvBlock> pages(const KvFormat& format, int64_t positions) {
    std::vector<KvBlock> blocks;
    for (int64_t first = 0; first < positions; first += kPageRows)
      blocks.push_back(std::make_shared<Tensor>(
          Tensor::zeros(DType::u8, {static_cast<int64_t>(2 * format.page_bytes())})));
    return blocks;
  }

  /// Keys and values go through pages of each back end's own.
  void paged_attention(KvType type, int64_t kv_heads, int64_t queries) {
    const KvFormat format{type, kv_heads, kDim};
    const Tensor query = random_matrix(generator_, queries, kHeads * kDim);
    const Tensor keys = random_matrix(generator_, kBefore + queries, kv_heads * kDim);
    const Tensor values = random_matrix(generator_, kBefore + queries, kv_heads * kDim);
    compare(
        fmt::format("attention of {} queries and {} heads to {} cached in {}", queries, kHeads, kv_heads,
                    to_string(type)),
        queries, kHeads * kDim, [&](Backend& backend, Tensor& output) {
          const std::vector<KvBlock> blocks = pages(format, kBefore + queries);
          const KvView cache{.keys = {format, blocks, 0}, .values = {format, blocks, format.page_bytes()}};
          const RowsForCache rows{0, kBefore + queries, 0, cache};
          backend.rope_and_store({.keys = keys, .values = values, .caches = {&rows, 1}});
          backend.attention({.query = query,
                             .cache = &cache,
                             .keys = {},
                             .values = {},
                             .output = output,
                             .heads = kHeads,
                             .kv_heads = kv_heads,
                             .head_dim = kDim,
                             .value_dim = kDim,
                             .first_position = kBefore,
                             .window = 0,
                             .scale = 0.125f});
        });
  }

  /// A token of each of two sequences side by side.
  void batch(KvType type) {
    const KvFormat format{type, kKvHeads, kDim};
    const Tensor query = random_matrix(generator_, 2, kHeads * kDim);
    const Tensor old = random_matrix(generator_, kBefore, kKvHeads * kDim);
    const Tensor keys = random_matrix(generator_, 2, kKvHeads * kDim);
    const Tensor values = random_matrix(generator_, 2, kKvHeads * kDim);
    const Tensor cosine = random_matrix(generator_, 2, kDim / 2);
    const Tensor sine = random_matrix(generator_, 2, kDim / 2);
    compare(fmt::format("attention of two sequences cached in {}", to_string(type)), 2, kHeads * kDim,
            [&](Backend& backend, Tensor& output) {
              std::vector<std::vector<KvBlock>> blocks;
              std::vector<RowsForCache> rows;
              for (const int64_t before : {kBefore, kBefore / 3}) {
                const auto& own = blocks.emplace_back(pages(format, before + 1));
                const KvView cache{.keys = {format, own, 0}, .values = {format, own, format.page_bytes()}};
                const Tensor stored = old.slice(0, before);
                const RowsForCache first{0, before, 0, cache};
                backend.rope_and_store({.keys = stored, .values = stored, .caches = {&first, 1}});
                rows.push_back({std::ssize(rows), 1, before, cache});
              }
              const Tensor rotated = query.duplicate();
              backend.rope_and_store({.query = rotated,
                                      .keys = keys.duplicate(),
                                      .values = values,
                                      .cosine = cosine,
                                      .sine = sine,
                                      .head_dim = kDim,
                                      .caches = rows});
              attend_to_each(backend, rotated, rows, output);
            });
  }

  static void attend_to_each(Backend& backend, const Tensor& query, std::span<const RowsForCache> rows,
                             const Tensor& output) {
    const Tensor none;
    std::vector<Tensor> queries;
    std::vector<Tensor> outputs;
    for (const RowsForCache& row : rows) {
      queries.push_back(query.slice(row.begin, row.begin + 1));
      outputs.push_back(output.slice(row.begin, row.begin + 1));
    }
    std::vector<AttentionProblem> problems;
    for (size_t i = 0; i < rows.size(); ++i)
      problems.push_back({.query = queries[i],
                          .cache = &rows[i].pages,
                          .keys = none,
                          .values = none,
                          .output = outputs[i],
                          .heads = kHeads,
                          .kv_heads = kKvHeads,
                          .head_dim = kDim,
                          .value_dim = kDim,
                          .first_position = rows[i].first,
                          .window = 0,
                          .scale = 0.125f});
    backend.attention(problems);
  }

  static constexpr int64_t kHeads = 4;
  static constexpr int64_t kKvHeads = 2;
  static constexpr int64_t kDim = 64;
  static constexpr int64_t kBefore = 130;

  Backend& backend_;
  std::unique_ptr<Backend> cpu_;
  std::mt19937 generator_{1};
  std::string wrong_;
};

}  // namespace

std::string self_check(Backend& backend) { return Check(backend).run(); }

}  // namespace salient::cuda
