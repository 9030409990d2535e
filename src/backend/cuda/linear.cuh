#pragma once

#include "backend/cuda/linear.h"
#include "backend/cuda/simt.h"

namespace salient::cuda {

using simt::BF16;
using simt::F16;
using simt::Words4;

inline constexpr int kLinearWarps = 8;
inline constexpr int kLinearThreads = kLinearWarps * simt::kWarp;

/// Four registers of a left operand from the codes of one step, `code - zero` exactly. A code c is put below
/// the exponent of a number whose last place is 1 (1024 for f16, 128 for bf16), or 16 where c stands four
/// bits higher: 1024 + c and 1024 + 16 c, without any conversion (Kim et al. 2022, "Who Says Elephants Can't
/// Run"). The zero of row g is known as 1024 + z, that of row g + 8 as -(64 + z): (1024 + 16 c) / 16 - (64 +
/// z) is one exact fma.
template <typename T>
struct Codes;

template <>
struct Codes<F16> {
  SALIENT_DEVICE static void zeros(uint32_t factor_low, uint32_t factor_high, uint32_t (&zero)[2]) {
    zero[0] = 0x64006400u + (factor_low & kZeroBits) * 0x00010001u;
    zero[1] = 0xd400d400u + (factor_high & kZeroBits) * 0x00100010u;
  }
  SALIENT_DEVICE static void expand(uint32_t word, const uint32_t (&zero)[2], uint32_t (&a)[4]) {
    constexpr uint32_t kSixteenth = 0x2c002c00u;
    const uint32_t upper = word >> 8;
    a[0] = simt::subtract_f16(simt::masked_or<0x000f000fu, 0x64006400u>(word), zero[0]);
    a[1] = simt::fma_f16(simt::masked_or<0x00f000f0u, 0x64006400u>(word), kSixteenth, zero[1]);
    a[2] = simt::subtract_f16(simt::masked_or<0x000f000fu, 0x64006400u>(upper), zero[0]);
    a[3] = simt::fma_f16(simt::masked_or<0x00f000f0u, 0x64006400u>(upper), kSixteenth, zero[1]);
  }
};

/// bf16 has no room for 16 c, and its subtraction is an fma before sm_90: 1 (128 + c) - (128 + z).
template <>
struct Codes<BF16> {
  SALIENT_DEVICE static void zeros(uint32_t factor_low, uint32_t factor_high, uint32_t (&zero)[2]) {
    zero[0] = 0xc300c300u + (factor_low & kZeroBits) * 0x00010001u;
    zero[1] = 0xc300c300u + (factor_high & kZeroBits) * 0x00010001u;
  }
  SALIENT_DEVICE static void expand(uint32_t word, const uint32_t (&zero)[2], uint32_t (&a)[4]) {
    constexpr uint32_t kOne = 0x3f803f80u;
    SALIENT_UNROLL
    for (int r = 0; r < 4; ++r) {
      const uint32_t code = simt::masked_or<0x000f000fu, 0x43004300u>(word >> (4 * r));
      a[r] = simt::fma_bf16(code, kOne, zero[r % 2]);
    }
  }
};

/// How a weight is kept. `kWords` times 16 bytes a lane make a tile, `kGroups` groups a tile at most; a warp
/// works on kRowBlocks row blocks at once, `kAhead` tiles of each of which are on their way.
template <typename T, int groups_of_tile>
struct FourBit {
  using Half = T;
  static constexpr int kWords = 1;
  static constexpr int kGroups = groups_of_tile;
  static constexpr int kRowBlocks = 2;
  static constexpr int kAhead = 4;
  static constexpr bool kScaled = true;
};
template <typename T>
struct SixteenBit {
  using Half = T;
  static constexpr int kWords = 4;
  static constexpr int kGroups = 1;
  static constexpr int kRowBlocks = 1;
  static constexpr int kAhead = 2;
  static constexpr bool kScaled = false;
};

/// One lane's part of a tile of a row block, with what its codes are to be multiplied by.
template <typename Format>
struct TilePart {
  Words4 words[Format::kWords];
  uint32_t factors[Format::kGroups][2];
};

/// The left operand of step `step` of a tile.
template <typename Format>
SALIENT_DEVICE void operand_of(const TilePart<Format>& part, int step, uint32_t (&a)[4]) {
  if constexpr (Format::kScaled) {
    const auto& factors = part.factors[step * Format::kGroups / kTileSteps];
    uint32_t zero[2];
    Codes<typename Format::Half>::zeros(factors[0], factors[1], zero);
    Codes<typename Format::Half>::expand(part.words[0].word[step], zero, a);
  } else {
    SALIENT_UNROLL
    for (int r = 0; r < 4; ++r) a[r] = part.words[step].word[r];
  }
}

/// sums += scale * products, of rows g and g + 8; the products begin again at 0.
template <typename Format>
SALIENT_DEVICE void fold(const uint32_t (&factors)[2], float (&products)[4], float (&sums)[4]) {
  SALIENT_UNROLL
  for (int i = 0; i < 4; ++i) {
    sums[i] += simt::float_of_bits(factors[i / 2] & kScaleBits) * products[i];
    products[i] = 0;
  }
}

/// Whether a group of a tile ends behind the step.
template <typename Format>
SALIENT_DEVICE constexpr bool ends_group(int step) {
  return Format::kScaled && (step + 1) * Format::kGroups % kTileSteps == 0;
}

/// Where the factors of a row block and group `group_of_tile` of a tile begin.
template <typename Format>
SALIENT_DEVICE int64_t factors_at(const LinearArguments& a, int row_block, int tile, int group_of_tile) {
  const int group = Format::kGroups > 1 ? tile * Format::kGroups + group_of_tile : tile >> a.group_shift;
  return (int64_t{row_block} * a.groups + group) * kTileRows;
}

/// Row blocks behind the last one read the last one: what comes of it is not stored.
SALIENT_DEVICE int existing(const LinearArguments& a, int row_block) {
  return row_block < a.row_blocks ? row_block : a.row_blocks - 1;
}

/// The tiles [begin, end) of this block's share of a row.
struct TileRange {
  int begin;
  int end;
};
SALIENT_DEVICE TileRange share_of(int begin, int end, int part, int parts) {
  const int64_t count = end - begin;
  return {.begin = begin + static_cast<int>(count * part / parts),
          .end = begin + static_cast<int>(count * (part + 1) / parts)};
}

/// What a block has computed, in shared memory: `columns` rows of y, `rows` outputs each.
struct OutputTile {
  const float* sums;  ///< [columns, rows], `stride` from column to column
  int stride;         ///< rows + 4: what a warp stores at a time then lies on different banks
  int rows;
  int columns;
  int first_out;
  int first_row;  ///< of y
};

/// Elements of a tile that a thread has under way at a time: a read of what other blocks have written takes
/// some 700 cycles.
inline constexpr int kElementsAtOnce = 8;

/// Where element `index` of a tile goes in y, or -1.
SALIENT_DEVICE int64_t place_of(const LinearArguments& a, const OutputTile& tile, int index) {
  const int out = tile.first_out + index % tile.rows;
  const int row = tile.first_row + index / tile.rows;
  const bool inside = index < tile.rows * tile.columns && out < a.out && row < a.rows;
  return inside ? int64_t{row} * a.out + out : -1;
}

SALIENT_DEVICE void store_biased(const LinearArguments& a, int64_t at, float sum) {
  a.y[at] = a.bias == nullptr ? sum : sum + a.bias[at % a.out];
}

/// y = the parts of all splits, in their order.
SALIENT_DEVICE void store_sums(const LinearArguments& a, const OutputTile& tile) {
  const int64_t part = int64_t{a.rows} * a.out;
  const int step = simt::block_threads();
  for (int first = simt::thread(); first < tile.rows * tile.columns; first += kElementsAtOnce * step) {
    int64_t at[kElementsAtOnce];
    float sums[kElementsAtOnce] = {};
    SALIENT_UNROLL
    for (int e = 0; e < kElementsAtOnce; ++e) at[e] = place_of(a, tile, first + e * step);
    for (int split = 0; split < simt::grid_y(); ++split) {
      SALIENT_UNROLL
      for (int e = 0; e < kElementsAtOnce; ++e)
        sums[e] += simt::load_fresh(a.parts + split * part + (at[e] < 0 ? 0 : at[e]));
    }
    SALIENT_UNROLL
    for (int e = 0; e < kElementsAtOnce; ++e)
      if (at[e] >= 0) store_biased(a, at[e], sums[e]);
  }
}

/// Into y with the bias; with several splits into parts, and the block that comes last adds those of all, so
/// that the result does not depend on which block that is.
SALIENT_DEVICE void store_output(const LinearArguments& a, const OutputTile& tile) {
  const int splits = simt::grid_y();
  float* parts = splits == 1 ? nullptr : a.parts + simt::block_y() * (int64_t{a.rows} * a.out);
  for (int i = simt::thread(); i < tile.rows * tile.columns; i += simt::block_threads()) {
    const int64_t at = place_of(a, tile, i);
    if (at < 0) continue;
    const float sum = tile.sums[i / tile.rows * tile.stride + i % tile.rows];
    if (splits == 1) {
      store_biased(a, at, sum);
    } else {
      parts[at] = sum;
    }
  }
  if (splits == 1) return;
  simt::fence();
  simt::sync_block();
  uint32_t* counter = a.counters + simt::block_z() * simt::grid_x() + simt::block_x();
  auto* ticket = simt::shared_memory<uint32_t>();
  if (simt::thread() == 0) *ticket = simt::increment(counter);
  simt::sync_block();
  if (*ticket != static_cast<uint32_t>(splits - 1)) return;
  simt::fence();
  if (simt::thread() == 0) *counter = 0;
  store_sums(a, tile);
}

/// Up to 8 rows of x: what limits it is how fast W comes from memory. A block has kRowBlocks row blocks; its
/// 8 warps share the columns, so that each reads kRowBlocks streams of 512 bytes a tile with kAhead tiles of
/// each under way: 4 KiB a warp, 64 KiB a multiprocessor with two blocks on it (an H100 needs about 40).
/// Nothing of W goes through shared memory. x comes from the caches in the order of fragments, 32 bytes a
/// lane and tile.
template <typename Format>
struct FewRows {
  using Half = typename Format::Half;
  static constexpr int kRows = Format::kRowBlocks * kTileRows;
  static constexpr int kStride = kRows + 4;

