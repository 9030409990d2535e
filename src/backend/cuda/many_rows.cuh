#pragma once

#include "backend/cuda/linear_tiles.cuh"

namespace salient::cuda {

/// How a block of ManyRows works: `tiles_n` tiles of 8 rows of x, row blocks of a warp, tiles of columns of a
/// stage, each for as many of the 8 warps, and stages. The fewer rows of W a warp has, the more often it has
/// to load what it multiplies them with.
template <typename Format, int tiles_n, int row_blocks, int stage_tiles, int stages>
struct ManyShape {
  static constexpr int kTilesN = tiles_n;
  static constexpr int kRowBlocks = row_blocks;
  static constexpr int kStageTiles = stage_tiles;
  static constexpr int kStages = stages;
  static constexpr int kRowsX = tiles_n * 8;
  static constexpr int kRowWarps = kLinearWarps / stage_tiles;
  static constexpr int kRowsW = kRowWarps * row_blocks * kTileRows;

  using Factors = FactorCopies<Format, row_blocks, 1>;
  static constexpr int kChunks = stage_tiles * kTileColumns / kChunkColumns;  ///< of a row of x
  /// Of a stage, in pieces of 16 bytes.
  static constexpr int kPartPieces = Format::kWords * simt::kWarp;  ///< of a tile of a row block
  static constexpr int kWeightPieces = kLinearWarps * row_blocks * kPartPieces;
  static constexpr int kFactorPieces = kLinearWarps * Factors::kPieces;
  static constexpr int kInputPieces = kRowsX * kChunks;
  static constexpr int kPieces = kWeightPieces + kFactorPieces + kInputPieces;

