#pragma once

#include "backend/cuda/attention_rows.cuh"

namespace salient::cuda {

inline constexpr int kChunk = 8;  // halves that move together, 16 bytes

/// Rows of kDim halves in shared memory, at a multiple of 128 bytes. Chunk c of row r stands where chunk
/// c ^ (r % 8) would: then eight rows of one chunk, which is what a matrix load reads at a time, are on
/// different banks.
template <int kDim>
struct HalfTile {
  int offset;  ///< in shared memory

  SALIENT_DEVICE int at(int row, int chunk) const {
    return offset + row * (2 * kDim) + ((chunk ^ (row % 8)) * 16);
  }
  /// Of chunk c + 2 step from that of a chunk c < 2: one instruction and a constant, instead of an address
  /// for each step, for which registers are missing.
  SALIENT_DEVICE static const std::byte* at_step(int first, int step) {
    return simt::shared_memory<std::byte>() + (first ^ (step % 4 * 32)) + step / 4 * 128;
  }
};

template <typename T>
SALIENT_DEVICE T* shared_at(int offset) {
  return reinterpret_cast<T*>(simt::shared_memory<std::byte>() + offset);
}

SALIENT_DEVICE simt::Words4 halves_of(const float (&x)[kChunk]) {
  simt::Words4 halves;
  SALIENT_UNROLL for (int i = 0; i < 4; ++i) halves.word[i] =
      simt::pack_clamped<simt::F16>(x[2 * i], x[2 * i + 1]);
  return halves;
}

/// Chunk of a row that is not kept as halves.
SALIENT_DEVICE simt::Words4 converted_chunk(const RowLayout& layout, std::byte* page, int row, int chunk) {
  const std::byte* from = row_of_page(layout, page, row);
  float x[kChunk];
  if (layout.type == KvType::int8) {
    const auto words = reinterpret_cast<const simt::Words2*>(from)[chunk];
    const float scale = scales_of_page(layout, page)[row];
    SALIENT_UNROLL for (int i = 0; i < kChunk; ++i) x[i] =
        static_cast<float>(static_cast<int8_t>(words.word[i / 4] >> (i % 4 * 8))) * scale;
  } else {
    const auto* words = reinterpret_cast<const simt::Words4*>(from) + 2 * chunk;
    const simt::Words4 low = simt::load_shared_by_many(words);
    const simt::Words4 high = simt::load_shared_by_many(words + 1);
    SALIENT_UNROLL for (int i = 0; i < kChunk; ++i) x[i] =
        simt::float_of_bits(i < 4 ? low.word[i % 4] : high.word[i % 4]);
  }
  return halves_of(x);
}

/// FlashAttention-2 (Dao 2023): a block keeps 16 rows of queries for each row of its warps and goes over its
/// keys tile by tile; scores, weights and mixtures stay in registers. With kKeyWarps > 1 warps share out the
/// keys of a tile, and what they have is joined at the end: for the few rows of a text that grows token by
/// token. kSlots tiles, keys and values by turns, are at work or on their way.
template <int kDim, int kKeyWarps, int kSlots>
class TileAttention {
 public:
  using Tile = HalfTile<kDim>;
  static constexpr int kRowWarps = kAttentionWarps / kKeyWarps;
  static constexpr int kRows = 16 * kRowWarps;
  static constexpr int kSteps = kDim / 16;
  static constexpr int kWarpKeys = kTileKeys / kKeyWarps;
  static constexpr int kBlocks = kWarpKeys / 8;  ///< of eight keys, what one mma has
  static constexpr int kBlockBytes = 8 * kDim * 2;
  /// Registers hold either.
  static constexpr bool kQueriesInShared = kDim > 128 && kKeyWarps == 1;
  static constexpr int kTileBytes = kTileKeys * kDim * 2;

  SALIENT_DEVICE explicit TileAttention(const AttentionArguments& a)
      : a_(a),
        first_row_((simt::grid_x() - 1 - simt::block_x()) * kRows),  // the rows that see the most first
        warp_row_(first_row_ + simt::warp() % kRowWarps * 16),
        warp_key_(simt::warp() / kRowWarps * kWarpKeys),
        keys_(keys_of_split(a, simt::block_z(), first_row_, first_row_ + kRows)) {
    const int last = a.rows - 1;
    SALIENT_UNROLL for (int i = 0; i < 2; ++i) {
      const int row = warp_row_ + simt::lane() / 4 + 8 * i;
      rows_[i] = attention_row(a, simt::block_y(), simt::grid_y(), row < last ? row : last);
    }
  }

