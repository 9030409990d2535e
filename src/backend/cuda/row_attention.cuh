#pragma once

#include <type_traits>

#include "backend/cuda/warp_tile.cuh"

namespace salient::cuda {

/// Few rows, as of a text that grows token by token: every warp of a block has the same 16 rows and its own
/// part of the keys of a tile, so that it waits for none but itself; what warps have is joined at the end.
/// kSlots parts, keys and values by turns, are at work or on their way: 12 KiB and more to a warp on their
/// way, beside 40 KiB to a multiprocessor that an H100 needs to read at the speed of its memory.
template <typename T, int kDim, int kSlots>
class RowAttention {
 public:
  static constexpr int kKeys = kTileKeys / kAttentionWarps;
  static constexpr bool kQueriesInShared = kDim >= 128;
  /// Codes become halves of f16: its 11 bits hold them and their scale.
  static constexpr bool kTakesCodes = std::is_same_v<T, simt::F16>;
  using Warp = WarpTile<T, kDim, 1, kKeys, kQueriesInShared>;
  using Tile = HalfTile<kDim>;
  static constexpr int kTileBytes = kKeys * Tile::kRowBytes;
  static constexpr int kSlotBytes = kAttentionWarps * kSlots * kTileBytes;
  static constexpr int kScaleBytes = kAttentionWarps * kSlots * kKeys * 4;

  SALIENT_DEVICE explicit RowAttention(const AttentionArguments& a)
      : a_(a),
        sequence_(sequence_of_block(a)),
        first_row_(simt::block_x() * Warp::kRows),
        keys_(keys_of_split(a, sequence_, split_of_block(a), first_row_, first_row_ + Warp::kRows)) {}

  SALIENT_DEVICE void run() const {
    if (split_of_block(a_) >= sequence_.splits.splits) return;  // the whole block
    for (int item = 0; item < kSlots - 1; ++item) request(item);
    Warp warp(a_, sequence_, first_row_, kSlotBytes + kScaleBytes, simt::warp() == 0);
    if constexpr (kQueriesInShared) simt::sync_block();
    int item = 0;
    for (int key = first_key(0); key < keys_.end; key += kTileKeys, item += 2) {
      typename Warp::Scores scores = {};
      arrive(item);
      warp.multiply(slot(item), scores);
      warp.weigh(key, scores);
      arrive(item + 1);
      warp.mix(slot(item + 1), scores);
    }
    simt::copy_wait<0>();
    simt::sync_block();
    warp.lay_out();
    simt::sync_block();
    store_rows_of_block(a_, first_row_, Warp::kRows);
  }

 private:
  SALIENT_DEVICE int first_key(int item) const {
    return keys_.begin + item / 2 * kTileKeys + simt::warp() * kKeys;
  }
  SALIENT_DEVICE static Tile slot(int item) { return {(simt::warp() * kSlots + item % kSlots) * kTileBytes}; }
  SALIENT_DEVICE const RowLayout& layout_of_item(int item) const {
    return item % 2 == 0 ? a_.keys : a_.values;
  }

  SALIENT_DEVICE static bool of_codes(const RowLayout& layout) {
    return kTakesCodes && layout.type == KvType::int8;
  }

  /// Item `item` is there for all lanes; the next may take the place of the last.
  SALIENT_DEVICE void arrive(int item) const {
    simt::copy_wait<kSlots - 2>();
    simt::sync_warp();
    if (of_codes(layout_of_item(item))) expand(item);
    request(item + kSlots - 1);
  }

  SALIENT_DEVICE void request(int item) const {
    constexpr auto kRowsOfPage = static_cast<int>(kPageRows);
    const int first = first_key(item);
    const RowLayout& layout = layout_of_item(item);
    if (first < keys_.end) {
      std::byte* page = head_of_page(layout, sequence_.blocks, first / kRowsOfPage, simt::block_y());
      if (of_codes(layout)) {
        request_codes(layout, page, first % kRowsOfPage, slot(item));
      } else {
        request_halves(layout, page, first, slot(item));
      }
    }
    simt::copy_commit();  // of nothing too, so that all items count alike
  }

