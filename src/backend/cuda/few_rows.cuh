#pragma once

#include "backend/cuda/linear_tiles.cuh"

namespace salient::cuda {

/// What a warp of FewRows reads of W, in shared memory of its own: a ring of kRing chunks of its row blocks,
/// kRing - 1 of which are on their way while it works on one. No other warp has to be waited for.
template <typename Format>
class WarpRing {
 public:
  using Factors = FactorCopies<Format, Format::kRowBlocks, Format::kChunkTiles>;
  static constexpr int kPartPieces = Format::kWords * simt::kWarp;  ///< of 16 bytes, of a tile of a row block
  static constexpr int kRowPieces = Format::kChunkTiles * kPartPieces;
  static constexpr int kWeightPieces = Format::kRowBlocks * kRowPieces;
  static constexpr int kChunkPieces = kWeightPieces + Factors::kPieces;
  static constexpr int kPieces = Format::kRing * kChunkPieces;

  SALIENT_DEVICE WarpRing(const LinearArguments& a, const TileRange& chunks, int first_block, Words4* shared)
      : factors_(a, first_block), shared_(shared), next_(chunks.begin), end_(chunks.end) {
    const int first_tile = chunks.begin * Format::kChunkTiles;
    SALIENT_UNROLL
    for (int r = 0; r < Format::kRowBlocks; ++r)
      weight_[r] = a.weight + simt::lane() +
                   (int64_t{existing(a, first_block + r)} * a.tiles + first_tile) * kPartPieces;
    SALIENT_UNROLL
    for (int i = 0; i < Format::kRing - 1; ++i) begin_copies();
  }

  /// Waits for the next chunk, and begins to copy the one that takes the place of the last.
  SALIENT_DEVICE const Words4* next_chunk() {
    simt::copy_wait<Format::kRing - 2>();
    simt::sync_warp();  // lanes read factors that others have copied; nobody reads what comes next
    begin_copies();
    return place_of(next_ - Format::kRing);
  }

  SALIENT_DEVICE TilePart<Format> part(const Words4* chunk, int tile, int r) const {
    TilePart<Format> part;
    const Words4* words = chunk + r * kRowPieces + tile * kPartPieces + simt::lane();
    SALIENT_UNROLL
    for (int i = 0; i < Format::kWords; ++i) part.words[i] = simt::load_shared(words + i * simt::kWarp);
    if constexpr (Format::kScaled) factors_.read(chunk + kWeightPieces, r, tile, part.factors);
    return part;
  }

 private:
  static_assert((Format::kRing & (Format::kRing - 1)) == 0, "places are found by the last bits");

  SALIENT_DEVICE Words4* place_of(int chunk) const {
    return shared_ + static_cast<unsigned>(chunk) % Format::kRing * kChunkPieces;
  }

  SALIENT_DEVICE void begin_copies() {
    if (next_ < end_) {
      Words4* to = place_of(next_);
      SALIENT_UNROLL
      for (int r = 0; r < Format::kRowBlocks; ++r) {
        SALIENT_UNROLL
        for (int i = 0; i < kRowPieces; i += simt::kWarp)
          simt::copy_stream(to + r * kRowPieces + i + simt::lane(), weight_[r] + i);
        weight_[r] += kRowPieces;
      }
      if constexpr (Format::kScaled) factors_.copy(next_ * Format::kChunkTiles, to + kWeightPieces);
    }
    ++next_;
    simt::copy_commit();  // an empty group where there is no chunk: waits count groups
  }

  Factors factors_;
  Words4* shared_;
  int next_;  ///< chunk to be copied
  int end_;
  const Words4* weight_[Format::kRowBlocks];
};

/// Up to 8 rows of x: what limits it is how fast W comes from memory. A block has kRowBlocks row blocks,
/// whose columns its 8 warps share. What must be on its way is bandwidth times latency: of an H100 3.35 TB/s
/// / 132 multiprocessors * 0.7 us = 18 KiB each, twice that under load, of others less (A100 13, RTX 4090 and
/// 3090 8). A block has 3 chunks of 2 KiB a warp, 48 KiB, so that one a multiprocessor is enough, which is
/// all that 4096 rows of W are and all that fits into the 100 KiB of sm_86 and sm_89 (72 KiB of shared memory
/// a block); two fit into an A100's 164 KiB, three into an H100's 228. x comes from the caches in the order
/// of fragments, 32 bytes a lane and tile, a tile before it is needed.
template <typename Format>
struct FewRows {
  using Half = typename Format::Half;
  using Ring = WarpRing<Format>;
  using Output = OutputTile<Format::kRowBlocks * kTileRows, kFewRows>;
  /// The first 16 bytes are store_output's. A warp's sums take the place of its ring.
  static constexpr size_t kShared = 16 + size_t{kLinearWarps} * Ring::kPieces * 16;
  static_assert(kShared <= (size_t{99} << 10), "sm_86 has no more");
  static_assert(Output::kBytes <= size_t{Ring::kPieces} * 16);