  SALIENT_DEVICE static TilePart<Format> load(const LinearArguments& a, int row_block, int tile) {
    TilePart<Format> part;
    const Words4* from = a.weight + (int64_t{row_block} * a.tiles + tile) * (Format::kWords * simt::kWarp);
    SALIENT_UNROLL
    for (int i = 0; i < Format::kWords; ++i)
      part.words[i] = simt::load_stream(from + i * simt::kWarp + simt::lane());
    if constexpr (Format::kScaled) {
      SALIENT_UNROLL
      for (int group = 0; group < Format::kGroups; ++group) {
        const uint32_t* factors = a.factors + factors_at<Format>(a, row_block, tile, group);
        const auto own = *reinterpret_cast<const simt::Words2*>(factors + simt::lane() / 4 * 2);
        part.factors[group][0] = own.word[0];
        part.factors[group][1] = own.word[1];
      }
    }
    return part;
  }

  /// sums += the tile times its columns of x.
  SALIENT_DEVICE static void multiply(const TilePart<Format>& part, const Words4 (&x)[2], float (&sums)[4]) {
    float products[4] = {};
    SALIENT_UNROLL
    for (int step = 0; step < kTileSteps; ++step) {
      uint32_t operand[4];
      operand_of(part, step, operand);
      const auto& words = x[step / 2].word;
      Half::mma(Format::kScaled ? products : sums, operand, words[step % 2 * 2], words[step % 2 * 2 + 1]);
      if (ends_group<Format>(step))
        fold<Format>(part.factors[step * Format::kGroups / kTileSteps], products, sums);
    }
  }

