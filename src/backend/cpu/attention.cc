#include "backend/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "backend/cpu/kv_rows.h"
#include "backend/cpu/scratch.h"
#include "backend/cpu/tile_product.h"
#include "base/parallel.h"

namespace salient {
namespace {

/// Rows of scores up to which the dot kernels beat the library.
constexpr int64_t kFewRows = 8;
/// Queries up to which the keys are cut into parts, as when one token is decoded or a few are checked.
constexpr int64_t kFewQueries = 8;
/// Keys of a part, those of a page: with their values 64 KiB of a head of 64, which stay in a second-level
/// cache from one use to the next.
constexpr int64_t kPartKeys = kPageRows;
/// Multiplications that are worth a piece of parallel work, about ten microseconds.
constexpr int64_t kPieceWork = int64_t{1} << 19;
/// Queries that share a pass over the keys. More would compute more scores above the diagonal.
constexpr int64_t kMostQueries = 64;
/// Keys whose scores many queries take at a time, so that what they take stays near whatever the context.
constexpr int64_t kPassKeys = 4 * kPageRows;
/// Scores of one pass, a megabyte, unless a single query has more heads than that.
constexpr int64_t kMostScores = int64_t{1} << 18;

constexpr int64_t kNoHead = -1;

/// The queries [begin, end) of all heads that share one kv head, over some of the keys that any of them sees.
/// Scores have a row per (query, head), so that the small products have many rows and read the keys once for
/// the whole group.
struct Block {
  int64_t kv_head;
  int64_t begin;
  int64_t end;
  int64_t first_key;
  int64_t keys;
  /// Whose keys are read after this block's; of none where many queries share what is read.
  int64_t next_head = kNoHead;
  int64_t next_key = 0;
};

/// The first of the heads in row `query` of queries or outputs that share a kv head.
int64_t heads_of_group(const AttentionProblem& problem, int64_t query, int64_t kv_head) {
  return query * problem.heads + kv_head * (problem.heads / problem.kv_heads);
}

class BlockAttention {
 public:
  BlockAttention(const CpuContext& context, const AttentionProblem& problem, const Block& block)
      : context_(context),
        problem_(problem),
        block_(block),
        group_(problem.heads / problem.kv_heads),
        rows_((block.end - block.begin) * group_),
        queries_(scratch<float>(ScratchUse::queries, rows_ * problem.head_dim)),
        scores_(scratch<float>(ScratchUse::scores, rows_ * block.keys)) {}

  /// What each row mixes of the block's values to `mixed` [rows, value_dim], 0 where it sees none of its
  /// keys; what its softmax divided by to `totals`.
  void run(float* mixed, SoftmaxTotal* totals) {
    gather_queries();
    score();
    for (int64_t row = 0; row < rows_; ++row) totals[row] = normalize(row);
    mix_values(mixed);
  }

  /// The same with products of bf16. Weights stay between 0 and 1 until their products are summed, so that
  /// none is lost below the others' rounding errors.
  void run_in_tiles(float* mixed, SoftmaxTotal* totals) {
    gather_queries();
    score_in_tiles();
    mix_values_in_tiles(weigh_in_tiles(totals), mixed);
    for (int64_t row = 0; row < rows_; ++row) {
      const float factor = totals[row].sum == 0 ? 0.0f : static_cast<float>(1 / totals[row].sum);
      float* values = mixed + row * problem_.value_dim;
      for (int64_t i = 0; i < problem_.value_dim; ++i) values[i] *= factor;
    }
  }

 private:
  /// The block's keys or values.
  KvRows rows(const Tensor& tensor) const {
    const int64_t stride = tensor.dim(1);
    const int64_t dim = stride / problem_.kv_heads;
    return {tensor.values<float>().data() + block_.first_key * stride + block_.kv_head * dim, stride};
  }
  /// Valid until value_rows() is called: expanded keys give way to the values, so that both fit into a
  /// first-level cache.
  KvRows key_rows() const {
    if (problem_.cache == nullptr) return rows(problem_.keys);
    const KvView& cache = *problem_.cache;
    return rows_of(context_.kernels, cache.keys, range(), ScratchUse::cached_rows,
                   next(cache.values, block_.kv_head, block_.first_key));
  }
  KvRows value_rows() const {
    if (problem_.cache == nullptr) return rows(problem_.values);
    const KvView& cache = *problem_.cache;
    return rows_of(context_.kernels, cache.values, range(), ScratchUse::cached_rows,
                   next(cache.keys, block_.next_head, block_.next_key));
  }
  KvNext next(const KvPages& pages, int64_t head, int64_t first) const {
    return block_.next_head == kNoHead ? KvNext{} : KvNext{&pages, head, first};
  }
  KvRange range() const { return {block_.kv_head, block_.first_key, block_.keys}; }

