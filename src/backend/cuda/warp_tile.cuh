#pragma once

#include "backend/cuda/attention_rows.cuh"

namespace salient::cuda {

inline constexpr int kChunkHalves = 8;  // halves that move together, 16 bytes

template <typename T>
SALIENT_DEVICE T* shared_at(int offset) {
  return reinterpret_cast<T*>(simt::shared_memory<std::byte>() + offset);
}

/// Rows of kDim halves in shared memory, at a multiple of 128 bytes. Chunk c of row r stands where chunk
/// c ^ (r % 8) would: then eight rows of one chunk, which is what a matrix load reads at a time, are on
/// different banks.
template <int kDim>
struct HalfTile {
  static constexpr int kRowBytes = 2 * kDim;
  int offset;  ///< in shared memory

  SALIENT_DEVICE int at(int row, int chunk) const {
    return offset + row * kRowBytes + ((chunk ^ (row % 8)) * 16);
  }
  /// Of chunk c + 2 step from that of a chunk c < 2: one instruction and a constant, instead of an address
  /// for each step, for which registers are missing.
  SALIENT_DEVICE static const std::byte* at_step(int first, int step) {
    return simt::shared_memory<std::byte>() + (first ^ (step % 4 * 32)) + step / 4 * 128;
  }
};

/// What a warp keeps of 16 kRowTiles rows in registers while it goes over their keys, kKeys at a time
/// (FlashAttention-2, Dao 2023): queries, totals and mixtures. Of each sixteen rows a lane has lane / 4 and
/// the one 8 further on, of eight columns two. T is the type of halves: that of keys and values, to which
/// queries and weights are rounded.
template <typename T, int kDim, int kRowTiles, int kKeys, bool kQueriesInShared>
class WarpTile {
 public:
  using Tile = HalfTile<kDim>;
  static constexpr int kRows = 16 * kRowTiles;
  static constexpr int kSteps = kDim / 16;  // of one mma each
  static constexpr int kBlocks = kKeys / 8;
  static constexpr int kBlockBytes = 8 * Tile::kRowBytes;
  using Scores = float[kRowTiles][kBlocks][4];

  /// If queries are in shared memory, `query_offset` is where. The warp that `writes` them and those that
  /// share them with it wait for that before they multiply.
  SALIENT_DEVICE WarpTile(const AttentionArguments& a, const AttentionSequence& sequence, int first_row,
                          int query_offset, bool writes)
      : a_(a), sequence_(sequence), first_row_(first_row), shared_queries_{query_offset} {
    SALIENT_UNROLL for (int tile = 0; tile < kRowTiles; ++tile) {
      SALIENT_UNROLL for (int i = 0; i < 2; ++i) {
        const AttentionRow row = row_at(tile, i);
        positions_[tile][i] = row.position;
        if (!kQueriesInShared || writes) load_queries(tile, i, row);
      }
    }
  }

  /// Whether any row sees any of the keys from `first` on.
  SALIENT_DEVICE bool sees_any(int first) const { return first <= position_of(first_row_ + kRows - 1); }

  /// Products of the queries with kKeys rows of a tile.
  SALIENT_DEVICE void multiply(Tile keys, Scores& scores) const {
    const int matrix = simt::lane() / 8;
    const int first = keys.at(matrix / 2 * 8 + simt::lane() % 8, matrix % 2);
    const int steps = (a_.keys.dim + 15) / 16;
    SALIENT_UNROLL for (int step = 0; step < kSteps; ++step) {
      if (step >= steps) break;
      uint32_t queries[kRowTiles][4];
      SALIENT_UNROLL for (int tile = 0; tile < kRowTiles; ++tile) query_of(tile, step, queries[tile]);
      SALIENT_UNROLL for (int block = 0; block < kBlocks; block += 2) {
        uint32_t pairs[4];
        simt::load_matrices(pairs, Tile::at_step(first, step) + block * kBlockBytes);
        SALIENT_UNROLL for (int tile = 0; tile < kRowTiles; ++tile) {
          T::mma(scores[tile][block], queries[tile], pairs[0], pairs[1]);
          T::mma(scores[tile][block + 1], queries[tile], pairs[2], pairs[3]);
        }
      }
    }
  }

  /// Products with keys from position `first` on become weights.
  SALIENT_DEVICE void weigh(int first, Scores& scores) {
    float factor = a_.score_factor;
    if (a_.cap != 0 || a_.slopes != nullptr) {
      adjust(first, scores);
      factor = 1;
    }
    if (!all_seen(first)) hide(first, scores);
    SALIENT_UNROLL for (int tile = 0; tile < kRowTiles; ++tile) {
      SALIENT_UNROLL for (int i = 0; i < 2; ++i) weigh_row(tile, i, factor, scores[tile]);
    }
  }