  SALIENT_DEVICE static void sum_tiles(const LinearArguments& a, const TileRange& tiles, int first_block,
                                       float (&sums)[Format::kRowBlocks][4]) {
    // Columns of y that are not asked for compute what the last one does.
    const int row = simt::lane() / 4 < a.rows ? simt::lane() / 4 : a.rows - 1;
    const Words4* x = a.x + (row * 4 + simt::lane() % 4) * 2;
    TilePart<Format> ahead[Format::kAhead][Format::kRowBlocks];
    const auto load_tile = [&](int tile, TilePart<Format>(&parts)[Format::kRowBlocks]) {
      SALIENT_UNROLL
      for (int r = 0; r < Format::kRowBlocks; ++r) parts[r] = load(a, existing(a, first_block + r), tile);
    };
    SALIENT_UNROLL
    for (int i = 0; i < Format::kAhead; ++i)
      if (tiles.begin + i < tiles.end) load_tile(tiles.begin + i, ahead[i]);
    for (int base = tiles.begin; base < tiles.end; base += Format::kAhead) {
      SALIENT_UNROLL
      for (int i = 0; i < Format::kAhead; ++i) {
        const int tile = base + i;
        if (tile >= tiles.end) break;
        const int64_t at = int64_t{tile} * a.rows * 8;
        const Words4 inputs[2] = {simt::load_shared_by_many(x + at), simt::load_shared_by_many(x + at + 1)};
        SALIENT_UNROLL
        for (int r = 0; r < Format::kRowBlocks; ++r) multiply(ahead[i][r], inputs, sums[r]);
        if (tile + Format::kAhead < tiles.end) load_tile(tile + Format::kAhead, ahead[i]);
      }
    }
  }