  void gather_queries() {
    const float* in = problem_.query.values<float>().data();
    const int64_t width = group_ * problem_.head_dim;
    for (int64_t query = block_.begin; query < block_.end; ++query) {
      const float* heads = in + heads_of_group(problem_, query, block_.kv_head) * problem_.head_dim;
      float* out = queries_ + (query - block_.begin) * width;
      for (int64_t i = 0; i < width; ++i) out[i] = heads[i] * problem_.scale;
    }
  }

  void score() {
    const KvRows keys = key_rows();
    if (rows_ > kFewRows) {
      return context_.gemm(GemmProblem<float>{.m = rows_,
                                              .n = block_.keys,
                                              .k = problem_.head_dim,
                                              .a = {queries_, problem_.head_dim},
                                              .b = {keys.data, keys.stride, Transposed::yes},
                                              .c = scores_,
                                              .c_stride = block_.keys});
    }
    context_.kernels.dot_short({.x = queries_,
                                .rows = rows_,
                                .x_stride = problem_.head_dim,
                                .weights = keys.data,
                                .weight_stride = keys.stride,
                                .outputs = block_.keys,
                                .depth = problem_.head_dim,
                                .bias = nullptr,
                                .y = scores_,
                                .y_stride = block_.keys});
  }

  void score_in_tiles() {
    const TileKernels& tiles = *context_.tiles;
    const int64_t dim = problem_.head_dim;
    const int64_t stride = depth_tiles(dim) * kTileElements;
    auto* queries = scratch<uint16_t>(ScratchUse::packed_queries, packed_elements(rows_, dim));
    const KvRows keys = key_rows();
    auto* packed = scratch<uint16_t>(ScratchUse::packed_keys, packed_elements(block_.keys, dim));
    tiles.pack_left({queries_, dim, rows_, dim, queries, stride});
    tiles.pack_left({keys.data, keys.stride, block_.keys, dim, packed, stride});
    tiles.transpose(packed, tile_panels(block_.keys) * depth_tiles(dim), packed);
    tiles.multiply({.left = queries,
                    .left_stride = stride,
                    .right = packed,
                    .right_stride = stride,
                    .tiles = depth_tiles(dim),
                    .rows = rows_,
                    .columns = block_.keys,
                    .out = scores_,
                    .out_stride = block_.keys,
                    .accumulate = 0});
  }

  /// A left operand [rows, keys] of e^(score - the row's highest).
  PackedMatrix weigh_in_tiles(SoftmaxTotal* totals) {
    const int64_t tiles = depth_tiles(block_.keys);
    const int64_t stride = tiles * kTileElements;
    auto* weights = scratch<uint16_t>(ScratchUse::packed_queries, packed_elements(rows_, block_.keys));
    for (int64_t row = 0; row < rows_; ++row) {
      uint16_t* out = weights + row / kTileRows * stride + row % kTileRows * kTileDepth;
      const KeyRange seen = keys_of(row);
      if (seen.begin >= seen.end) {
        for (int64_t tile = 0; tile < tiles; ++tile) std::fill_n(out + tile * kTileElements, kTileDepth, 0);
        totals[row] = {-INFINITY, 0};
        continue;
      }
      float* scores = scores_ + row * block_.keys;
      adjust(scores, seen, row);
      std::fill(scores, scores + seen.begin, -INFINITY);
      totals[row] = context_.tiles->attention_weights(
          {.scores = scores, .count = seen.end, .out = out, .out_tiles = tiles});
    }
    return {weights, stride};
  }

  void mix_values_in_tiles(const PackedMatrix& weights, float* mixed) {
    const int64_t stride = depth_tiles(block_.keys) * kTileElements;
    const KvRows values = value_rows();
    auto* packed =
        scratch<uint16_t>(ScratchUse::packed_keys, packed_elements(problem_.value_dim, block_.keys));
    context_.tiles->pack_right({values.data, values.stride, block_.keys, problem_.value_dim, packed, stride});
    context_.tiles->multiply({.left = weights.data,
                              .left_stride = weights.panel_stride,
                              .right = packed,
                              .right_stride = stride,
                              .tiles = depth_tiles(block_.keys),
                              .rows = rows_,
                              .columns = problem_.value_dim,
                              .out = mixed,
                              .out_stride = problem_.value_dim,
                              .accumulate = 0});
  }

