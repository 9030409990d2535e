#pragma once

#include "backend/cuda/linear_tiles.cuh"

namespace salient::cuda {

/// How a block of ManyRows works: `tiles_n` tiles of 8 rows of x, row blocks of each of its 8 warps, tiles of
/// columns of a stage, and stages.
template <typename Format, int tiles_n, int row_blocks, int stage_tiles, int stages>
struct ManyShape {
  static constexpr int kTilesN = tiles_n;
  static constexpr int kRowBlocks = row_blocks;
  static constexpr int kStageTiles = stage_tiles;
  static constexpr int kStages = stages;
  static constexpr int kRowsX = tiles_n * 8;
  static constexpr int kRowsW = kLinearWarps * row_blocks * kTileRows;

  using Factors = FactorCopies<Format, row_blocks, stage_tiles>;
  static constexpr int kChunks = stage_tiles * kTileColumns / kChunkColumns;  ///< of a row of x
  /// Of a stage, in pieces of 16 bytes.
  static constexpr int kPartPieces = Format::kWords * simt::kWarp;  ///< of a tile of a row block
  static constexpr int kRowPieces = stage_tiles * kPartPieces;
  static constexpr int kWeightPieces = kLinearWarps * row_blocks * kRowPieces;
  static constexpr int kFactorPieces = kLinearWarps * Factors::kPieces;
  static constexpr int kInputPieces = kRowsX * kChunks;
  static constexpr int kPieces = kWeightPieces + kFactorPieces + kInputPieces;
};

/// What a block of ManyRows reads, stage by stage.
template <typename Format, typename Shape>
class BlockRing {
 public:
  SALIENT_DEVICE BlockRing(const LinearArguments& a, const TileRange& tiles, int first_block)
      : factors_(a, first_block + simt::warp() * Shape::kRowBlocks),
        next_(tiles.begin),
        end_(tiles.end),
        row_pieces_(a.tiles * (kTileColumns / kChunkColumns)) {
    SALIENT_UNROLL
    for (int r = 0; r < Shape::kRowBlocks; ++r) {
      const int row_block = existing(a, first_block + simt::warp() * Shape::kRowBlocks + r);
      weight_[r] = a.weight + (int64_t{row_block} * a.tiles + next_) * Shape::kPartPieces + simt::lane();
    }
    const int row = simt::thread() / Shape::kChunks;
    const int chunk = simt::thread() % Shape::kChunks;
    input_ = a.x + (int64_t{simt::block_z()} * Shape::kRowsX + row) * row_pieces_ +
             next_ * (kTileColumns / kChunkColumns) + chunk;
    input_place_ = row * Shape::kChunks + (chunk ^ (row % 8));
    for (int i = 0; i < Shape::kStages - 1; ++i) begin_copies();
  }

  /// Waits for the next stage, and begins to copy the one that takes the place of the last.
  SALIENT_DEVICE void next_stage() {
    simt::copy_wait<Shape::kStages - 2>();
    simt::sync_block();  // the stage is there, and nobody reads the one that is filled next
    begin_copies();
    stage_ = stage_ + 1 == Shape::kStages ? 0 : stage_ + 1;
  }

  SALIENT_DEVICE TilePart<Format> part(int tile, int r) const {
    TilePart<Format> part;
    const Words4* words =
        current() + (simt::warp() * Shape::kRowBlocks + r) * Shape::kRowPieces + tile * Shape::kPartPieces;
    SALIENT_UNROLL
    for (int i = 0; i < Format::kWords; ++i)
      part.words[i] = simt::load_shared(words + i * simt::kWarp + simt::lane());
    if constexpr (Format::kScaled) factors_.read(factors_in(current()), r, tile, part.factors);
    return part;
  }

  /// Right operands of steps 2 pair and 2 pair + 1 of a tile, of every tile of rows.
  SALIENT_DEVICE void inputs(int tile, int pair, uint32_t (&b)[Shape::kTilesN][4]) const {
    const int row = simt::lane() % 8;
    const int chunk = tile * (kTileColumns / kChunkColumns) + pair * 4 + simt::lane() / 8;
    const Words4* x = inputs_in(current()) + row * Shape::kChunks + (chunk ^ row);
    SALIENT_UNROLL
    for (int n = 0; n < Shape::kTilesN; ++n) simt::load_matrices(b[n], x + n * 8 * Shape::kChunks);
  }