  SALIENT_DEVICE void run() {
    load_queries();
    for (int item = 0; item < kSlots - 1; ++item) request(item);
    int item = 0;
    for (int key = keys_.begin; key < keys_.end; key += kTileKeys, item += 2) {
      float scores[kBlocks][4] = {};
      next_tile(item);
      multiply_keys(slot(item), scores);
      weigh(key + warp_key_, scores);
      next_tile(item + 1);
      mix(slot(item + 1), scores);
    }
    SALIENT_UNROLL for (int i = 0; i < 2; ++i) {
      totals_[i].sum += simt::shuffle_xor(totals_[i].sum, 1);
      totals_[i].sum += simt::shuffle_xor(totals_[i].sum, 2);
    }
    if constexpr (kKeyWarps == 1) {
      store();
    } else {
      simt::copy_wait<0>();
      simt::sync_block();
      lay_out();
      simt::sync_block();
      store_rows_of_block(a_, first_row_, kRows);
    }
  }

 private:
  SALIENT_DEVICE Tile slot(int item) const { return {item % kSlots * kTileBytes}; }
  SALIENT_DEVICE Tile query_tile() const { return {kSlots * kTileBytes}; }
  SALIENT_DEVICE int steps() const { return (a_.keys.dim + 15) / 16; }
  SALIENT_DEVICE int value_steps() const { return (a_.values.dim + 15) / 16; }

  /// Of the tile's rows, keys and values by turns, what is before the end; zeros elsewhere, as weights of 0
  /// are multiplied with them.
  SALIENT_DEVICE void request(int item) const {
    const int first = keys_.begin + item / 2 * kTileKeys;
    if (first < keys_.end) fill(item % 2 == 0 ? a_.keys : a_.values, first, slot(item));
    simt::copy_commit();
  }

  SALIENT_DEVICE void fill(const RowLayout& layout, int first, Tile tile) const {
    constexpr int kChunks = kDim / kChunk;
    constexpr int kRowsAtOnce = kAttentionThreads / kChunks;
    constexpr auto kRowsOfPage = static_cast<int>(kPageRows);
    std::byte* page = head_of_page(layout, first / kRowsOfPage, simt::block_y());
    const int page_row = first % kRowsOfPage;
    const int rows = keys_.end - first;
    const int chunk = simt::thread() % kChunks;
    const int first_row = simt::thread() / kChunks;
    if (chunk >= (layout.dim + 15) / 16 * 2) return;
    if (layout.type == KvType::fp16) {
      const std::byte* from = row_of_page(layout, page, page_row) + 16 * chunk;
      SALIENT_UNROLL for (int row = first_row; row < kTileKeys; row += kRowsAtOnce) {
        const bool inside = row < rows && chunk * kChunk < layout.dim;
        simt::copy_async(shared_at<std::byte>(tile.at(row, chunk)),
                         inside ? from + row * layout.row_stride : page, inside);
      }
      return;
    }
    // More at once would need more registers than there are.
    SALIENT_UNROLL_BY(2) for (int row = first_row; row < kTileKeys; row += kRowsAtOnce) {
      const bool inside = row < rows && chunk * kChunk < layout.dim;
      *shared_at<simt::Words4>(tile.at(row, chunk)) =
          inside ? converted_chunk(layout, page, page_row + row, chunk) : simt::Words4{};
    }
  }

  /// The tile `item` has come; the one kSlots - 1 further on is asked for, where all warps have finished.
  SALIENT_DEVICE void next_tile(int item) const {
    simt::copy_wait<kSlots - 2>();
    simt::sync_block();
    request(item + kSlots - 1);
  }

  /// Two neighbouring features of a lane's row, as halves.
  SALIENT_DEVICE uint32_t query_pair(int row, int feature) const {
    if (feature >= a_.keys.dim) return 0;
    const float* from = a_.query + rows_[row].head * a_.keys.dim + feature;
    return simt::pack_clamped<simt::F16>(from[0], from[1]);
  }

  SALIENT_DEVICE void load_queries() {
    const int column = simt::lane() % 4 * 2;
    SALIENT_UNROLL for (int step = 0; step < kSteps; ++step) {
      SALIENT_UNROLL for (int i = 0; i < 4; ++i) {
        const uint32_t pair = query_pair(i % 2, 16 * step + column + i / 2 * 8);
        if constexpr (kQueriesInShared) {
          const int row = simt::warp() * 16 + simt::lane() / 4 + i % 2 * 8;
          shared_at<uint32_t>(query_tile().at(row, 2 * step + i / 2))[simt::lane() % 4] = pair;
        } else {
          queries_[step][i] = pair;
        }
      }
    }
  }

