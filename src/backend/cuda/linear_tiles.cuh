#pragma once

#include "backend/cuda/last_block.cuh"
#include "backend/cuda/linear.h"

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
/// works on kRowBlocks row blocks at once. A warp of FewRows has a ring of kRing chunks of kChunkTiles tiles.
template <typename T, int groups_of_tile>
struct FourBit {
  using Half = T;
  static constexpr int kWords = 1;
  static constexpr int kGroups = groups_of_tile;
  static constexpr int kRowBlocks = 2;
  static constexpr int kChunkTiles = kChunkTilesOfCodes;
  static constexpr int kRing = 4;
  static constexpr bool kScaled = true;
};
template <typename T>
struct SixteenBit {
  using Half = T;
  static constexpr int kWords = 4;
  static constexpr int kGroups = 1;
  static constexpr int kRowBlocks = 1;
  static constexpr int kChunkTiles = 1;
  static constexpr int kRing = 4;
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

/// Row blocks behind the last one read the last one: what comes of it is not stored.
SALIENT_DEVICE int existing(const LinearArguments& a, int row_block) {
  return row_block < a.row_blocks ? row_block : a.row_blocks - 1;
}

/// Brings the factors of `tiles` tiles of `row_blocks` row blocks into shared memory, a piece of 16 bytes a
/// lane, [row block][tile][group][4], for a warp of its own. Tiles of one group have one set.
template <typename Format, int row_blocks, int tiles>
class FactorCopies {
 public:
  static constexpr int kPieces = Format::kScaled ? row_blocks * tiles * Format::kGroups * 4 : 0;
  static_assert(kPieces <= simt::kWarp);

  SALIENT_DEVICE FactorCopies(const LinearArguments& a, int first_block)
      : shift_(a.group_shift), tile_(simt::lane() / kLanesOfTile % tiles) {
    const int row_block = existing(a, first_block + simt::lane() / (tiles * kLanesOfTile));
    copies_ = simt::lane() < kPieces && (tile_ == 0 || tiles_have_own());
    from_ = a.factors + int64_t{row_block} * a.groups * kTileRows + simt::lane() % kLanesOfTile * 4;
  }

  /// Of tiles from `tile` on.
  SALIENT_DEVICE void copy(int tile, Words4* to) const {
    if (!copies_) return;
    const int group = Format::kGroups > 1 ? (tile + tile_) * Format::kGroups : (tile + tile_) >> shift_;
    simt::copy_async(to + simt::lane(), from_ + group * kTileRows);
  }

  /// What this lane needs of tile `tile` of those that were copied.
  SALIENT_DEVICE void read(const Words4* from, int row_block, int tile,
                           uint32_t (&factors)[Format::kGroups][2]) const {
    const int set = row_block * tiles + (tiles_have_own() ? tile : 0);
    const auto* pairs = reinterpret_cast<const simt::Words2*>(from) + set * (Format::kGroups * kTileRows / 2);
    SALIENT_UNROLL
    for (int group = 0; group < Format::kGroups; ++group) {
      const simt::Words2 own = pairs[group * (kTileRows / 2) + simt::lane() / 4];
      factors[group][0] = own.word[0];
      factors[group][1] = own.word[1];
    }
  }

 private:
  static constexpr int kLanesOfTile = Format::kGroups * 4;
  SALIENT_DEVICE bool tiles_have_own() const { return Format::kGroups > 1 || tiles == 1 || shift_ == 0; }