 private:
  using Factors = typename Shape::Factors;

  SALIENT_DEVICE static Words4* place_of(int stage) {
    return simt::shared_memory<Words4>() + stage * Shape::kPieces;
  }
  SALIENT_DEVICE Words4* current() const { return place_of(stage_); }
  SALIENT_DEVICE static Words4* factors_in(Words4* stage) {
    return stage + Shape::kWeightPieces + simt::warp() * Factors::kPieces;
  }
  SALIENT_DEVICE static Words4* inputs_in(Words4* stage) {
    return stage + Shape::kWeightPieces + Shape::kFactorPieces;
  }

  SALIENT_DEVICE void begin_copies() {
    if (next_ < end_) {
      Words4* to = place_of(filled_);
      Words4* own = to + simt::warp() * (Shape::kRowBlocks * Shape::kRowPieces) + simt::lane();
      SALIENT_UNROLL
      for (int r = 0; r < Shape::kRowBlocks; ++r) {
        SALIENT_UNROLL
        for (int i = 0; i < Shape::kRowPieces; i += simt::kWarp)
          simt::copy_stream(own + r * Shape::kRowPieces + i, weight_[r] + i);
        weight_[r] += Shape::kRowPieces;
      }
      if constexpr (Format::kScaled) factors_.copy(next_, factors_in(to));
      copy_inputs(inputs_in(to));
    }
    next_ += Shape::kStageTiles;
    filled_ = filled_ + 1 == Shape::kStages ? 0 : filled_ + 1;
    simt::copy_commit();  // an empty group where there is no tile: waits count groups
  }

  /// Chunks of 16 bytes are exchanged within a row by row % 8, so that ldmatrix finds eight rows on different
  /// banks.
  SALIENT_DEVICE void copy_inputs(Words4* to) {
    constexpr int kRowsAtOnce = kLinearThreads / Shape::kChunks;
    static_assert(kRowsAtOnce % 8 == 0);
    SALIENT_UNROLL
    for (int row = 0; row < Shape::kRowsX; row += kRowsAtOnce) {
      if (Shape::kRowsX < kRowsAtOnce && simt::thread() >= Shape::kInputPieces) break;
      simt::copy_async(to + input_place_ + row * Shape::kChunks, input_ + int64_t{row} * row_pieces_);
    }
    input_ += Shape::kChunks;
  }

  Factors factors_;
  int next_;  ///< tile to be copied
  int end_;
  int row_pieces_;  ///< of a row of x
  int filled_ = 0;  ///< stage to be filled
  int stage_ = Shape::kStages - 1;
  int input_place_;
  const Words4* input_;
  const Words4* weight_[Shape::kRowBlocks];
};

/// More rows than 8: by mma in registers, with W and x arriving in shared memory stage by stage (cp.async)
/// while the last ones are multiplied. The bytes of W go through shared memory only to be on their way early:
/// a lane reads what it has copied. x [rows, columns] of a stage is for all warps.
template <typename Format, typename Shape>
struct ManyRows {
  using Half = typename Format::Half;
  static constexpr int kTilesN = Shape::kTilesN;
  static constexpr int kRowBlocks = Shape::kRowBlocks;
  static constexpr int kRowsX = Shape::kRowsX;
  static constexpr int kRowsW = Shape::kRowsW;
  using Output = OutputTile<kRowsW, kRowsX>;
  static constexpr size_t kStageBytes = size_t{Shape::kPieces} * 16 * Shape::kStages;
  static constexpr size_t kOutputBytes = 16 + Output::kBytes;
  static constexpr size_t kShared = kStageBytes > kOutputBytes ? kStageBytes : kOutputBytes;
  static_assert(kShared <= (size_t{99} << 10), "sm_86 has no more");

  struct Sums {
    float products[kRowBlocks][kTilesN][4] = {};  ///< of the group so far
    float sums[kRowBlocks][kTilesN][4] = {};
  };

