#pragma once

#include "backend/cuda/floats.cuh"
#include "backend/cuda/products.h"

// Products of f32 on tensor cores, which multiply bf16. A float is the sum of three bf16 numbers ("planes"),
// each the rounded rest of the one before, 24 bits in all; of the nine products of planes the six largest
// count, and what is left out is below 2^-24 of |a||b| (Henry, Tang & Heinecke 2019). One plane alone is
// MatmulPrecision::bf16.
//
// Tensor cores cut off what their sums cannot hold, always towards zero, and a long chain of them drifts
// (Ootomo & Yokota 2022). So with three planes each step of 16 is summed up from zero and added by the
// multiprocessor, which rounds to nearest: 4 additions beside 6 matrix products. These six are the bound: a
// sixth of the products of bf16, 52 TFLOP/s on an A100, whose f32 units do 19.
//
// A block of 8 warps has 128 x 128 results, 64 x 32 a warp. The next 32 columns and rows of a and b are on
// their way into registers while the last ones are multiplied, and go as planes to the other half of shared
// memory, 2 x 2 x 3 x 8 KiB.

namespace salient::cuda {

/// Where chunks of 8 bf16 numbers, 16 bytes, of a tile lie. `kRows`: 128 rows of 32 numbers along the depth,
/// for ldmatrix; else 32 rows of 128 numbers across it, for ldmatrix.trans. Eight lanes that are served at
/// once ask for the same chunk of eight rows in turn, or write chunks side by side: with the exclusive or
/// they never meet on a bank.
template <bool kRows>
struct TileLayout {
  static constexpr int kChunks = kRows ? kProductDepth / 8 : kProductTile / 8;  // of a row
  SALIENT_DEVICE static int offset(int row, int chunk) {
    return (row * kChunks + (kRows ? chunk ^ (row >> 1 & 3) : chunk ^ (row & 7))) * 8;
  }
};

struct Chunk {
  float value[8];
};

/// Of eight elements the first `count`, a multiple of 4 that may be anything; zeros behind them.
SALIENT_DEVICE Chunk load_chunk(const float* from, int count) {
  Chunk chunk;
  SALIENT_UNROLL
  for (int i = 0; i < 8; i += 4) {
    Floats4 four{};
    if (i < count) four = *reinterpret_cast<const Floats4*>(from + i);
    SALIENT_UNROLL
    for (int e = 0; e < 4; ++e) chunk.value[i + e] = four.value[e];
  }
  return chunk;
}

/// Planes of one chunk, kPlaneElements apart. A rest is exact: no more bits than the float it comes from.
template <int kPlanes>
SALIENT_DEVICE void store_planes(Chunk chunk, uint16_t* to) {
  constexpr int kPlaneElements = kProductTile * kProductDepth;
  SALIENT_UNROLL
  for (int plane = 0; plane < kPlanes; ++plane) {
    simt::Words4 words;
    SALIENT_UNROLL
    for (int i = 0; i < 4; ++i) {
      float& low = chunk.value[2 * i];
      float& high = chunk.value[2 * i + 1];
      words.word[i] = simt::BF16::pack(low, high);
      low -= simt::BF16::low(words.word[i]);
      high -= simt::BF16::high(words.word[i]);
    }
    *reinterpret_cast<simt::Words4*>(to + plane * kPlaneElements) = words;
  }
}

/// Tiles of one operand on their way to shared memory, two chunks a thread.
template <int kPlanes, bool kRows>
class OperandTile {
 public:
  static constexpr int kElements = kPlanes * kProductTile * kProductDepth;
  using Places = TileLayout<kRows>;

  /// Tiles of the operand's rows (kRows) or columns from `first` on, beyond `across` are zeros; the first one
  /// from `depth` on. With `group` above 0 there are zeros where rows and the depth belong to different
  /// groups of so many.
  SALIENT_DEVICE OperandTile(const ProductOperand& operand, int first, int across, int depth, int group)
      : row_((kRows ? first : depth) + own_row()),
        column_((kRows ? depth : first) + own_chunk() * 8),
        across_(across),
        group_(group),
        apart_(operand.stride * kRowsApart),
        step_(kRows ? kProductDepth : operand.stride * kProductDepth),
        from_(operand.data + row_ * operand.stride + column_) {}