  /// Adds kKeys rows of a tile by their weights.
  SALIENT_DEVICE void mix(Tile values, const Scores& weights) {
    const int matrix = simt::lane() / 8;
    const int first = values.at(matrix % 2 * 8 + simt::lane() % 8, matrix / 2);
    const int steps = (a_.values.dim + 15) / 16;
    SALIENT_UNROLL for (int block = 0; block < kBlocks; block += 2) {
      uint32_t pairs[kRowTiles][4];
      SALIENT_UNROLL for (int tile = 0; tile < kRowTiles; ++tile) {
        SALIENT_UNROLL for (int i = 0; i < 4; ++i) {
          const float(&four)[4] = weights[tile][block + i / 2];
          pairs[tile][i] = T::pack(four[i % 2 * 2], four[i % 2 * 2 + 1]);
        }
      }
      SALIENT_UNROLL for (int step = 0; step < kSteps; ++step) {
        if (step >= steps) break;
        uint32_t columns[4];
        simt::load_matrices_transposed(columns, Tile::at_step(first, step) + block * kBlockBytes);
        SALIENT_UNROLL for (int tile = 0; tile < kRowTiles; ++tile) {
          T::mma(mixed_[tile][2 * step], pairs[tile], columns[0], columns[1]);
          T::mma(mixed_[tile][2 * step + 1], pairs[tile], columns[2], columns[3]);
        }
      }
    }
  }

  /// To the workspace or, from a single split, the output. Ends the work of the whole warp.
  SALIENT_DEVICE void store() {
    add_sums();
    SALIENT_UNROLL for (int tile = 0; tile < kRowTiles; ++tile) {
      SALIENT_UNROLL for (int i = 0; i < 2; ++i) store_row(tile, i);
    }
  }

  /// The same into shared memory, for store_rows_of_block.
  SALIENT_DEVICE void lay_out() {
    add_sums();
    SALIENT_UNROLL for (int tile = 0; tile < kRowTiles; ++tile) {
      SALIENT_UNROLL for (int i = 0; i < 2; ++i) {
        float* to = warp_sums(a_, kRows, simt::warp(), row_of(tile, i) - first_row_);
        if (simt::lane() % 4 == 0) {
          to[0] = totals_[tile][i].highest;
          to[1] = totals_[tile][i].sum;
        }
        each_pair(tile, i, [&](int feature, float first, float second) {
          to[2 + feature] = first;
          to[3 + feature] = second;
        });
      }
    }
  }

 private:
  SALIENT_DEVICE int row_of(int tile, int i) const {
    return first_row_ + 16 * tile + simt::lane() / 4 + 8 * i;
  }

  /// Rows past the end are the last.
  SALIENT_DEVICE AttentionRow row_at(int tile, int i) const {
    const int row = row_of(tile, i);
    return attention_row(a_, sequence_, simt::block_y(), simt::grid_y(), row < a_.rows ? row : a_.rows - 1);
  }

  SALIENT_DEVICE void load_queries(int tile, int i, const AttentionRow& from) {
    SALIENT_UNROLL for (int step = 0; step < kSteps; ++step) {
      SALIENT_UNROLL for (int half = 0; half < 2; ++half) {
        const uint32_t pair = query_pair(from, 16 * step + simt::lane() % 4 * 2 + 8 * half);
        if constexpr (kQueriesInShared) {
          const int row = 16 * tile + simt::lane() / 4 + 8 * i;
          shared_at<uint32_t>(shared_queries_.at(row, 2 * step + half))[simt::lane() % 4] = pair;
        } else {
          queries_[tile][step][2 * half + i] = pair;
        }
      }
    }
  }

  /// Two neighbouring features as halves.
  SALIENT_DEVICE uint32_t query_pair(const AttentionRow& row, int feature) const {
    if (feature >= a_.keys.dim) return 0;
    const float* from = a_.query + row.head * a_.keys.dim + feature;
    return simt::pack_clamped<T>(from[0], from[1]);
  }

  SALIENT_DEVICE void query_of(int tile, int step, uint32_t (&to)[4]) const {
    if constexpr (kQueriesInShared) {
      const int matrix = simt::lane() / 8;
      const int first = shared_queries_.at(matrix % 2 * 8 + simt::lane() % 8, matrix / 2);
      simt::load_matrices(to, Tile::at_step(first, step) + tile * 2 * kBlockBytes);
    } else {
      SALIENT_UNROLL for (int i = 0; i < 4; ++i) to[i] = queries_[tile][step][i];
    }
  }

  SALIENT_DEVICE static int key_of(int first, int block, int element) {
    return first + 8 * block + simt::lane() % 4 * 2 + element % 2;
  }