  SALIENT_DEVICE void query_of(int step, uint32_t (&to)[4]) const {
    if constexpr (kQueriesInShared) {
      const int matrix = simt::lane() / 8;
      const int row = simt::warp() * 16 + matrix % 2 * 8 + simt::lane() % 8;
      simt::load_matrices(to, Tile::at_step(query_tile().at(row, matrix / 2), step));
    } else {
      SALIENT_UNROLL for (int i = 0; i < 4; ++i) to[i] = queries_[step][i];
    }
  }

  SALIENT_DEVICE void multiply_keys(Tile keys, float (&scores)[kBlocks][4]) const {
    const int matrix = simt::lane() / 8;
    const int first = keys.at(warp_key_ + matrix / 2 * 8 + simt::lane() % 8, matrix % 2);
    SALIENT_UNROLL for (int step = 0; step < kSteps; ++step) {
      if (step >= steps()) break;
      uint32_t query[4];
      query_of(step, query);
      SALIENT_UNROLL for (int block = 0; block < kBlocks; block += 2) {
        uint32_t pairs[4];
        simt::load_matrices(pairs, Tile::at_step(first, step) + block * kBlockBytes);
        simt::mma_f16(scores[block], query, pairs[0], pairs[1]);
        simt::mma_f16(scores[block + 1], query, pairs[2], pairs[3]);
      }
    }
  }

  /// Scores of keys from `first` on become weights.
  SALIENT_DEVICE void weigh(int first, float (&scores)[kBlocks][4]) {
    float factor = a_.score_factor;
    if (a_.cap != 0 || a_.slopes != nullptr) {
      adjust(first, scores);
      factor = 1;
    }
    if (!all_seen(first)) hide(first, scores);
    SALIENT_UNROLL for (int i = 0; i < 2; ++i) {
      float highest = -INFINITY;
      SALIENT_UNROLL for (int block = 0; block < kBlocks; ++block) highest =
          fmaxf(highest, fmaxf(scores[block][2 * i], scores[block][2 * i + 1]));
      highest = fmaxf(highest, simt::shuffle_xor(highest, 1));
      highest = fmaxf(highest, simt::shuffle_xor(highest, 2));
      const float rescale = raise(totals_[i], highest * factor);
      SALIENT_UNROLL for (int block = 0; block < kDim / 8; ++block) {
        mixed_[block][2 * i] *= rescale;
        mixed_[block][2 * i + 1] *= rescale;
      }
      const float base = finite_highest(totals_[i].highest);
      SALIENT_UNROLL for (int block = 0; block < kBlocks; ++block) {
        SALIENT_UNROLL for (int j = 2 * i; j < 2 * i + 2; ++j) {
          scores[block][j] = simt::power_of_two(scores[block][j] * factor - base);
          totals_[i].sum += scores[block][j];
        }
      }
    }
  }

  SALIENT_DEVICE int key_of(int first, int block, int element) const {
    return first + 8 * block + simt::lane() % 4 * 2 + element % 2;
  }

  SALIENT_DEVICE void adjust(int first, float (&scores)[kBlocks][4]) const {
    SALIENT_UNROLL for (int block = 0; block < kBlocks; ++block) {
      SALIENT_UNROLL for (int i = 0; i < 4; ++i) {
        const AttentionRow& row = rows_[i / 2];
        scores[block][i] = score_of(a_, scores[block][i], row.slope, key_of(first, block, i) - row.position);
      }
    }
  }

  /// Whether every row of the warp sees all keys of its part of a tile.
  SALIENT_DEVICE bool all_seen(int first) const {
    const int last_row = warp_row_ + 15 < a_.rows ? warp_row_ + 15 : a_.rows - 1;
    const int oldest = a_.first_position + last_row / a_.group - a_.window + 1;
    return first + kWarpKeys - 1 <= a_.first_position + warp_row_ / a_.group && first >= oldest;
  }

  SALIENT_DEVICE void hide(int first, float (&scores)[kBlocks][4]) const {
    SALIENT_UNROLL for (int block = 0; block < kBlocks; ++block) {
      SALIENT_UNROLL for (int i = 0; i < 4; ++i) {
        const int key = key_of(first, block, i);
        if (key > rows_[i / 2].position || key < rows_[i / 2].oldest) scores[block][i] = -INFINITY;
      }
    }
  }