  /// The next tile; beyond depth `end` are zeros.
  SALIENT_DEVICE void load(int end) {
    SALIENT_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int row = row_ + i * kRowsApart;
      const bool inside = kRows ? row < across_ && !is_apart(row) : row < end;
      chunks_[i] = load_chunk(from_ + i * apart_, inside ? (kRows ? end : across_) - column_ : 0);
    }
    from_ += step_;
    (kRows ? column_ : row_) += kProductDepth;
  }
  SALIENT_DEVICE void store(uint16_t* tile) const {
    SALIENT_UNROLL
    for (int i = 0; i < 2; ++i)
      store_planes<kPlanes>(chunks_[i], tile + Places::offset(own_row() + i * kRowsApart, own_chunk()));
  }

 private:
  static constexpr int kRowsApart = kProductThreads / Places::kChunks;
  SALIENT_DEVICE static int own_row() { return simt::thread() / Places::kChunks; }
  SALIENT_DEVICE static int own_chunk() { return simt::thread() % Places::kChunks; }
  SALIENT_DEVICE bool is_apart(int row) const { return group_ > 0 && row / group_ != column_ / group_; }

  int row_;
  int column_;
  int across_;
  int group_;
  int64_t apart_;
  int64_t step_;
  const float* from_;
  Chunk chunks_[2];
};

/// 16 rows of a by 16 of the depth from (row, step * 16) on.
template <bool kRows>
SALIENT_DEVICE void load_left(uint32_t (&a)[4], const uint16_t* plane, int row, int step) {
  const int lane = simt::lane();
  if constexpr (kRows) {
    simt::load_matrices(a, plane + TileLayout<true>::offset(row + lane % 16, step * 2 + lane / 16));
  } else {
    const int depth = step * 16 + lane / 16 * 8 + lane % 8;
    simt::load_matrices_transposed(a, plane + TileLayout<false>::offset(depth, row / 8 + lane / 8 % 2));
  }
}
/// 16 columns of b by 16 of the depth: b[0], b[1] of the first eight columns, b[2], b[3] of the others.
template <bool kRows>
SALIENT_DEVICE void load_right(uint32_t (&b)[4], const uint16_t* plane, int column, int step) {
  const int lane = simt::lane();
  if constexpr (kRows) {
    const int row = column + lane / 16 * 8 + lane % 8;
    simt::load_matrices(b, plane + TileLayout<true>::offset(row, step * 2 + lane / 8 % 2));
  } else {
    const int depth = step * 16 + lane / 8 % 2 * 8 + lane % 8;
    simt::load_matrices_transposed(b, plane + TileLayout<false>::offset(depth, column / 8 + lane / 16));
  }
}

/// The results of one warp: 4 x 4 blocks of 16 x 8, as mma has them.
struct WarpResults {
  float c[4][4][4];

  SALIENT_DEVICE static int first_row() { return simt::warp() / 4 * 64; }
  SALIENT_DEVICE static int first_column() { return simt::warp() % 4 * 32; }

  /// Calls body(row, column, value, value of the next column) for each pair that the thread has, counted from
  /// the tile's first.
  template <typename Body>
  SALIENT_DEVICE void for_pairs(const Body& body) const {
    const int lane = simt::lane();
    SALIENT_UNROLL
    for (int i = 0; i < 4; ++i) {
      SALIENT_UNROLL
      for (int j = 0; j < 4; ++j) {
        const int row = first_row() + i * 16 + lane / 4;
        const int column = first_column() + j * 8 + lane % 4 * 2;
        body(row, column, c[i][j][0], c[i][j][1]);
        body(row + 8, column, c[i][j][2], c[i][j][3]);
      }
    }
  }
  SALIENT_DEVICE void scale(float factor) {
    SALIENT_UNROLL
    for (int i = 0; i < 4; ++i) {
      SALIENT_UNROLL
      for (int j = 0; j < 4; ++j) {
        SALIENT_UNROLL
        for (int e = 0; e < 4; ++e) c[i][j][e] *= factor;
      }
    }
  }
};