  struct Sums {
    float products[Format::kRowBlocks][4] = {};  ///< of the group so far
    float sums[Format::kRowBlocks][4] = {};
  };

  /// sums += the tile times its columns of x.
  SALIENT_DEVICE static void multiply(const TilePart<Format> (&parts)[Format::kRowBlocks],
                                      const Words4 (&x)[2], bool ends, Sums& to) {
    SALIENT_UNROLL
    for (int step = 0; step < kTileSteps; ++step) {
      const auto& words = x[step / 2].word;
      SALIENT_UNROLL
      for (int r = 0; r < Format::kRowBlocks; ++r) {
        uint32_t operand[4];
        operand_of(parts[r], step, operand);
        Half::mma(Format::kScaled ? to.products[r] : to.sums[r], operand, words[step % 2 * 2],
                  words[step % 2 * 2 + 1]);
      }
      if (!ends_group<Format>(step) || !ends) continue;
      SALIENT_UNROLL
      for (int r = 0; r < Format::kRowBlocks; ++r)
        fold<Format>(parts[r].factors[step * Format::kGroups / kTileSteps], to.products[r], to.sums[r]);
    }
  }

  SALIENT_DEVICE static void sum_chunks(const LinearArguments& a, const TileRange& chunks, Ring& ring,
                                        Sums& sums) {
    // Columns of y that are not asked for compute what the last one does.
    const int row = simt::lane() / 4 < a.rows ? simt::lane() / 4 : a.rows - 1;
    int at = chunks.begin * Format::kChunkTiles * a.rows * 8 + (row * 4 + simt::lane() % 4) * 2;
    Words4 inputs[Format::kChunkTiles][2];
    const auto load_input = [&](int tile) {
      SALIENT_UNROLL
      for (int i = 0; i < 2; ++i)
        inputs[tile][i] = simt::load_shared_by_many(a.x + (at + tile * a.rows * 8) + i);
    };
    SALIENT_UNROLL
    for (int tile = 0; tile < Format::kChunkTiles; ++tile) load_input(tile);
    for (int chunk = chunks.begin; chunk < chunks.end; ++chunk) {
      const Words4* from = ring.next_chunk();
      if (chunk + 1 < chunks.end) at += Format::kChunkTiles * a.rows * 8;
      SALIENT_UNROLL
      for (int tile = 0; tile < Format::kChunkTiles; ++tile) {
        TilePart<Format> parts[Format::kRowBlocks];
        SALIENT_UNROLL
        for (int r = 0; r < Format::kRowBlocks; ++r) parts[r] = ring.part(from, tile, r);
        const int at_tile = chunk * Format::kChunkTiles + tile;
        multiply(parts, inputs[tile],
                 ends_groups<Format>(a, at_tile, at_tile + 1, chunks.end * Format::kChunkTiles), sums);
        load_input(tile);
      }
    }
  }

  SALIENT_DEVICE static void run(const LinearArguments& a) {
    const int first_block = simt::block_x() * Format::kRowBlocks;
    const TileRange of_block = share_of(0, a.tiles / Format::kChunkTiles, simt::block_y(), simt::grid_y());
    const TileRange chunks = share_of(of_block.begin, of_block.end, simt::warp(), kLinearWarps);
    constexpr int kWordsOfWarp = Ring::kPieces * 4;
    auto* shared = simt::shared_memory<float>() + 4;
    float* of_warp = shared + simt::warp() * kWordsOfWarp;
    Sums sums;
    if (chunks.begin < chunks.end) {
      Ring ring(a, chunks, first_block, reinterpret_cast<Words4*>(of_warp));
      sum_chunks(a, chunks, ring, sums);
    }
    simt::sync_warp();  // sums take the place of the ring
    // [warp][column of y][row of W], then the sums over warps in their order.
    const int g = simt::lane() / 4;
    const int t = simt::lane() % 4;
    SALIENT_UNROLL
    for (int r = 0; r < Format::kRowBlocks; ++r) {
      SALIENT_UNROLL
      for (int i = 0; i < 4; ++i)
        of_warp[(2 * t + i % 2) * Output::kStride + r * kTileRows + g + i / 2 * 8] = sums.sums[r][i];
    }
    simt::sync_block();
    for (int i = simt::thread(); i < kFewRows * Output::kStride; i += kLinearThreads) {
      float sum = 0;
      SALIENT_UNROLL
      for (int w = 0; w < kLinearWarps; ++w) sum += shared[w * kWordsOfWarp + i];
      shared[i] = sum;  // read by this thread alone so far
    }
    simt::sync_block();
    store_output(a, Output{.sums = shared, .first_out = first_block * kTileRows, .first_row = 0});
  }
};

}  // namespace salient::cuda