  SALIENT_DEVICE void mix(Tile values, const float (&weights)[kBlocks][4]) {
    const int matrix = simt::lane() / 8;
    const int first = values.at(warp_key_ + matrix % 2 * 8 + simt::lane() % 8, matrix / 2);
    SALIENT_UNROLL for (int block = 0; block < kBlocks; block += 2) {
      uint32_t pairs[4];
      SALIENT_UNROLL for (int i = 0; i < 4; ++i) pairs[i] =
          simt::pack_f16(weights[block + i / 2][i % 2 * 2], weights[block + i / 2][i % 2 * 2 + 1]);
      SALIENT_UNROLL for (int step = 0; step < kSteps; ++step) {
        if (step >= value_steps()) break;
        uint32_t columns[4];
        simt::load_matrices_transposed(columns, Tile::at_step(first, step) + block * kBlockBytes);
        simt::mma_f16(mixed_[2 * step], pairs, columns[0], columns[1]);
        simt::mma_f16(mixed_[2 * step + 1], pairs, columns[2], columns[3]);
      }
    }
  }

  /// Two neighbouring features of a lane's row. A multiple of 8 features: both are inside or none.
  template <typename Store>
  SALIENT_DEVICE void each_pair(const Store& store_pair) const {
    SALIENT_UNROLL for (int block = 0; block < kDim / 8; ++block) {
      if (8 * block >= a_.values.dim) break;
      SALIENT_UNROLL for (int i = 0; i < 2; ++i)
          store_pair(i, 8 * block + simt::lane() % 4 * 2, mixed_[block][2 * i], mixed_[block][2 * i + 1]);
    }
  }

  SALIENT_DEVICE void store() const {
    float* to[2];
    float factor[2];
    SALIENT_UNROLL for (int i = 0; i < 2; ++i) {
      const int row = warp_row_ + simt::lane() / 4 + 8 * i;
      const int64_t index = split_index(a_, simt::block_y(), row, simt::block_z());
      const bool whole = a_.splits == 1;
      to[i] = whole ? a_.output + rows_[i].head * a_.values.dim : a_.mixed + index * a_.values.dim;
      if (row >= a_.rows) to[i] = nullptr;
      factor[i] = whole ? 1 / totals_[i].sum : 1.0f;
      if (!whole && row < a_.rows && simt::lane() % 4 == 0) store_total(a_, index, totals_[i]);
    }
    each_pair([&](int i, int feature, float first, float second) {
      if (to[i] == nullptr) return;
      *reinterpret_cast<simt::Words2*>(to[i] + feature) = {simt::bits_of_float(first * factor[i]),
                                                           simt::bits_of_float(second * factor[i])};
    });
  }

  /// For store_rows_of_block.
  SALIENT_DEVICE void lay_out() const {
    SALIENT_UNROLL for (int i = 0; i < 2; ++i) {
      if (simt::lane() % 4 != 0) continue;
      float* to = warp_sums(a_, kRows, simt::warp(), simt::lane() / 4 + 8 * i);
      to[0] = totals_[i].highest;
      to[1] = totals_[i].sum;
    }
    each_pair([&](int i, int feature, float first, float second) {
      float* to = warp_sums(a_, kRows, simt::warp(), simt::lane() / 4 + 8 * i) + 2 + feature;
      to[0] = first;
      to[1] = second;
    });
  }

  const AttentionArguments& a_;
  int first_row_;
  int warp_row_;
  int warp_key_;  // of the tile
  KeyRange keys_;
  AttentionRow rows_[2];  // lane / 4 and 8 further on
  Total totals_[2];       // sums of the lane alone
  uint32_t queries_[kQueriesInShared ? 1 : kSteps][4];
  float mixed_[kDim / 8][4] = {};
};

/// Grid: rows / kRows, kv heads, splits.
template <int kDim, int kKeyWarps, int kSlots>
SALIENT_DEVICE void tile_attention(const AttentionArguments& a) {
  TileAttention<kDim, kKeyWarps, kSlots>(a).run();
}

#define SALIENT_TILE_ATTENTION_KERNELS(X)                                      \
  X(tile_attention_64, AttentionArguments, 128, 3, tile_attention<64, 1, 2>)   \
  X(tile_attention_128, AttentionArguments, 128, 2, tile_attention<128, 1, 2>) \
  X(tile_attention_256, AttentionArguments, 128, 2, tile_attention<256, 1, 2>) \
  X(row_attention_64, AttentionArguments, 128, 3, tile_attention<64, 4, 4>)    \
  X(row_attention_128, AttentionArguments, 128, 3, tile_attention<128, 4, 4>)  \
  X(row_attention_256, AttentionArguments, 128, 2, tile_attention<256, 4, 3>)

}  // namespace salient::cuda