  /// Of the block's keys those that a row's query sees; empty where begin is not below end.
  struct KeyRange {
    int64_t begin;
    int64_t end;
  };
  int64_t position_of(int64_t row) const { return problem_.first_position + block_.begin + row / group_; }

  KeyRange keys_of(int64_t row) const {
    const int64_t position = position_of(row);
    const int64_t oldest = problem_.window == 0 ? 0 : std::max<int64_t>(0, position - problem_.window + 1);
    return {std::max<int64_t>(0, oldest - block_.first_key),
            std::min(block_.keys, position + 1 - block_.first_key)};
  }

  /// Softmax over the keys that the row's query sees; the others get weight 0.
  SoftmaxTotal normalize(int64_t row) {
    const KeyRange seen = keys_of(row);
    float* scores = scores_ + row * block_.keys;
    if (seen.begin >= seen.end) {
      std::fill(scores, scores + block_.keys, 0.0f);
      return {-INFINITY, 0};
    }
    std::fill(scores, scores + seen.begin, 0.0f);
    adjust(scores, seen, row);
    const SoftmaxTotal total = context_.kernels.softmax(scores + seen.begin, seen.end - seen.begin);
    std::fill(scores + seen.end, scores + block_.keys, 0.0f);
    return total;
  }

  /// What some families do to the scores of a row before the softmax.
  void adjust(float* scores, const KeyRange& seen, int64_t row) const {
    if (problem_.softcap > 0) {
      for (int64_t i = seen.begin; i < seen.end; ++i)
        scores[i] = problem_.softcap * std::tanh(scores[i] / problem_.softcap);
    }
    if (problem_.slopes.empty()) return;
    const float slope = problem_.slopes[static_cast<size_t>(block_.kv_head * group_ + row % group_)];
    // By the distance from the query, not by the position, which would swamp the scores of long contexts; the
    // softmax is the same.
    const int64_t distance = block_.first_key - position_of(row);
    for (int64_t i = seen.begin; i < seen.end; ++i) scores[i] += slope * static_cast<float>(distance + i);
  }

  void mix_values(float* mixed) {
    const KvRows values = value_rows();
    if (rows_ > kFewRows) {
      return context_.gemm(GemmProblem<float>{.m = rows_,
                                              .n = problem_.value_dim,
                                              .k = block_.keys,
                                              .a = {scores_, block_.keys},
                                              .b = {values.data, values.stride},
                                              .c = mixed,
                                              .c_stride = problem_.value_dim});
    }
    context_.kernels.weighted_sum({.factors = scores_,
                                   .factor_stride = block_.keys,
                                   .rows = rows_,
                                   .count = block_.keys,
                                   .values = values.data,
                                   .stride = values.stride,
                                   .features = problem_.value_dim,
                                   .out = mixed,
                                   .out_stride = problem_.value_dim});
  }

  const CpuContext& context_;
  const AttentionProblem& problem_;
  const Block& block_;
  int64_t group_;
  int64_t rows_;
  float* queries_;  // [rows, head_dim], scaled
  float* scores_;   // [rows, keys]
};

/// Of what a softmax has mixed, beside others the highest of whose scores is `highest`.
double weight_of(const SoftmaxTotal& total, float highest) {
  return total.sum * std::exp(double{total.highest} - double{highest});
}

/// Attention of a few queries, the keys cut into parts at fixed positions, each with a softmax of its own
/// (Dao et al. 2023, "Flash-Decoding"): with m_p the highest score of part p, s_p the sum of e^(score - m_p)
/// and o_p its mixture of values, the whole is sum o_p s_p e^(m_p) / sum s_p e^(m_p). Every head of keys and
/// values is read once for all heads of queries that share it. How the parts are shared out has no bearing on
/// the bytes.
class PartedAttention {
 public:
  /// Of queries [begin, end).
  PartedAttention(const CpuContext& context, const AttentionProblem& problem, int64_t begin, int64_t end)
      : context_(context),
        problem_(problem),
        begin_(begin),
        queries_end_(end),
        group_(problem.heads / problem.kv_heads),
        rows_((end - begin) * group_) {
    const int64_t position = problem.first_position + begin;
    first_key_ = problem.window == 0 ? 0 : std::max<int64_t>(0, position - problem.window + 1);
    end_ = problem.first_position + end;
    parts_ = blocks_of(end_, kPartKeys) - first_key_ / kPartKeys;
    const int64_t softmaxes = problem.kv_heads * parts_ * rows_;
    const auto total_bytes = static_cast<size_t>(softmaxes) * sizeof(SoftmaxTotal);
    std::byte* memory =
        scratch_bytes(ScratchUse::partial_sums,
                      total_bytes + static_cast<size_t>(softmaxes * problem.value_dim) * sizeof(float));
    totals_ = reinterpret_cast<SoftmaxTotal*>(memory);
    mixed_ = reinterpret_cast<float*>(memory + total_bytes);
  }

