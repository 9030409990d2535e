#include "backend/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "backend/cpu/scratch.h"
#include "backend/cpu/tile_product.h"
#include "base/parallel.h"

namespace salient {
namespace {

/// Rows of scores up to which the dot kernels beat the library.
constexpr int64_t kFewRows = 8;
/// Queries that share a pass over the keys. More would compute more scores above the diagonal.
constexpr int64_t kMostQueries = 64;
/// Scores of one block, a megabyte.
constexpr int64_t kMostScores = int64_t{1} << 18;

/// The queries [begin, end) of all heads that share one kv head, over the keys that any of them sees. Scores
/// have a row per (query, head), so that the small products have many rows and read the keys once for the
/// whole group.
struct Block {
  int64_t kv_head;
  int64_t begin;
  int64_t end;
  int64_t first_key;
  int64_t keys;
};

class BlockAttention {
 public:
  BlockAttention(const CpuContext& context, const AttentionProblem& problem, const Block& block)
      : context_(context),
        problem_(problem),
        block_(block),
        group_(problem.heads / problem.kv_heads),
        rows_((block.end - block.begin) * group_),
        key_stride_(problem.kv_heads * problem.head_dim),
        value_stride_(problem.kv_heads * problem.value_dim),
        queries_(scratch<float>(ScratchUse::queries, rows_ * problem.head_dim)),
        scores_(scratch<float>(ScratchUse::scores, rows_ * block.keys)),
        mixed_(scratch<float>(ScratchUse::mixed, rows_ * problem.value_dim)) {}

  void run() {
    gather_queries();
    score();
    for (int64_t row = 0; row < rows_; ++row) normalize(row);
    mix_values();
    scatter();
  }

  /// The same with products of bf16. Weights stay between 0 and 1 until their products are summed, so that
  /// none is lost below the others' rounding errors.
  void run_in_tiles() {
    gather_queries();
    score_in_tiles();
    auto* factors = scratch<float>(ScratchUse::factors, rows_);
    const PackedMatrix weights = weigh_in_tiles(factors);
    mix_values_in_tiles(weights);
    for (int64_t row = 0; row < rows_; ++row) {
      float* mixed = mixed_ + row * problem_.value_dim;
      for (int64_t i = 0; i < problem_.value_dim; ++i) mixed[i] *= factors[row];
    }
    scatter();
  }

 private:
  /// Where the heads of this group, each `width` wide, lie in row `query` of the query or output tensor.
  int64_t offset(int64_t query, int64_t width) const {
    return (query * problem_.heads + block_.kv_head * group_) * width;
  }

  void gather_queries() {
    const float* in = problem_.query.values<float>().data();
    const int64_t width = group_ * problem_.head_dim;
    for (int64_t query = block_.begin; query < block_.end; ++query) {
      float* out = queries_ + (query - block_.begin) * width;
      for (int64_t i = 0; i < width; ++i) out[i] = in[offset(query, problem_.head_dim) + i] * problem_.scale;
    }
  }