  int shift_;
  int tile_;
  bool copies_;
  const uint32_t* from_;
};

/// Whether the products of a tile are to be folded at the end of its groups: they end before `next`, the tile
/// that comes behind it, or what is summed here of them does, before `end`.
template <typename Format>
SALIENT_DEVICE bool ends_groups(const LinearArguments& a, int tile, int next, int end) {
  return Format::kGroups > 1 || next >= end || next >> a.group_shift != tile >> a.group_shift;
}

/// The tiles, or chunks of them, [begin, end) of a share of a row.
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
template <int rows_of_w, int rows_of_y>
struct OutputTile {
  static constexpr int kRows = rows_of_w;
  static constexpr int kColumns = rows_of_y;
  static constexpr int kStride = kRows + 4;  ///< what a warp stores at a time then lies on different banks
  static constexpr size_t kBytes = size_t{kColumns} * kStride * sizeof(float);

  const float* sums;  ///< [kColumns, kRows], kStride from column to column
  int first_out;
  int first_row;  ///< of y

  /// Where element `index` goes in y, or -1.
  SALIENT_DEVICE int64_t place_of(const LinearArguments& a, int index) const {
    const int row = first_row + index / kRows;
    const bool inside = index < kRows * kColumns && out_of(index) < a.out && row < a.rows;
    return inside ? int64_t{row} * a.out + out_of(index) : -1;
  }
  SALIENT_DEVICE float sum_of(int index) const { return sums[index / kRows * kStride + index % kRows]; }
  SALIENT_DEVICE void store(const LinearArguments& a, int index, int64_t at, float sum) const {
    a.y[at] = a.bias == nullptr ? sum : sum + a.bias[out_of(index)];
  }

 private:
  SALIENT_DEVICE int out_of(int index) const { return first_out + index % kRows; }
};

/// y = the parts of all splits, in their order. A read of what other blocks have written takes some 700
/// cycles: each thread has eight under way.
template <typename Tile>
SALIENT_DEVICE void store_sums(const LinearArguments& a, const Tile& tile) {
  constexpr int kElements = Tile::kRows * Tile::kColumns;
  constexpr int kOfThread = (kElements + kLinearThreads - 1) / kLinearThreads;
  constexpr int kAtOnce = kOfThread < 8 ? kOfThread : 8;
  const int64_t part = int64_t{a.rows} * a.out;
  for (int first = simt::thread(); first < kElements; first += kAtOnce * kLinearThreads) {
    int64_t at[kAtOnce];
    float sums[kAtOnce] = {};
    SALIENT_UNROLL
    for (int e = 0; e < kAtOnce; ++e) at[e] = tile.place_of(a, first + e * kLinearThreads);
    SALIENT_UNROLL_BY(8 / kAtOnce)
    for (int split = 0; split < simt::grid_y(); ++split) {
      SALIENT_UNROLL
      for (int e = 0; e < kAtOnce; ++e)
        sums[e] += simt::load_fresh(a.parts + split * part + (at[e] < 0 ? 0 : at[e]));
    }
    SALIENT_UNROLL
    for (int e = 0; e < kAtOnce; ++e)
      if (at[e] >= 0) tile.store(a, first + e * kLinearThreads, at[e], sums[e]);
  }
}

/// Into y with the bias; with several splits into parts, and the block that comes last adds those of all, so
/// that the result does not depend on which block that is.
template <typename Tile>
SALIENT_DEVICE void store_output(const LinearArguments& a, const Tile& tile) {
  const int splits = simt::grid_y();
  float* parts = splits == 1 ? nullptr : a.parts + simt::block_y() * (int64_t{a.rows} * a.out);
  for (int i = simt::thread(); i < Tile::kRows * Tile::kColumns; i += kLinearThreads) {
    const int64_t at = tile.place_of(a, i);
    if (at < 0) continue;
    if (splits == 1) {
      tile.store(a, i, at, tile.sum_of(i));
    } else {
      parts[at] = tile.sum_of(i);
    }
  }
  if (splits == 1) return;
  uint32_t* counter = a.counters + simt::block_z() * simt::grid_x() + simt::block_x();
  if (!is_last_block(counter, splits, simt::shared_memory<uint32_t>())) return;
  if (simt::thread() == 0) *counter = 0;
  store_sums(a, tile);
}

}  // namespace salient::cuda