  void run() {
    const int64_t widths = problem_.head_dim + problem_.value_dim;
    const auto grain_of = [](int64_t work) {
      return static_cast<size_t>(std::max<int64_t>(1, kPieceWork / std::max<int64_t>(1, work)));
    };
    const int64_t longest = std::min(end_ - first_key_, kPartKeys);
    parallel_for(static_cast<size_t>(problem_.kv_heads * parts_), grain_of(rows_ * longest * widths),
                 [&](size_t begin, size_t end) {
                   for (size_t i = begin; i < end; ++i) run_part(static_cast<int64_t>(i));
                 });
    parallel_for(static_cast<size_t>(problem_.kv_heads * rows_), grain_of(parts_ * problem_.value_dim),
                 [&](size_t begin, size_t end) {
                   for (size_t i = begin; i < end; ++i) merge(static_cast<int64_t>(i));
                 });
  }

 private:
  /// The heads of a part are neighbours in memory, and in time.
  void run_part(int64_t index) {
    const int64_t part = index / problem_.kv_heads;
    const int64_t kv_head = index % problem_.kv_heads;
    const int64_t begin = (first_key_ / kPartKeys + part) * kPartKeys;
    const int64_t first = std::max(begin, first_key_);
    const Block block{.kv_head = kv_head,
                      .begin = begin_,
                      .end = queries_end_,
                      .first_key = first,
                      .keys = std::min(begin + kPartKeys, end_) - first,
                      .next_head = kv_head + 1 < problem_.kv_heads ? kv_head + 1 : 0,
                      .next_key = kv_head + 1 < problem_.kv_heads ? first : begin + kPartKeys};
    const int64_t at = (kv_head * parts_ + part) * rows_;
    BlockAttention(context_, problem_, block).run(mixed_ + at * problem_.value_dim, totals_ + at);
  }

  void merge(int64_t index) {
    const int64_t kv_head = index / rows_;
    const int64_t row = index % rows_;
    const int64_t first = kv_head * parts_ * rows_ + row;  // of this row, part after part rows_ further on
    auto* factors = scratch<float>(ScratchUse::factors, parts_);
    float highest = -INFINITY;
    for (int64_t part = 0; part < parts_; ++part)
      highest = std::max(highest, totals_[first + part * rows_].highest);
    const auto weight = [&](int64_t part) { return weight_of(totals_[first + part * rows_], highest); };
    double all = 0;
    for (int64_t part = 0; part < parts_; ++part) all += weight(part);
    for (int64_t part = 0; part < parts_; ++part) factors[part] = static_cast<float>(weight(part) / all);
    const int64_t head = heads_of_group(problem_, begin_ + row / group_, kv_head) + row % group_;
    context_.kernels.weighted_sum(
        {.factors = factors,
         .factor_stride = parts_,
         .rows = 1,
         .count = parts_,
         .values = mixed_ + first * problem_.value_dim,
         .stride = rows_ * problem_.value_dim,
         .features = problem_.value_dim,
         .out = problem_.output.mutable_values<float>().data() + head * problem_.value_dim,
         .out_stride = problem_.value_dim});
  }

  const CpuContext& context_;
  const AttentionProblem& problem_;
  int64_t begin_;
  int64_t queries_end_;
  int64_t group_;
  int64_t rows_;  // queries times heads of a group
  int64_t first_key_;
  int64_t end_;  // of the keys that any query sees
  int64_t parts_;
  SoftmaxTotal* totals_;  // [kv_heads, parts, rows]
  float* mixed_;          // [kv_heads, parts, rows, value_dim]
};

/// Many queries, block by block, each over the keys in passes that begin at fixed positions. What the passes
/// mix is joined as PartedAttention does, one after the other (Dao et al. 2022, "FlashAttention").
class BlockedAttention {
 public:
  BlockedAttention(const CpuContext& context, const AttentionProblem& problem, MatmulPrecision precision)
      : context_(context),
        problem_(problem),
        group_(problem.heads / problem.kv_heads),
        in_tiles_(precision == MatmulPrecision::bf16 && context.tiles != nullptr) {}