  /// Rows before the end; zeros behind it, as weights of 0 are multiplied with them.
  SALIENT_DEVICE void request_halves(const RowLayout& layout, std::byte* page, int first, Tile tile) const {
    constexpr int kChunks = kDim / kChunkHalves;
    constexpr int kRowsAtOnce = simt::kWarp / kChunks;
    constexpr auto kRowsOfPage = static_cast<int>(kPageRows);
    const int chunk = simt::lane() % kChunks;
    const int first_row = simt::lane() / kChunks;
    if (chunk >= (layout.dim + 15) / 16 * 2) return;
    const std::byte* from = row_of_page(layout, page, first % kRowsOfPage + first_row) + 16 * chunk;
    const int rows = chunk * kChunkHalves < layout.dim ? keys_.end - first : 0;
    SALIENT_UNROLL for (int row = first_row; row < kKeys; row += kRowsAtOnce) {
      simt::copy_async(shared_at<std::byte>(tile.at(row, chunk)), row < rows ? from : page, row < rows);
      from += kRowsAtOnce * layout.row_stride;
    }
  }

  /// Codes are a run of kKeys dim bytes in their page, scales another. They wait in the second half of the
  /// slot and behind all slots.
  SALIENT_DEVICE static void request_codes(const RowLayout& layout, std::byte* page, int row, Tile tile) {
    const std::byte* codes = row_of_page(layout, page, row);
    const int lane = simt::lane();
    for (int i = lane; i < layout.dim; i += simt::kWarp)
      simt::copy_async(shared_at<std::byte>(tile.offset + kTileBytes / 2 + 16 * i), codes + 16 * i);
    if (lane < kKeys / 4)
      simt::copy_async(scales_of(tile) + 4 * lane, scales_of_page(layout, page) + row + 4 * lane);
  }

  SALIENT_DEVICE static float* scales_of(Tile tile) {
    return shared_at<float>(kSlotBytes) + tile.offset / kTileBytes * kKeys;
  }

  /// Codes of a slot become halves in the same place. The first half of the rows goes where no codes are, the
  /// second where they were, by way of registers.
  SALIENT_DEVICE void expand(int item) const {
    constexpr int kChunks = kDim / kChunkHalves;
    constexpr int kRowsAtOnce = simt::kWarp / kChunks;
    constexpr int kTimes = kKeys / kRowsAtOnce / 2;
    const Tile tile = slot(item);
    const int dim = layout_of_item(item).dim;
    const int chunk = simt::lane() % kChunks;
    const int rows = chunk * kChunkHalves < dim ? keys_.end - first_key(item) : 0;
    SALIENT_UNROLL for (int half = 0; half < 2; ++half) {
      const int first_row = half * (kKeys / 2) + simt::lane() / kChunks;
      simt::Words2 codes[kTimes];
      SALIENT_UNROLL for (int i = 0; i < kTimes; ++i) {
        const int from = (i * kRowsAtOnce + first_row) * dim + kChunkHalves * chunk;
        codes[i] = chunk * kChunkHalves < dim ? *shared_at<simt::Words2>(tile.offset + kTileBytes / 2 + from)
                                              : simt::Words2{};
      }
      simt::sync_warp();
      SALIENT_UNROLL for (int i = 0; i < kTimes; ++i) {
        const int row = i * kRowsAtOnce + first_row;
        *shared_at<simt::Words4>(tile.at(row, chunk)) =
            row < rows ? halves_of(codes[i], scales_of(tile)[row]) : simt::Words4{};
      }
    }
    simt::sync_warp();
  }

  const AttentionArguments& a_;
  AttentionSequence sequence_;
  int first_row_;
  KeyRange keys_;
};

/// Grid: rows / 16, kv heads, sequences * splits.
template <typename T, int kDim, int kSlots>
SALIENT_DEVICE void row_attention(const AttentionArguments& a) {
  RowAttention<T, kDim, kSlots>(a).run();
}

#define SALIENT_ROW_ATTENTION_KERNELS_OF(X, suffix, T)                               \
  X(row_attention_64##suffix, AttentionArguments, 128, 3, row_attention<T, 64, 4>)   \
  X(row_attention_128##suffix, AttentionArguments, 128, 3, row_attention<T, 128, 4>) \
  X(row_attention_256##suffix, AttentionArguments, 128, 2, row_attention<T, 256, 2>)
#define SALIENT_ROW_ATTENTION_KERNELS(X) SALIENT_ROW_ATTENTION_KERNELS_OF(X, , simt::F16)
#define SALIENT_ROW_ATTENTION_BF16_KERNELS(X) SALIENT_ROW_ATTENTION_KERNELS_OF(X, _bf16, simt::BF16)

}  // namespace salient::cuda