  SALIENT_DEVICE static void multiply(const BlockRing<Format, Shape>& ring, int tile, bool ends, Sums& to) {
    TilePart<Format> parts[kRowBlocks];
    SALIENT_UNROLL
    for (int r = 0; r < kRowBlocks; ++r) parts[r] = ring.part(tile, r);
    SALIENT_UNROLL
    for (int pair = 0; pair < kTileSteps / 2; ++pair) {
      uint32_t b[kTilesN][4];
      ring.inputs(tile, pair, b);
      SALIENT_UNROLL
      for (int step = pair * 2; step < pair * 2 + 2; ++step) {
        SALIENT_UNROLL
        for (int r = 0; r < kRowBlocks; ++r)
          multiply_step(parts[r], step, b, Format::kScaled ? to.products[r] : to.sums[r]);
        if (!ends_group<Format>(step) || !ends) continue;
        SALIENT_UNROLL
        for (int r = 0; r < kRowBlocks; ++r)
          fold_all(parts[r].factors[step * Format::kGroups / kTileSteps], to.products[r], to.sums[r]);
      }
    }
  }

  SALIENT_DEVICE static void multiply_step(const TilePart<Format>& part, int step,
                                           const uint32_t (&b)[kTilesN][4], float (&to)[kTilesN][4]) {
    uint32_t operand[4];
    operand_of(part, step, operand);
    SALIENT_UNROLL
    for (int n = 0; n < kTilesN; ++n) Half::mma(to[n], operand, b[n][step % 2 * 2], b[n][step % 2 * 2 + 1]);
  }

  SALIENT_DEVICE static void fold_all(const uint32_t (&factors)[2], float (&products)[kTilesN][4],
                                      float (&sums)[kTilesN][4]) {
    SALIENT_UNROLL
    for (int n = 0; n < kTilesN; ++n) fold<Format>(factors, products[n], sums[n]);
  }

  SALIENT_DEVICE static void sum_tiles(const LinearArguments& a, const TileRange& tiles, int first_block,
                                       Sums& sums) {
    BlockRing<Format, Shape> ring(a, tiles, first_block);
    for (int first = tiles.begin; first < tiles.end; first += Shape::kStageTiles) {
      ring.next_stage();
      SALIENT_UNROLL
      for (int tile = 0; tile < Shape::kStageTiles; ++tile)
        multiply(ring, tile, ends_groups<Format>(a, first + tile, tiles.end), sums);
    }
    simt::copy_wait<0>();
    simt::sync_block();  // shared memory is free for what comes out
  }

  SALIENT_DEVICE static void run(const LinearArguments& a) {
    const int first_block = simt::block_x() * (kRowsW / kTileRows);
    const TileRange stages = share_of(0, a.tiles / Shape::kStageTiles, simt::block_y(), simt::grid_y());
    Sums sums;
    sum_tiles(a, {stages.begin * Shape::kStageTiles, stages.end * Shape::kStageTiles}, first_block, sums);
    auto* shared = simt::shared_memory<float>() + 4;  // the first word is store_output's
    const int g = simt::lane() / 4;
    const int t = simt::lane() % 4;
    SALIENT_UNROLL
    for (int r = 0; r < kRowBlocks; ++r) {
      SALIENT_UNROLL
      for (int n = 0; n < kTilesN; ++n) {
        SALIENT_UNROLL
        for (int i = 0; i < 4; ++i) {
          const int row = (simt::warp() * kRowBlocks + r) * kTileRows + g + i / 2 * 8;
          shared[(n * 8 + 2 * t + i % 2) * Output::kStride + row] = sums.sums[r][n][i];
        }
      }
    }
    simt::sync_block();
    store_output(
        a,
        Output{.sums = shared, .first_out = first_block * kTileRows, .first_row = simt::block_z() * kRowsX});
  }
};

/// For 16 rows of x two blocks a multiprocessor, of 128 rows of W, which make enough blocks of most weights;
/// for more one, whose 256 rows of W share what is read of x.
template <typename Format>
using Many16 = ManyRows<Format, ManyShape<Format, 2, 1, Format::kChunkTiles, 4>>;
template <typename Format>
using Many32 =
    ManyRows<Format, ManyShape<Format, 4, Format::kRowBlocks, Format::kChunkTiles, Format::kScaled ? 3 : 4>>;
template <typename Format>
using Many64 = ManyRows<Format, ManyShape<Format, 8, Format::kRowBlocks, 1, Format::kScaled ? 5 : 4>>;

}  // namespace salient::cuda