/// c += the products of planes whose numbers add up to less than kPlanes, the smallest first.
template <int kPlanes>
SALIENT_DEVICE void multiply_planes(float (&c)[4], const uint32_t (&a)[kPlanes][4],
                                    const uint32_t (&b)[kPlanes][4], int half) {
  if constexpr (kPlanes == 1) {
    simt::mma_bf16(c, a[0], b[0][2 * half], b[0][2 * half + 1]);
  } else {
    float sum[4] = {};
    SALIENT_UNROLL
    for (int order = kPlanes - 1; order >= 0; --order) {
      SALIENT_UNROLL
      for (int plane = 0; plane <= order; ++plane)
        simt::mma_bf16(sum, a[plane], b[order - plane][2 * half], b[order - plane][2 * half + 1]);
    }
    SALIENT_UNROLL
    for (int e = 0; e < 4; ++e) c[e] += sum[e];
  }
}

/// 16 of the depth of a tile.
template <int kPlanes, bool kRowsA, bool kRowsB>
SALIENT_DEVICE void multiply_step(WarpResults& results, const uint16_t* a, const uint16_t* b, int step) {
  constexpr int kPlaneElements = kProductTile * kProductDepth;
  uint32_t right[2][kPlanes][4];
  SALIENT_UNROLL
  for (int j = 0; j < 2; ++j) {
    SALIENT_UNROLL
    for (int plane = 0; plane < kPlanes; ++plane)
      load_right<kRowsB>(right[j][plane], b + plane * kPlaneElements, WarpResults::first_column() + j * 16,
                         step);
  }
  SALIENT_UNROLL
  for (int i = 0; i < 4; ++i) {
    uint32_t left[kPlanes][4];
    SALIENT_UNROLL
    for (int plane = 0; plane < kPlanes; ++plane)
      load_left<kRowsA>(left[plane], a + plane * kPlaneElements, WarpResults::first_row() + i * 16, step);
    SALIENT_UNROLL
    for (int j = 0; j < 4; ++j) multiply_planes<kPlanes>(results.c[i][j], left, right[j / 2], j % 2);
  }
}

/// Which part of the depth a block multiplies. What lies before `twice_until` counts twice, a multiple of
/// kProductDepth from `begin` on.
struct DepthRange {
  int begin;
  int end;
  int twice_until;
  int group;  ///< see OperandTile
};

/// The next tile of a is fetched during the first step, that of b during the second: there are registers for
/// one of them. Behind the end these are zeros, which nothing reads.
template <int kPlanes, bool kRowsA, bool kRowsB>
SALIENT_DEVICE void multiply_range(WarpResults& results, OperandTile<kPlanes, kRowsA>& a,
                                   OperandTile<kPlanes, kRowsB>& b, const DepthRange& range) {
  constexpr int kElements = OperandTile<kPlanes, kRowsA>::kElements;
  auto* shared = simt::shared_memory<uint16_t>();
  a.load(range.end);
  a.store(shared);
  b.load(range.end);
  b.store(shared + kElements);
  simt::sync_block();
  int buffer = 0;
  for (int depth = range.begin; depth < range.end; depth += kProductDepth) {
    const uint16_t* tile = shared + buffer * 2 * kElements;
    buffer ^= 1;
    uint16_t* next_tile = shared + buffer * 2 * kElements;
    if (depth == range.twice_until && depth > range.begin) results.scale(2.0f);
    a.load(range.end);
    multiply_step<kPlanes, kRowsA, kRowsB>(results, tile, tile + kElements, 0);
    a.store(next_tile);
    b.load(range.end);
    multiply_step<kPlanes, kRowsA, kRowsB>(results, tile, tile + kElements, 1);
    b.store(next_tile + kElements);
    simt::sync_block();
  }
}

SALIENT_DEVICE float used(ProductUse use, float before, float value) {
  return use == ProductUse::add ? before + value : before - value;
}

/// Pairs of results by 8 bytes: four lanes then fill a sector of memory at once.
struct alignas(8) Floats2 {
  float value[2];
};
SALIENT_DEVICE void store_pair(const ProductArguments& p, int row, int column, Floats2 values) {
  if (row >= p.m || column >= p.n) return;
  auto* to = reinterpret_cast<Floats2*>(p.c + row * p.c_stride + column);
  if (p.use != ProductUse::set) {
    const Floats2 before = *to;
    SALIENT_UNROLL
    for (int i = 0; i < 2; ++i) values.value[i] = used(p.use, before.value[i], values.value[i]);
  }
  *to = values;
}