  /// What some families do to their scores. They are scores times log2 e from here on.
  SALIENT_DEVICE void adjust(int first, Scores& scores) const {
    SALIENT_UNROLL for (int tile = 0; tile < kRowTiles; ++tile) {
      const float slopes[2] = {row_at(tile, 0).slope, row_at(tile, 1).slope};
      SALIENT_UNROLL for (int block = 0; block < kBlocks; ++block) {
        SALIENT_UNROLL for (int i = 0; i < 4; ++i) {
          float& score = scores[tile][block][i];
          const int distance = key_of(first, block, i) - positions_[tile][i / 2];
          score = score_of(a_, score, slopes[i / 2], distance);
        }
      }
    }
  }

  /// Whether every row sees all keys from `first` on.
  SALIENT_DEVICE bool all_seen(int first) const {
    const int oldest = position_of(first_row_ + kRows - 1) - a_.window + 1;
    return first + kKeys - 1 <= position_of(first_row_) && first >= oldest;
  }

  SALIENT_DEVICE int position_of(int row) const {
    return sequence_.first_position + (row < a_.rows ? row : a_.rows - 1) / a_.group;
  }

  SALIENT_DEVICE void hide(int first, Scores& scores) const {
    SALIENT_UNROLL for (int tile = 0; tile < kRowTiles; ++tile) {
      SALIENT_UNROLL for (int block = 0; block < kBlocks; ++block) {
        SALIENT_UNROLL for (int i = 0; i < 4; ++i) {
          const int key = key_of(first, block, i);
          if (!sees(a_, positions_[tile][i / 2], key)) scores[tile][block][i] = -INFINITY;
        }
      }
    }
  }

  SALIENT_DEVICE void weigh_row(int tile, int i, float factor, float (&scores)[kBlocks][4]) {
    float highest = -INFINITY;
    SALIENT_UNROLL for (int block = 0; block < kBlocks; ++block) highest =
        fmaxf(highest, fmaxf(scores[block][2 * i], scores[block][2 * i + 1]));
    highest = fmaxf(highest, simt::shuffle_xor(highest, 1));
    highest = fmaxf(highest, simt::shuffle_xor(highest, 2));
    Total& total = totals_[tile][i];
    const float rescale = raise(total, highest * factor);
    if (rescale != 1) {  // rarely but at first
      SALIENT_UNROLL for (int block = 0; block < kDim / 8; ++block) {
        mixed_[tile][block][2 * i] *= rescale;
        mixed_[tile][block][2 * i + 1] *= rescale;
      }
    }
    const float base = finite_highest(total.highest);
    SALIENT_UNROLL for (int block = 0; block < kBlocks; ++block) {
      SALIENT_UNROLL for (int j = 2 * i; j < 2 * i + 2; ++j) {
        scores[block][j] = simt::power_of_two(scores[block][j] * factor - base);
        total.sum += scores[block][j];
      }
    }
  }

  /// Until here each lane has the sum of its own columns.
  SALIENT_DEVICE void add_sums() {
    SALIENT_UNROLL for (int tile = 0; tile < kRowTiles; ++tile) {
      SALIENT_UNROLL for (int i = 0; i < 2; ++i) {
        totals_[tile][i].sum += simt::shuffle_xor(totals_[tile][i].sum, 1);
        totals_[tile][i].sum += simt::shuffle_xor(totals_[tile][i].sum, 2);
      }
    }
  }

  /// A multiple of 8 features: both of a pair are inside or none.
  template <typename Take>
  SALIENT_DEVICE void each_pair(int tile, int i, const Take& take) const {
    SALIENT_UNROLL for (int block = 0; block < kDim / 8; ++block) {
      if (8 * block >= a_.values.dim) break;
      take(8 * block + simt::lane() % 4 * 2, mixed_[tile][block][2 * i], mixed_[tile][block][2 * i + 1]);
    }
  }

  SALIENT_DEVICE void store_row(int tile, int i) const {
    const int row = row_of(tile, i);
    if (row >= a_.rows) return;
    const Total& total = totals_[tile][i];
    float* to = a_.output + row_at(tile, i).head * a_.values.dim;
    float factor = 1 / total.sum;
    if (sequence_.splits.splits > 1) {
      const int64_t index = split_index(a_, sequence_.index, simt::block_y(), row, simt::block_z());
      if (simt::lane() % 4 == 0) store_total(a_, index, total);
      to = a_.mixed + index * a_.values.dim;
      factor = 1;
    }
    each_pair(tile, i, [&](int feature, float first, float second) {
      *reinterpret_cast<simt::Words2*>(to + feature) = {simt::bits_of_float(first * factor),
                                                        simt::bits_of_float(second * factor)};
    });
  }

  const AttentionArguments& a_;
  const AttentionSequence& sequence_;
  int first_row_;
  Tile shared_queries_;
  int positions_[kRowTiles][2];
  Total totals_[kRowTiles][2];
  uint32_t queries_[kQueriesInShared ? 1 : kRowTiles][kQueriesInShared ? 1 : kSteps][4];
  float mixed_[kRowTiles][kDim / 8][4] = {};
};

}  // namespace salient::cuda