  SALIENT_DEVICE static void run(const LinearArguments& a) {
    const int first_block = simt::block_x() * Format::kRowBlocks;
    const TileRange own = share_of(0, a.tiles, simt::block_y(), simt::grid_y());
    float sums[Format::kRowBlocks][4] = {};
    sum_tiles(a, share_of(own.begin, own.end, simt::warp(), kLinearWarps), first_block, sums);
    // [warp][column of y][row of W], then the sums over warps in their order.
    auto* shared = simt::shared_memory<float>() + 4;  // the first word is store_output's
    const int g = simt::lane() / 4;
    const int t = simt::lane() % 4;
    SALIENT_UNROLL
    for (int r = 0; r < Format::kRowBlocks; ++r) {
      SALIENT_UNROLL
      for (int i = 0; i < 4; ++i)
        shared[(simt::warp() * kFewRows + 2 * t + i % 2) * kStride + r * kTileRows + g + i / 2 * 8] =
            sums[r][i];
    }
    simt::sync_block();
    for (int i = simt::thread(); i < kFewRows * kStride; i += kLinearThreads) {
      float sum = 0;
      for (int w = 0; w < kLinearWarps; ++w) sum += shared[w * kFewRows * kStride + i];
      shared[i] = sum;  // read by this thread alone so far
    }
    simt::sync_block();
    store_output(a, {.sums = shared,
                     .stride = kStride,
                     .rows = kRows,
                     .columns = kFewRows,
                     .first_out = first_block * kTileRows,
                     .first_row = 0});
  }
};

/// Shared memory that a block of FewRows asks for.
template <typename Format>
inline constexpr size_t kFewRowsShared = 16 + size_t{kLinearWarps} * kFewRows* FewRows<Format>::kStride *
                                                  sizeof(float);

/// More rows: kTilesN tiles of 8 rows of x at once, by mma in registers, with W and x arriving in shared
/// memory stage by stage (cp.async, kStages deep) while the last ones are multiplied. Each of the 8 warps has
/// kRowBlocks row blocks of its own, whose bytes go through shared memory only to be on their way early: a
/// lane reads what it has copied. x [rows, 64 columns] of a stage is for all warps: its chunks of 16 bytes
/// are exchanged within a row by row % 8, so that ldmatrix finds eight rows on different banks.
template <typename Format, int tiles_n>
struct ManyRows {
  using Half = typename Format::Half;
  static constexpr int kTilesN = tiles_n;
  static constexpr int kRowsX = tiles_n * 8;
  static constexpr int kRowsW = kLinearWarps * Format::kRowBlocks * kTileRows;
  static constexpr int kStride = kRowsW + 4;
  static constexpr int kStages = 4;
  static constexpr int kChunks = kTileColumns / kChunkColumns;
  /// Of a stage, in pieces of 16 bytes.
  static constexpr int kWeightPieces = kLinearWarps * Format::kRowBlocks * Format::kWords * simt::kWarp;
  static constexpr int kFactorPieces =
      Format::kScaled ? kLinearWarps * Format::kRowBlocks * Format::kGroups * 4 : 0;
  static constexpr int kInputPieces = kRowsX * kChunks;
  static constexpr int kStagePieces = kWeightPieces + kFactorPieces + kInputPieces;
  static constexpr size_t kStageBytes = size_t{kStagePieces} * 16;
  static constexpr size_t kOutputBytes = 16 + size_t{kRowsX} * kStride * sizeof(float);
  static constexpr size_t kShared =
      kStages * kStageBytes > kOutputBytes ? kStages* kStageBytes : kOutputBytes;
  static_assert(kShared <= (size_t{99} << 10), "sm_86 has no more");

