#pragma once

#include "backend/cuda/device.h"
#include "backend/kv_pages.h"
#include "tensor/rope_pairs.h"

namespace salient::cuda {

/// Keys, or values, of one layer and sequence on the device: in the pages that kv_pages.h describes or,
/// without a page table, rows of f32.
struct DeviceRows {
  KvFormat format;                     ///< fp32 where `blocks` is null
  std::byte* const* blocks = nullptr;  ///< on the device: the address of each page's block
  size_t offset = 0;                   ///< of the page in its block
  const float* rows = nullptr;         ///< f32 [capacity, heads * dim], without blocks
};

/// The same as kernels read it: row r of page p of head h begins at (block of p) + offset + h head_stride + r
/// row_stride, its scale, if it has one, behind the kPageRows rows of its head.
struct RowLayout {
  std::byte* const* blocks;  ///< null: `rows` are the pages, one behind the other
  const std::byte* rows;
  int64_t offset;
  int64_t head_stride;
  int64_t row_stride;
  int dim;
  KvType type;
};

RowLayout layout_of(const DeviceRows& rows);

/// A row of a batch of sequences, and where it stands in its own.
struct BatchRow {
  std::byte* const* blocks;  ///< as those of DeviceRows; null for a row that is not kept
  int position;
  int row;  ///< of the batch
};

/// What joins sequences. Without `batch` all rows join the one whose pages `to_keys` and `to_values` are, at
/// positions first, first + 1, ..., or none where these have no blocks; with it these are any of the batch's.
struct NewRows {
  int64_t count;
  float* keys = nullptr;          ///< f32 [count, heads * dim] of `to_keys`, rotated in place, or none
  const float* values = nullptr;  ///< the same of `to_values`
  DeviceRows to_keys{};
  DeviceRows to_values{};
  int64_t first = 0;
  const BatchRow* batch = nullptr;  ///< on the device [count], row after row
};

/// Rotates features [first, first + 2 * pairs) of every head by row r of cosine and sine.
struct Rotation {
  const float* cosine = nullptr;  ///< f32 [rows, pairs]
  const float* sine = nullptr;    ///< f32 like cosine
  int64_t pairs = 0;              ///< 0: nothing is rotated
  int64_t first = 0;
  RopePairs layout = RopePairs::halves;
};

/// Heads of f32 that are rotated where they stand: x [rows, heads * head_dim].
struct RotatedHeads {
  float* x = nullptr;
  int64_t heads = 0;
  int64_t head_dim = 0;
};

/// Whether rope_and_store keeps such rows.
bool supports_store(const KvFormat& format);

/// x = rotation(x).
void rope(Device& device, const Rotation& rotation, const RotatedHeads& heads, int64_t rows);
/// Rotates queries and keys and keeps keys and values in their pages, the same bytes as the CPU's of the same
/// rotated keys.
void rope_and_store(Device& device, const Rotation& rotation, const RotatedHeads& queries,
                    const NewRows& rows);

/// One warp for a head of a row: first the heads of queries, then those of keys, then those of values.
struct KvRowsArguments {
  float* query;
  float* keys;
  const float* values;
  const BatchRow* batch;
  RowLayout to_keys;
  RowLayout to_values;
  const float* cosine;
  const float* sine;
  int count;
  int first_position;
  int query_heads;
  int query_dim;
  int key_heads;
  int value_heads;
  int pairs;
  int first_feature;
  bool neighbours;
};

inline constexpr Kernel kKvRows{"kv_rows", 128};

/// Rows of positions [first, first + count) as halves [heads, count, dim], of keys and of values.
struct HalfRowsArguments {
  RowLayout from[2];
  void* to[2];
  int heads;
  int first;
  int count;
};

inline constexpr Kernel kHalfRows{"half_rows", 256};

}  // namespace salient::cuda