  void score() {
    const float* keys = first_key();
    if (rows_ > kFewRows) {
      return context_.gemm(GemmProblem<float>{.m = rows_,
                                              .n = block_.keys,
                                              .k = problem_.head_dim,
                                              .a = {queries_, problem_.head_dim},
                                              .b = {keys, key_stride_, Transposed::yes},
                                              .c = scores_,
                                              .c_stride = block_.keys});
    }
    context_.kernels.dot_f32({.x = queries_,
                              .rows = rows_,
                              .x_stride = problem_.head_dim,
                              .weights = keys,
                              .weight_stride = key_stride_,
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
    auto* keys = scratch<uint16_t>(ScratchUse::packed_keys, packed_elements(block_.keys, dim));
    tiles.pack_left({queries_, dim, rows_, dim, queries, stride});
    tiles.pack_left({first_key(), key_stride_, block_.keys, dim, keys, stride});
    tiles.transpose(keys, tile_panels(block_.keys) * depth_tiles(dim), keys);
    tiles.multiply({.left = queries,
                    .left_stride = stride,
                    .right = keys,
                    .right_stride = stride,
                    .tiles = depth_tiles(dim),
                    .rows = rows_,
                    .columns = block_.keys,
                    .out = scores_,
                    .out_stride = block_.keys,
                    .accumulate = 0});
  }

  /// A left operand [rows, keys]; what each row of its product has to be multiplied by goes to `factors`.
  PackedMatrix weigh_in_tiles(float* factors) {
    const int64_t tiles = depth_tiles(block_.keys);
    const int64_t stride = tiles * kTileElements;
    auto* weights = scratch<uint16_t>(ScratchUse::packed_queries, packed_elements(rows_, block_.keys));
    for (int64_t row = 0; row < rows_; ++row) {
      const KeyRange seen = keys_of(row);
      float* scores = scores_ + row * block_.keys;
      adjust(scores, seen.begin, seen.end, row % group_);
      std::fill(scores, scores + seen.begin, -INFINITY);
      factors[row] = context_.tiles->attention_weights(
          {.scores = scores,
           .count = seen.end,
           .out = weights + row / kTileRows * stride + row % kTileRows * kTileDepth,
           .out_tiles = tiles});
    }
    return {weights, stride};
  }

  void mix_values_in_tiles(const PackedMatrix& weights) {
    const int64_t stride = depth_tiles(block_.keys) * kTileElements;
    auto* values =
        scratch<uint16_t>(ScratchUse::packed_keys, packed_elements(problem_.value_dim, block_.keys));
    context_.tiles->pack_right(
        {first_value(), value_stride_, block_.keys, problem_.value_dim, values, stride});
    context_.tiles->multiply({.left = weights.data,
                              .left_stride = weights.panel_stride,
                              .right = values,
                              .right_stride = stride,
                              .tiles = depth_tiles(block_.keys),
                              .rows = rows_,
                              .columns = problem_.value_dim,
                              .out = mixed_,
                              .out_stride = problem_.value_dim,
                              .accumulate = 0});
  }

  const float* first_key() const {
    return problem_.keys.values<float>().data() + block_.first_key * key_stride_ +
           block_.kv_head * problem_.head_dim;
  }
  const float* first_value() const {
    return problem_.values.values<float>().data() + block_.first_key * value_stride_ +
           block_.kv_head * problem_.value_dim;
  }

  /// Of the block's keys those that a row's query sees.
  struct KeyRange {
    int64_t begin;
    int64_t end;
  };
  KeyRange keys_of(int64_t row) const {
    const int64_t position = problem_.first_position + block_.begin + row / group_;
    const int64_t oldest = problem_.window == 0 ? 0 : std::max<int64_t>(0, position - problem_.window + 1);
    return {oldest - block_.first_key, position + 1 - block_.first_key};
  }

  /// Softmax over the keys that the row's query sees; the others get weight 0.
  void normalize(int64_t row) {
    const KeyRange seen = keys_of(row);
    float* scores = scores_ + row * block_.keys;
    std::fill(scores, scores + seen.begin, 0.0f);
    adjust(scores, seen.begin, seen.end, row % group_);
    context_.kernels.softmax(scores + seen.begin, seen.end - seen.begin);
    std::fill(scores + seen.end, scores + block_.keys, 0.0f);
  }

  /// What some families do to the scores [begin, end) of a row before the softmax.
  void adjust(float* scores, int64_t begin, int64_t end, int64_t head_of_group) const {
    if (problem_.softcap > 0) {
      for (int64_t i = begin; i < end; ++i)
        scores[i] = problem_.softcap * std::tanh(scores[i] / problem_.softcap);
    }
    if (problem_.slopes.empty()) return;
    const float slope = problem_.slopes[static_cast<size_t>(block_.kv_head * group_ + head_of_group)];
    for (int64_t i = begin; i < end; ++i) scores[i] += slope * static_cast<float>(block_.first_key + i);
  }

  void mix_values() {
    const float* values = first_value();
    if (rows_ > kFewRows) {
      return context_.gemm(GemmProblem<float>{.m = rows_,
                                              .n = problem_.value_dim,
                                              .k = block_.keys,
                                              .a = {scores_, block_.keys},
                                              .b = {values, value_stride_},
                                              .c = mixed_,
                                              .c_stride = problem_.value_dim});
    }
    for (int64_t row = 0; row < rows_; ++row) {
      context_.kernels.weighted_sum({.factors = scores_ + row * block_.keys,
                                     .count = block_.keys,
                                     .values = values,
                                     .stride = value_stride_,
                                     .features = problem_.value_dim,
                                     .out = mixed_ + row * problem_.value_dim});
    }
  }

  void scatter() {
    float* out = problem_.output.mutable_values<float>().data();
    const int64_t width = group_ * problem_.value_dim;
    for (int64_t query = block_.begin; query < block_.end; ++query) {
      const float* in = mixed_ + (query - block_.begin) * width;
      std::copy(in, in + width, out + offset(query, problem_.value_dim));
    }
  }

  const CpuContext& context_;
  const AttentionProblem& problem_;
  const Block& block_;
  int64_t group_;
  int64_t rows_;
  int64_t key_stride_;
  int64_t value_stride_;
  float* queries_;  // [rows, head_dim], scaled
  float* scores_;   // [rows, keys]
  float* mixed_;    // [rows, value_dim]
};

}  // namespace

void attend(const CpuContext& context, const AttentionProblem& problem, MatmulPrecision precision) {
  const int64_t count = problem.query.dim(0);
  if (count == 0) return;
  const int64_t group = problem.heads / problem.kv_heads;
  const int64_t most_keys = problem.first_position + count;
  const int64_t queries = std::clamp<int64_t>(kMostScores / (group * most_keys), 1, kMostQueries);
  const int64_t blocks = (count + queries - 1) / queries;
  const bool in_tiles =
      precision == MatmulPrecision::bf16 && context.tiles != nullptr && queries * group >= kTileRows;
  parallel_for(static_cast<size_t>(blocks * problem.kv_heads), 1, [&](size_t from, size_t to) {
    for (size_t i = from; i < to; ++i) {
      // The last queries see the most keys: the longest pieces start first and the shortest fill the gaps.
      const int64_t index = blocks - 1 - static_cast<int64_t>(i) / problem.kv_heads;
      const int64_t begin = index * queries;
      const int64_t end = std::min(count, begin + queries);
      const int64_t oldest = problem.first_position + begin - problem.window + 1;
      const int64_t first_key = problem.window == 0 ? 0 : std::max<int64_t>(0, oldest);
      const Block block{.kv_head = static_cast<int64_t>(i) % problem.kv_heads,
                        .begin = begin,
                        .end = end,
                        .first_key = first_key,
                        .keys = problem.first_position + end - first_key};
      BlockAttention attention(context, problem, block);
      in_tiles ? attention.run_in_tiles() : attention.run();
    }
  });
}

}  // namespace salient