  SALIENT_DEVICE static Words4* stage(int index) {
    return simt::shared_memory<Words4>() + index % kStages * kStagePieces;
  }

  SALIENT_DEVICE static void copy_weight(const LinearArguments& a, int tile, int warp_block, Words4* to) {
    SALIENT_UNROLL
    for (int r = 0; r < Format::kRowBlocks; ++r) {
      const int row_block = existing(a, warp_block + r);
      const Words4* from = a.weight + (int64_t{row_block} * a.tiles + tile) * (Format::kWords * simt::kWarp);
      Words4* own = to + (simt::warp() * Format::kRowBlocks + r) * (Format::kWords * simt::kWarp);
      SALIENT_UNROLL
      for (int i = 0; i < Format::kWords; ++i)
        simt::copy_async(own + i * simt::kWarp + simt::lane(), from + i * simt::kWarp + simt::lane());
    }
  }

  /// Four pieces for each row block and group, by as many lanes.
  SALIENT_DEVICE static void copy_factors(const LinearArguments& a, int tile, int warp_block, Words4* to) {
    constexpr int kPieces = Format::kRowBlocks * Format::kGroups * 4;
    static_assert(kPieces <= simt::kWarp, "one piece a lane");
    if (simt::lane() >= kPieces) return;
    const int row_block = existing(a, warp_block + simt::lane() / (Format::kGroups * 4));
    const int group = simt::lane() / 4 % Format::kGroups;
    const uint32_t* from = a.factors + factors_at<Format>(a, row_block, tile, group) + simt::lane() % 4 * 4;
    simt::copy_async(to + kWeightPieces + simt::warp() * kPieces + simt::lane(), from);
  }

  SALIENT_DEVICE static void copy_input(const LinearArguments& a, int tile, Words4* to) {
    const Words4* from = a.x + int64_t{simt::block_z()} * kRowsX * (a.tiles * kChunks) + tile * kChunks;
    SALIENT_UNROLL
    for (int first = 0; first < kInputPieces; first += kLinearThreads) {
      const int i = first + simt::thread();
      if (i >= kInputPieces) break;
      const int row = i / kChunks;
      const int chunk = i % kChunks;
      simt::copy_async(to + kWeightPieces + kFactorPieces + row * kChunks + (chunk ^ (row % kChunks)),
                       from + int64_t{row} * (a.tiles * kChunks) + chunk);
    }
  }