/// What is on and below the diagonal, on both sides of it.
SALIENT_DEVICE void store_mirrored(const ProductArguments& p, int row, int column, float value) {
  if (row >= p.m || column > row) return;
  float* to = p.c + row * p.c_stride + column;
  const float result = p.use == ProductUse::set ? value : used(p.use, *to, value);
  *to = result;
  p.c[column * p.c_stride + row] = result;
}

/// Whether a block has nothing to do.
SALIENT_DEVICE bool is_left_out(ProductPart part, int row, int column) {
  if (part == ProductPart::mirrored) return column > row;
  return part == ProductPart::upper && column < row;
}

template <int kPlanes, bool kRowsA, bool kRowsB>
SALIENT_DEVICE void dense_product(const ProductArguments& p) {
  const int row = simt::block_y() * kProductTile;
  const int column = simt::block_x() * kProductTile;
  if (is_left_out(p.part, row, column)) return;
  OperandTile<kPlanes, kRowsA> a(p.a, row, p.m, 0, 0);
  OperandTile<kPlanes, kRowsB> b(p.b, column, p.n, 0, 0);
  WarpResults results{};
  multiply_range<kPlanes, kRowsA, kRowsB>(results, a, b, {0, p.k, 0, 0});
  results.for_pairs([&](int i, int j, float first, float second) {
    if (p.part != ProductPart::mirrored) return store_pair(p, row + i, column + j, {{first, second}});
    store_mirrored(p, row + i, column + j, first);
    store_mirrored(p, row + i, column + j + 1, second);
  });
}

// Quadratic forms x S x^T of rows x. As S is symmetric, a tile of columns is multiplied with what lies before
// it, which then counts twice, and with its own square block: half the products. What of a row falls into a
// tile of columns is multiplied with x where it stands, in registers; sums of 16 columns are all that leaves
// the kernel.

/// A tile of columns and the depth that it needs: whole rows, or groups that are wider or narrower than a
/// tile.
SALIENT_DEVICE DepthRange form_range(const FormArguments& f, int column) {
  const int end = column + kProductTile < f.columns ? column + kProductTile : f.columns;
  if (f.group_width >= f.columns) return {0, end, column, 0};
  if (f.group_width >= kProductTile) return {column / f.group_width * f.group_width, end, column, 0};
  return {column, end, column, f.group_width};
}

SALIENT_DEVICE float at_or_zero(const FormArguments& f, int row, int column) {
  return row < f.rows && column < f.columns ? f.x[int64_t{row} * f.columns + column] : 0.0f;
}

/// The products of one row of a block of 16 columns with x, summed over the four lanes that have them.
SALIENT_DEVICE void store_segment(const FormArguments& f, int row, int column, const float (&products)[4]) {
  const int lane = simt::lane();
  float sum = 0;
  SALIENT_UNROLL
  for (int e = 0; e < 4; ++e)
    sum += products[e] * at_or_zero(f, row, column + e / 2 * 8 + lane % 4 * 2 + e % 2);
  sum += simt::shuffle_xor(sum, 1);
  sum += simt::shuffle_xor(sum, 2);
  if (lane % 4 == 0 && row < f.rows && column < f.columns)
    f.sums[int64_t{row} * f.segments + column / kSegment] = sum;
}

template <int kPlanes>
SALIENT_DEVICE void form_of_tile(const FormArguments& f) {
  const int row = simt::block_y() * kProductTile;
  // The last tiles have the longest way: they begin first.
  const int column = (simt::grid_x() - 1 - simt::block_x()) * kProductTile;
  const DepthRange range = form_range(f, column);
  OperandTile<kPlanes, true> a({f.x, f.columns}, row, f.rows, range.begin, 0);
  OperandTile<kPlanes, true> b({f.symmetric, f.columns}, column, f.columns, range.begin, range.group);
  WarpResults results{};
  multiply_range<kPlanes, true, true>(results, a, b, range);
  SALIENT_UNROLL
  for (int i = 0; i < 4; ++i) {
    SALIENT_UNROLL
    for (int j = 0; j < 4; j += 2) {
      const int first_row = row + WarpResults::first_row() + i * 16 + simt::lane() / 4;
      const int first_column = column + WarpResults::first_column() + j * 8;
      const auto& left = results.c[i][j];
      const auto& right = results.c[i][j + 1];
      store_segment(f, first_row, first_column, {left[0], left[1], right[0], right[1]});
      store_segment(f, first_row + 8, first_column, {left[2], left[3], right[2], right[3]});
    }
  }
}

