#pragma once

#include <cmath>

#include "backend/cuda/attention.h"
#include "backend/cuda/row_layout.cuh"

namespace salient::cuda {

inline constexpr int kAttentionWarps = kAttentionThreads / simt::kWarp;

/// A sequence of a launch. Where registers are scarce it is better asked for twice than kept.
struct AttentionSequence {
  std::byte* const* blocks;
  int first_position;
  int index;  ///< of the launch's
  int row;    ///< of the batch's queries, where its own begin
  KeySplits splits;
};

SALIENT_DEVICE AttentionSequence only_sequence(const AttentionArguments& a) {
  return {
      .blocks = a.keys.blocks, .first_position = a.first_position, .index = 0, .row = 0, .splits = a.splits};
}

SALIENT_DEVICE AttentionSequence sequence_of_launch(const AttentionArguments& a, int index) {
  if (a.batch == nullptr) return only_sequence(a);
  const BatchRow& own = a.batch[index];
  return {.blocks = own.blocks,
          .first_position = own.position,
          .index = index,
          .row = own.row,
          .splits = splits_of_keys(a.rule, a.window, own.position, own.position + 1)};
}

/// Grids have the splits of one sequence after the other along z.
SALIENT_DEVICE AttentionSequence sequence_of_block(const AttentionArguments& a) {
  return sequence_of_launch(a, simt::block_z() / a.most_splits);
}
SALIENT_DEVICE int split_of_block(const AttentionArguments& a) { return simt::block_z() % a.most_splits; }

/// A row of queries: where it stands and where it goes.
struct AttentionRow {
  int position;
  float slope;   ///< times log2 e
  int64_t head;  ///< of all queries' heads, one after the other
};

SALIENT_DEVICE AttentionRow attention_row(const AttentionArguments& a, const AttentionSequence& sequence,
                                          int kv_head, int kv_heads, int row) {
  const int query = row / a.group;
  const int head = kv_head * a.group + row % a.group;
  return {.position = sequence.first_position + query,
          .slope = a.slopes == nullptr ? 0.0f : a.slopes[head] * kLog2E,
          .head = int64_t{sequence.row + query} * kv_heads * a.group + head};
}

/// Keys behind a query's position come out as far more than any window.
SALIENT_DEVICE bool sees(const AttentionArguments& a, int position, int key) {
  return static_cast<unsigned>(position - key) < static_cast<unsigned>(a.window);
}

/// What the softmax reads, times log2 e.
SALIENT_DEVICE float score_of(const AttentionArguments& a, float product, float slope, int distance) {
  float score = product * a.score_factor;
  if (a.cap != 0) score = tanhf(score) * a.cap;
  return score + slope * static_cast<float>(distance);
}

/// Keys [begin, end) that a block works on: of its split those that any of rows [first_row, end_row) sees.
/// Begins with a tile.
struct KeyRange {
  int begin;
  int end;
};

SALIENT_DEVICE KeyRange keys_of_split(const AttentionArguments& a, const AttentionSequence& sequence,
                                      int split, int first_row, int end_row) {
  const int split_begin = sequence.splits.first_key + split * sequence.splits.split_keys;
  const int last = sequence.first_position + ((end_row < a.rows ? end_row : a.rows) - 1) / a.group;
  int oldest = sequence.first_position + first_row / a.group - a.window + 1;
  oldest = (oldest > 0 ? oldest : 0) / kTileKeys * kTileKeys;
  const int split_end = split_begin + sequence.splits.split_keys;
  return {.begin = split_begin > oldest ? split_begin : oldest,
          .end = split_end < last + 1 ? split_end : last + 1};
}

/// The highest score and the sum of 2^(score - highest).
struct Total {
  float highest = -INFINITY;
  float sum = 0;
};

/// 0 for a row that has seen nothing, so that nothing minus nothing is no NaN.
SALIENT_DEVICE float finite_highest(float highest) { return highest == -INFINITY ? 0.0f : highest; }

/// Makes room for scores up to `highest`; gives what everything so far is to be multiplied by.
SALIENT_DEVICE float raise(Total& total, float highest) {
  const float raised = fmaxf(total.highest, highest);
  const float factor = simt::power_of_two(total.highest - finite_highest(raised));
  total.highest = raised;
  total.sum *= factor;
  return factor;
}

/// Where a row's total and mixture stand in the workspace.
SALIENT_DEVICE int64_t split_index(const AttentionArguments& a, int sequence, int kv_head, int row,
                                   int split) {
  const int64_t head = int64_t{sequence} * simt::grid_y() + kv_head;
  return (head * a.rows + row) * a.most_splits + split;
}

SALIENT_DEVICE void store_total(const AttentionArguments& a, int64_t index, const Total& total) {
  a.totals[2 * index] = total.highest;
  a.totals[2 * index + 1] = total.sum;
}

/// What the warps of a block have of a row, in shared memory: [warps][rows][2 + value_dim], the total first.
SALIENT_DEVICE float* warp_sums(const AttentionArguments& a, int rows, int warp, int row) {
  return simt::shared_memory<float>() + (warp * rows + row) * (a.values.dim + 2);
}

/// Rows that all warps have laid out, warp after warp, to the workspace or, from a single split, the output.
SALIENT_DEVICE void store_rows_of_block(const AttentionArguments& a, int first_row, int rows) {
  const AttentionSequence sequence = sequence_of_block(a);
  const int kv_head = simt::block_y();
  const int dim = a.values.dim;
  for (int i = simt::thread(); i < rows * dim; i += simt::block_threads()) {
    const int row = i / dim;
    const int feature = i % dim;
    if (first_row + row >= a.rows) return;
    Total total;
    float mixed = 0;
    for (int warp = 0; warp < kAttentionWarps; ++warp) {
      const float* from = warp_sums(a, rows, warp, row);
      const float own = raise(total, from[0]);
      const float added = simt::power_of_two(from[0] - finite_highest(total.highest));
      total.sum += added * from[1];
      mixed = own * mixed + added * from[2 + feature];
    }
    if (sequence.splits.splits == 1) {
      const int64_t head = attention_row(a, sequence, kv_head, simt::grid_y(), first_row + row).head;
      a.output[head * dim + feature] = mixed / total.sum;
      continue;
    }
    const int64_t index = split_index(a, sequence.index, kv_head, first_row + row, split_of_block(a));
    if (feature == 0) store_total(a, index, total);
    a.mixed[index * dim + feature] = mixed;
  }
}

}  // namespace salient::cuda