  SALIENT_DEVICE static void begin_copies(const LinearArguments& a, const TileRange& tiles, int tile,
                                          int warp_block) {
    if (tile < tiles.end) {
      Words4* to = stage(tile - tiles.begin);
      copy_weight(a, tile, warp_block, to);
      if constexpr (Format::kScaled) copy_factors(a, tile, warp_block, to);
      copy_input(a, tile, to);
    }
    simt::copy_commit();  // an empty group where there is no tile: waits count groups
  }

  SALIENT_DEVICE static TilePart<Format> part_of(const Words4* from, int r) {
    TilePart<Format> part;
    const int block = simt::warp() * Format::kRowBlocks + r;
    SALIENT_UNROLL
    for (int i = 0; i < Format::kWords; ++i)
      part.words[i] = simt::load_shared(from + (block * Format::kWords + i) * simt::kWarp + simt::lane());
    if constexpr (Format::kScaled) {
      const auto* factors =
          reinterpret_cast<const uint32_t*>(from + kWeightPieces) + block * Format::kGroups * kTileRows;
      SALIENT_UNROLL
      for (int group = 0; group < Format::kGroups; ++group) {
        SALIENT_UNROLL
        for (int i = 0; i < 2; ++i)
          part.factors[group][i] = factors[group * kTileRows + simt::lane() / 4 * 2 + i];
      }
    }
    return part;
  }

  /// Right operands of steps 2 pair and 2 pair + 1, of every tile of rows.
  SALIENT_DEVICE static void load_inputs(const Words4* from, int pair, uint32_t (&b)[kTilesN][4]) {
    const Words4* x = from + kWeightPieces + kFactorPieces;
    const int row = simt::lane() % 8;
    const int chunk = pair * 4 + simt::lane() / 8;
    SALIENT_UNROLL
    for (int n = 0; n < kTilesN; ++n) simt::load_matrices(b[n], x + (n * 8 + row) * kChunks + (chunk ^ row));
  }

  SALIENT_DEVICE static void multiply(const Words4* from, float (&sums)[Format::kRowBlocks][kTilesN][4]) {
    TilePart<Format> parts[Format::kRowBlocks];
    SALIENT_UNROLL
    for (int r = 0; r < Format::kRowBlocks; ++r) parts[r] = part_of(from, r);
    float products[Format::kRowBlocks][kTilesN][4] = {};
    SALIENT_UNROLL
    for (int pair = 0; pair < kTileSteps / 2; ++pair) {
      uint32_t b[kTilesN][4];
      load_inputs(from, pair, b);
      SALIENT_UNROLL
      for (int i = 0; i < 2; ++i) {
        SALIENT_UNROLL
        for (int r = 0; r < Format::kRowBlocks; ++r)
          multiply_step(parts[r], pair * 2 + i, b, products[r], sums[r]);
      }
    }
  }

  SALIENT_DEVICE static void multiply_step(const TilePart<Format>& part, int step,
                                           const uint32_t (&b)[kTilesN][4], float (&products)[kTilesN][4],
                                           float (&sums)[kTilesN][4]) {
    uint32_t operand[4];
    operand_of(part, step, operand);
    SALIENT_UNROLL
    for (int n = 0; n < kTilesN; ++n) {
      Half::mma(Format::kScaled ? products[n] : sums[n], operand, b[n][step % 2 * 2], b[n][step % 2 * 2 + 1]);
    }
    if (!ends_group<Format>(step)) return;
    SALIENT_UNROLL
    for (int n = 0; n < kTilesN; ++n)
      fold<Format>(part.factors[step * Format::kGroups / kTileSteps], products[n], sums[n]);
  }