/// A warp has a row: its lanes the groups, or parts of the only one, which the first lane adds up.
SALIENT_DEVICE void sum_segments_of_rows(const SumArguments& a) {
  double* parts = simt::shared_memory<double>() + simt::warp() * simt::kWarp;
  const int64_t row = int64_t{simt::block_x()} * (kProductThreads / simt::kWarp) + simt::warp();
  if (row >= a.rows) return;
  const float* sums = a.sums + row * a.segments;
  double* result = a.result + row * a.groups;
  if (a.groups > 1) {
    for (int group = simt::lane(); group < a.groups; group += simt::kWarp) {
      const int begin = group * a.segments_per_group;
      const int end = begin + a.segments_per_group < a.segments ? begin + a.segments_per_group : a.segments;
      double sum = 0;
      for (int i = begin; i < end; ++i) sum += static_cast<double>(sums[i]);
      result[group] = sum;
    }
    return;
  }
  double own = 0;
  for (int i = simt::lane(); i < a.segments; i += simt::kWarp) own += static_cast<double>(sums[i]);
  parts[simt::lane()] = own;
  simt::sync_warp();
  if (simt::lane() != 0) return;
  double sum = 0;
  for (int i = 0; i < simt::kWarp; ++i) sum += parts[i];
  *result = sum;
}

/// A result for each thread, summed in double.
SALIENT_DEVICE void plain_product_of_threads(const PlainProductArguments& p) {
  const int64_t index = int64_t{simt::block_x()} * kProductThreads + simt::thread();
  const auto row = static_cast<int>(index / p.n);
  const auto column = static_cast<int>(index % p.n);
  if (row >= p.m || is_left_out(p.part, row, column)) return;
  double sum = 0;
  for (int64_t k = 0; k < p.k; ++k)
    sum += static_cast<double>(p.a[row * p.a_row + k * p.a_depth]) *
           static_cast<double>(p.b[k * p.b_depth + column * p.b_column]);
  float* to = p.c + row * p.c_stride + column;
  const auto value = static_cast<float>(sum);
  const float result = p.use == ProductUse::set ? value : used(p.use, *to, value);
  *to = result;
  if (p.part == ProductPart::mirrored) p.c[column * p.c_stride + row] = result;
}

/// A row and group for each block, columns for its threads.
SALIENT_DEVICE void plain_form_of_groups(const PlainFormArguments& f) {
  auto* parts = simt::shared_memory<double>();
  const int group = simt::block_x() % f.groups;
  const float* x = f.x + int64_t{simt::block_x() / f.groups} * f.columns;
  const int begin = group * f.group_width;
  const int end = begin + f.group_width < f.columns ? begin + f.group_width : f.columns;
  double own = 0;
  for (int column = begin + simt::thread(); column < end; column += kProductThreads) {
    double sum = 0;
    for (int k = begin; k < end; ++k)
      sum += static_cast<double>(x[k]) * static_cast<double>(f.symmetric[int64_t{k} * f.columns + column]);
    own += sum * static_cast<double>(x[column]);
  }
  parts[simt::thread()] = own;
  simt::sync_block();
  if (simt::thread() != 0) return;
  double sum = 0;
  for (int i = 0; i < kProductThreads; ++i) sum += parts[i];
  f.result[simt::block_x()] = sum;
}

#define SALIENT_PRODUCT_KERNELS(X)                                                                   \
  X(product_of_rows, ProductArguments, 256, 1, dense_product<kExactPlanes, true, true>)              \
  X(product_of_rows_and_columns, ProductArguments, 256, 1, dense_product<kExactPlanes, true, false>) \
  X(product_of_columns, ProductArguments, 256, 1, dense_product<kExactPlanes, false, false>)         \
  X(rounded_product_of_columns, ProductArguments, 256, 2, dense_product<1, false, false>)            \
  X(form_of_rows, FormArguments, 256, 1, form_of_tile<kExactPlanes>)                                 \
  X(rounded_form_of_rows, FormArguments, 256, 2, form_of_tile<1>)                                    \
  X(sum_segments, SumArguments, 256, 1, sum_segments_of_rows)                                        \
  X(plain_product, PlainProductArguments, 256, 1, plain_product_of_threads)                          \
  X(plain_form, PlainFormArguments, 256, 1, plain_form_of_groups)

}  // namespace salient::cuda
