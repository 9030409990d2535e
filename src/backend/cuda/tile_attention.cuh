#pragma once

#include "backend/cuda/warp_tile.cuh"

namespace salient::cuda {

/// Many rows: each warp of a block has rows of its own, all go over the same tiles of keys and values, one of
/// which is at work while the next is on its way. Keys and values are halves of type T.
template <typename T, int kDim, int kRowTiles, int kTile>
class TileAttention {
 public:
  static constexpr bool kQueriesInShared = kDim * kRowTiles > 128;
  using Warp = WarpTile<T, kDim, kRowTiles, kTile, kQueriesInShared>;
  using Tile = HalfTile<kDim>;
  static constexpr int kRows = kAttentionWarps * Warp::kRows;
  static constexpr int kTileBytes = kTile * Tile::kRowBytes;

  /// The rows that see the most begin first.
  SALIENT_DEVICE explicit TileAttention(const AttentionArguments& a)
      : a_(a),
        sequence_(only_sequence(a)),
        first_row_((simt::grid_x() - 1 - simt::block_x()) * kRows),
        keys_(keys_of_split(a, sequence_, simt::block_z(), first_row_, first_row_ + kRows)) {}

  SALIENT_DEVICE void run() const {
    Warp warp(a_, sequence_, first_row_ + simt::warp() * Warp::kRows,
              2 * kTileBytes + simt::warp() * Warp::kRows * Tile::kRowBytes, true);
    request(a_.keys, keys_.begin, kKeys);
    for (int key = keys_.begin; key < keys_.end; key += kTile) {
      typename Warp::Scores scores = {};
      arrive();
      request(a_.values, key, kValues);
      const bool seen = warp.sees_any(key);
      if (seen) {
        warp.multiply(kKeys, scores);
        warp.weigh(key, scores);
      }
      arrive();
      request(a_.keys, key + kTile, kKeys);
      if (seen) warp.mix(kValues, scores);
    }
    warp.store();
  }

 private:
  static constexpr Tile kKeys{0};
  static constexpr Tile kValues{kTileBytes};

  /// What was requested is there, and nobody reads what was there before it.
  SALIENT_DEVICE static void arrive() {
    simt::copy_wait<0>();
    simt::sync_block();
  }

  /// Rows before the end; zeros behind it, as weights of 0 are multiplied with them.
  SALIENT_DEVICE void request(const RowLayout& layout, int first, Tile tile) const {
    constexpr int kChunks = kDim / kChunkHalves;
    constexpr int kRowsAtOnce = kAttentionThreads / kChunks;
    constexpr auto kRowsOfPage = static_cast<int>(kPageRows);
    if (first >= keys_.end) return;
    const int chunk = simt::thread() % kChunks;
    const int first_row = simt::thread() / kChunks;
    if (chunk >= (layout.dim + 15) / 16 * 2) return;
    std::byte* page = head_of_page(layout, sequence_.blocks, first / kRowsOfPage, simt::block_y());
    const std::byte* from = row_of_page(layout, page, first % kRowsOfPage + first_row) + 16 * chunk;
    const int rows = chunk * kChunkHalves < layout.dim ? keys_.end - first : 0;
    SALIENT_UNROLL for (int row = first_row; row < kTile; row += kRowsAtOnce) {
      simt::copy_async(shared_at<std::byte>(tile.at(row, chunk)), row < rows ? from : page, row < rows);
      from += kRowsAtOnce * layout.row_stride;
    }
    simt::copy_commit();
  }

  const AttentionArguments& a_;
  AttentionSequence sequence_;
  int first_row_;
  KeyRange keys_;
};

/// Grid: rows / (64 kRowTiles), kv heads, splits. With two tiles of rows to a warp what it loads from shared
/// memory, which limits it on an H100, serves twice as many products; of keys registers have room for 32 of
/// wide heads at a time.
template <typename T, int kDim, int kRowTiles, int kTile>
SALIENT_DEVICE void tile_attention(const AttentionArguments& a) {
  TileAttention<T, kDim, kRowTiles, kTile>(a).run();
}

#define SALIENT_TILE_ATTENTION_KERNELS_OF(X, suffix, T)                                       \
  X(tile_attention_64##suffix, AttentionArguments, 128, 3, tile_attention<T, 64, 1, 64>)      \
  X(tile_attention_128##suffix, AttentionArguments, 128, 2, tile_attention<T, 128, 1, 64>)    \
  X(tile_attention_256##suffix, AttentionArguments, 128, 2, tile_attention<T, 256, 1, 64>)    \
  X(tile_attention_64_wide##suffix, AttentionArguments, 128, 2, tile_attention<T, 64, 2, 64>) \
  X(tile_attention_128_wide##suffix, AttentionArguments, 128, 2, tile_attention<T, 128, 2, 32>)
#define SALIENT_TILE_ATTENTION_KERNELS(X) SALIENT_TILE_ATTENTION_KERNELS_OF(X, , simt::F16)
#define SALIENT_TILE_ATTENTION_BF16_KERNELS(X) SALIENT_TILE_ATTENTION_KERNELS_OF(X, _bf16, simt::BF16)

}  // namespace salient::cuda