  /// Of this warp: the first of its row blocks in a block's, and its tile in a stage.
  SALIENT_DEVICE static int warp_block() { return simt::warp() % kRowWarps * row_blocks; }
  SALIENT_DEVICE static int warp_tile() { return simt::warp() / kRowWarps; }
};

/// What a block of ManyRows reads, stage by stage.
template <typename Format, typename Shape>
class BlockRing {
 public:
  SALIENT_DEVICE BlockRing(const LinearArguments& a, const TileRange& tiles, int first_block)
      : factors_(a, first_block + Shape::warp_block()),
        next_(tiles.begin),
        end_(tiles.end),
        row_pieces_(a.tiles * kTileChunks) {
    SALIENT_UNROLL
    for (int r = 0; r < Shape::kRowBlocks; ++r) {
      const int row_block = existing(a, first_block + Shape::warp_block() + r);
      const int tile = next_ + Shape::warp_tile();
      weight_[r] = a.weight + (int64_t{row_block} * a.tiles + tile) * Shape::kPartPieces + simt::lane();
    }
    const int row = simt::thread() / Shape::kChunks;
    const int chunk = simt::thread() % Shape::kChunks;
    input_ =
        a.x + (int64_t{simt::block_z()} * Shape::kRowsX + row) * row_pieces_ + next_ * kTileChunks + chunk;
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

  SALIENT_DEVICE TilePart<Format> part(int r) const {
    TilePart<Format> part;
    const Words4* words = current() + (simt::warp() * Shape::kRowBlocks + r) * Shape::kPartPieces;
    SALIENT_UNROLL
    for (int i = 0; i < Format::kWords; ++i)
      part.words[i] = simt::load_shared(words + i * simt::kWarp + simt::lane());
    if constexpr (Format::kScaled) factors_.read(factors_in(current()), r, 0, part.factors);
    return part;
  }

  /// Right operands of steps 2 pair and 2 pair + 1, of every tile of rows.
  SALIENT_DEVICE void inputs(int pair, uint32_t (&b)[Shape::kTilesN][4]) const {
    const int row = simt::lane() % 8;
    const int chunk = Shape::warp_tile() * kTileChunks + pair * 4 + simt::lane() / 8;
    const Words4* x = inputs_in(current()) + row * Shape::kChunks + (chunk ^ row);
    SALIENT_UNROLL
    for (int n = 0; n < Shape::kTilesN; ++n) simt::load_matrices(b[n], x + n * 8 * Shape::kChunks);
  }

 private:
  using Factors = typename Shape::Factors;
  static constexpr int kTileChunks = kTileColumns / kChunkColumns;

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
      Words4* own = to + simt::warp() * (Shape::kRowBlocks * Shape::kPartPieces) + simt::lane();
      SALIENT_UNROLL
      for (int r = 0; r < Shape::kRowBlocks; ++r) {
        SALIENT_UNROLL
        for (int i = 0; i < Shape::kPartPieces; i += simt::kWarp)
          simt::copy_stream(own + r * Shape::kPartPieces + i, weight_[r] + i);
        weight_[r] += Shape::kStageTiles * Shape::kPartPieces;
      }
      if constexpr (Format::kScaled) factors_.copy(next_ + Shape::warp_tile(), factors_in(to));
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
  static constexpr size_t kOutputBytes = 16 + Shape::kStageTiles * Output::kBytes;
  static constexpr size_t kShared = kStageBytes > kOutputBytes ? kStageBytes : kOutputBytes;
  static_assert(kShared <= (size_t{99} << 10), "sm_86 has no more");

  struct Sums {
    float products[kRowBlocks][kTilesN][4] = {};  ///< of the group so far
    float sums[kRowBlocks][kTilesN][4] = {};
  };

  SALIENT_DEVICE static void multiply(const BlockRing<Format, Shape>& ring, bool ends, Sums& to) {
    TilePart<Format> parts[kRowBlocks];
    SALIENT_UNROLL
    for (int r = 0; r < kRowBlocks; ++r) parts[r] = ring.part(r);
    SALIENT_UNROLL
    for (int pair = 0; pair < kTileSteps / 2; ++pair) {
      uint32_t b[kTilesN][4];
      ring.inputs(pair, b);
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
      const int tile = first + Shape::warp_tile();
      multiply(ring, ends_groups<Format>(a, tile, tile + Shape::kStageTiles, tiles.end), sums);
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
    constexpr int kPart = Output::kBytes / sizeof(float);
    float* own = shared + simt::warp() / Shape::kRowWarps * kPart;
    const int g = simt::lane() / 4;
    const int t = simt::lane() % 4;
    SALIENT_UNROLL
    for (int r = 0; r < kRowBlocks; ++r) {
      SALIENT_UNROLL
      for (int n = 0; n < kTilesN; ++n) {
        SALIENT_UNROLL
        for (int i = 0; i < 4; ++i) {
          const int row = (Shape::warp_block() + r) * kTileRows + g + i / 2 * 8;
          own[(n * 8 + 2 * t + i % 2) * Output::kStride + row] = sums.sums[r][n][i];
        }
      }
    }
    simt::sync_block();
    if constexpr (Shape::kStageTiles > 1) {
      for (int i = simt::thread(); i < kPart; i += kLinearThreads) {
        SALIENT_UNROLL
        for (int part = 1; part < Shape::kStageTiles; ++part) shared[i] += shared[i + part * kPart];
      }
      simt::sync_block();
    }
    store_output(
        a,
        Output{.sums = shared, .first_out = first_block * kTileRows, .first_row = simt::block_z() * kRowsX});
  }
};

/// For 16 rows of x two blocks a multiprocessor, of 128 rows of W, which make enough blocks of most weights;
/// for more one, whose 256 rows of W share what is read of x.
template <typename Format>
struct ManyShapes {
  using Rows16 = ManyShape<Format, 2, 2, 2, 4>;
  using Rows32 = ManyShape<Format, 4, 4, 2, 3>;
  using Rows64 = ManyShape<Format, 8, 2, 1, 5>;
};
template <typename T>
struct ManyShapes<SixteenBit<T>> {
  using Rows16 = ManyShape<SixteenBit<T>, 2, 1, 1, 4>;
  using Rows32 = ManyShape<SixteenBit<T>, 4, 1, 1, 4>;
  using Rows64 = ManyShape<SixteenBit<T>, 8, 1, 1, 4>;
};
template <typename Format>
using Many16 = ManyRows<Format, typename ManyShapes<Format>::Rows16>;
template <typename Format>
using Many32 = ManyRows<Format, typename ManyShapes<Format>::Rows32>;
template <typename Format>
using Many64 = ManyRows<Format, typename ManyShapes<Format>::Rows64>;

}  // namespace salient::cuda