  /// Queries [begin, end) of one page.
  void add(int64_t begin, int64_t end) {
    const int64_t pass_keys = std::min(kPassKeys, problem_.first_position + end);
    const int64_t queries = std::clamp<int64_t>(kMostScores / (group_ * pass_keys), 1, kMostQueries);
    for (int64_t first = begin; first < end; first += queries) {
      const int64_t last = std::min(end, first + queries);
      const int64_t oldest = problem_.first_position + first - problem_.window + 1;
      const int64_t first_key = problem_.window == 0 ? 0 : std::max<int64_t>(0, oldest);
      blocks_.push_back({.kv_head = 0,
                         .begin = first,
                         .end = last,
                         .first_key = first_key,
                         .keys = problem_.first_position + last - first_key});
    }
  }

  void run() {
    const auto count = std::ssize(blocks_);
    parallel_for(static_cast<size_t>(count * problem_.kv_heads), 1, [&](size_t from, size_t to) {
      for (auto i = static_cast<int64_t>(from); i < static_cast<int64_t>(to); ++i) {
        // The last queries see the most keys: last, first, last but one, ... so that all shares of threads
        // are alike.
        const int64_t turn = i / problem_.kv_heads;
        Block block = blocks_[static_cast<size_t>(turn % 2 == 0 ? count - 1 - turn / 2 : turn / 2)];
        block.kv_head = i % problem_.kv_heads;
        run_block(block);
      }
    });
  }

 private:
  void run_block(const Block& block) const {
    const int64_t rows = (block.end - block.begin) * group_;
    const int64_t values = rows * problem_.value_dim;
    auto* mixed = scratch<float>(ScratchUse::mixed, 2 * values);
    auto* totals = scratch<SoftmaxTotal>(ScratchUse::partial_sums, 2 * rows);
    const int64_t end = block.first_key + block.keys;
    for (int64_t key = block.first_key; key < end;) {
      Block pass = block;
      pass.first_key = key;
      pass.keys = std::min(end, (key / kPassKeys + 1) * kPassKeys) - key;
      if (key == block.first_key) {
        run_pass(pass, mixed, totals);
      } else {
        run_pass(pass, mixed + values, totals + rows);
        join(rows, mixed, totals);
      }
      key += pass.keys;
    }
    store(block, mixed);
  }

  void run_pass(const Block& pass, float* mixed, SoftmaxTotal* totals) const {
    BlockAttention attention(context_, problem_, pass);
    const bool in_tiles = in_tiles_ && (pass.end - pass.begin) * group_ >= kTileRows;
    in_tiles ? attention.run_in_tiles(mixed, totals) : attention.run(mixed, totals);
  }

  /// Into the first `rows` rows what the next `rows` of the last pass add.
  void join(int64_t rows, float* mixed, SoftmaxTotal* totals) const {
    const int64_t width = problem_.value_dim;
    for (int64_t row = 0; row < rows; ++row) {
      SoftmaxTotal& total = totals[row];
      const SoftmaxTotal& part = totals[rows + row];
      if (part.sum == 0) continue;  // it sees none of the keys
      const float highest = std::max(total.highest, part.highest);
      const double kept = weight_of(total, highest);
      const double added = weight_of(part, highest);
      const auto old_share = static_cast<float>(kept / (kept + added));
      const auto new_share = static_cast<float>(added / (kept + added));
      float* out = mixed + row * width;
      const float* in = out + rows * width;
      for (int64_t i = 0; i < width; ++i) out[i] = old_share * out[i] + new_share * in[i];
      total = {highest, kept + added};
    }
  }

  void store(const Block& block, const float* mixed) const {
    float* out = problem_.output.mutable_values<float>().data();
    const int64_t width = group_ * problem_.value_dim;
    for (int64_t query = block.begin; query < block.end; ++query, mixed += width)
      std::copy(mixed, mixed + width,
                out + heads_of_group(problem_, query, block.kv_head) * problem_.value_dim);
  }

  const CpuContext& context_;
  const AttentionProblem& problem_;
  int64_t group_;
  bool in_tiles_;
  std::vector<Block> blocks_;
};

}  // namespace

void attend(const CpuContext& context, const AttentionProblem& problem, MatmulPrecision precision) {
  const int64_t count = problem.query.dim(0);
  BlockedAttention many(context, problem, precision);
  for (int64_t begin = 0; begin < count;) {
    const int64_t position = problem.first_position + begin;
    const int64_t end = std::min(count, begin + kPageRows - position % kPageRows);
    if (end - begin <= kFewQueries) {
      PartedAttention(context, problem, begin, end).run();
    } else {
      many.add(begin, end);
    }
    begin = end;
  }
  many.run();
}

}  // namespace salient