  SALIENT_DEVICE static void sum_tiles(const LinearArguments& a, const TileRange& tiles, int warp_block,
                                       float (&sums)[Format::kRowBlocks][kTilesN][4]) {
    SALIENT_UNROLL
    for (int i = 0; i < kStages - 1; ++i) begin_copies(a, tiles, tiles.begin + i, warp_block);
    for (int tile = tiles.begin; tile < tiles.end; ++tile) {
      simt::copy_wait<kStages - 2>();
      simt::sync_block();  // this stage is there, and nobody reads the one that is filled next
      begin_copies(a, tiles, tile + kStages - 1, warp_block);
      multiply(stage(tile - tiles.begin), sums);
    }
    simt::copy_wait<0>();
    simt::sync_block();  // shared memory is free for what comes out
  }

  SALIENT_DEVICE static void run(const LinearArguments& a) {
    const int first_block = simt::block_x() * (kRowsW / kTileRows);
    const int warp_block = first_block + simt::warp() * Format::kRowBlocks;
    float sums[Format::kRowBlocks][kTilesN][4] = {};
    sum_tiles(a, share_of(0, a.tiles, simt::block_y(), simt::grid_y()), warp_block, sums);
    auto* shared = simt::shared_memory<float>() + 4;  // the first word is store_output's
    const int g = simt::lane() / 4;
    const int t = simt::lane() % 4;
    SALIENT_UNROLL
    for (int r = 0; r < Format::kRowBlocks; ++r) {
      SALIENT_UNROLL
      for (int n = 0; n < kTilesN; ++n) {
        SALIENT_UNROLL
        for (int i = 0; i < 4; ++i) {
          const int row = (simt::warp() * Format::kRowBlocks + r) * kTileRows + g + i / 2 * 8;
          shared[(n * 8 + 2 * t + i % 2) * kStride + row] = sums[r][n][i];
        }
      }
    }
    simt::sync_block();
    store_output(a, {.sums = shared,
                     .stride = kStride,
                     .rows = kRowsW,
                     .columns = kRowsX,
                     .first_out = first_block * kTileRows,
                     .first_row = simt::block_z() * kRowsX});
  }
};

/// One lane a fragment: x is read once, and what it becomes is read by every block.
template <typename T>
SALIENT_DEVICE void to_fragments(const FragmentsArguments& a) {
  const int index = simt::block_x() * simt::block_threads() + simt::thread();
  const int pairs = kTileColumns / 2;
  if (index >= a.tiles * a.rows * pairs) return;
  const int tile = index / (a.rows * pairs);
  const int row = index / pairs % a.rows;
  const int column = tile * kTileColumns + index % pairs * 2;
  const float* from = a.x + int64_t{row} * a.columns + column;
  const float low = column < a.columns ? from[0] : 0.0f;
  const float high = column + 1 < a.columns ? from[1] : 0.0f;
  a.to[(tile * a.rows + row) * pairs + input_place(column % kTileColumns) / 2] =
      simt::pack_clamped<T>(low, high);
}

SALIENT_DEVICE void add_bias(const AddBiasArguments& a) {
  const int64_t index = int64_t{simt::block_x()} * simt::block_threads() + simt::thread();
  if (index < int64_t{a.rows} * a.out) a.y[index] += a.bias[index % a.out];
}

/// A warp a tile: halves out of the order of fragments.
template <typename T>
SALIENT_DEVICE void unpack_halves(const DequantizeArguments& a) {
  const int tile = simt::block_x();
  const int row_block = simt::block_y() * kLinearWarps + simt::warp();
  if (row_block * kTileRows >= a.out) return;
  const Words4* from = a.weight + (int64_t{row_block} * a.tiles + tile) * (kTileSteps * simt::kWarp);
  SALIENT_UNROLL
  for (int step = 0; step < kTileSteps; ++step) {
    const Words4 words = simt::load_stream(from + step * simt::kWarp + simt::lane());
    SALIENT_UNROLL
    for (int r = 0; r < 4; ++r) {
      const int row = row_block * kTileRows + simt::lane() / 4 + r % 2 * 8;
      const int column = tile * kTileColumns + step * kStepColumns + r / 2 * 8 + simt::lane() % 4 * 2;
      if (row < a.out && column < a.columns) a.to[(int64_t{row} * a.columns + column) / 2] = words.word[r];
    }
  }
}

/// A warp a tile: (code - zero) * scale, rounded to halves, as libraries want it.
template <typename T>
SALIENT_DEVICE void dequantize(const DequantizeArguments& a) {
  const int tile = simt::block_x();
  const int row_block = simt::block_y() * kLinearWarps + simt::warp();
  const int g = simt::lane() / 4;
  const int t = simt::lane() % 4;
  if (row_block * kTileRows >= a.out) return;
  const Words4 codes =
      simt::load_stream(a.weight + (int64_t{row_block} * a.tiles + tile) * simt::kWarp + simt::lane());
  SALIENT_UNROLL
  for (int step = 0; step < kTileSteps; ++step) {
    SALIENT_UNROLL
    for (int r = 0; r < 4; ++r) {
      const int row = row_block * kTileRows + g + r % 2 * 8;
      const int column = tile * kTileColumns + step * kStepColumns + r / 2 * 8 + 2 * t;
      if (row >= a.out || column >= a.columns) continue;
      const int group = column / a.columns_per_group;
      const uint32_t factor = a.factors[(int64_t{row_block} * a.groups + group) * kTileRows + g * 2 + r % 2];
      const float scale = simt::float_of_bits(factor & kScaleBits);
      const auto weight = [&](int half) {
        const uint32_t code = codes.word[step] >> (4 * (r + 4 * half)) & 0xfu;
        return scale * (static_cast<float>(code) - static_cast<float>(factor & kZeroBits));
      };
      a.to[(int64_t{row} * a.columns + column) / 2] = simt::pack_clamped<T>(weight(0), weight(1));
    }
  }
}

#define SALIENT_LINEAR_MANY(X, name, ...)                                         \
  X(name##_16, LinearArguments, kLinearThreads, 2, ManyRows<__VA_ARGS__, 2>::run) \
  X(name##_32, LinearArguments, kLinearThreads, 1, ManyRows<__VA_ARGS__, 4>::run) \
  X(name##_64, LinearArguments, kLinearThreads, 1, ManyRows<__VA_ARGS__, 8>::run)
#define SALIENT_LINEAR_KERNELS_OF(X, half, T)                                            \
  X(fragments_##half, FragmentsArguments, 256, 1, to_fragments<T>)                       \
  X(w4_dequantize_##half, DequantizeArguments, kLinearThreads, 1, dequantize<T>)         \
  X(w16_rows_##half, DequantizeArguments, kLinearThreads, 1, unpack_halves<T>)           \
  X(w4_gemv_##half, LinearArguments, kLinearThreads, 2, FewRows<FourBit<T, 1>>::run)     \
  X(w4_gemv_g32_##half, LinearArguments, kLinearThreads, 2, FewRows<FourBit<T, 2>>::run) \
  X(w16_gemv_##half, LinearArguments, kLinearThreads, 2, FewRows<SixteenBit<T>>::run)    \
  SALIENT_LINEAR_MANY(X, w4_gemm_##half, FourBit<T, 1>)                                  \
  SALIENT_LINEAR_MANY(X, w4_gemm_g32_##half, FourBit<T, 2>)                              \
  SALIENT_LINEAR_MANY(X, w16_gemm_##half, SixteenBit<T>)
#define SALIENT_LINEAR_F16_KERNELS(X) \
  SALIENT_LINEAR_KERNELS_OF(X, f16, F16) X(product_bias, AddBiasArguments, 256, 1, add_bias)
#define SALIENT_LINEAR_BF16_KERNELS(X) SALIENT_LINEAR_KERNELS_OF(X, bf16, BF16)

}  // namespace salient::cuda
