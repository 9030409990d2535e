#pragma once

#include <string>

#include "backend/cuda/kv_rows.h"

namespace salient::cuda {

/// AttentionProblem (backend.h) with addresses of the device.
struct DeviceAttention {
  const float* query;  ///< f32 [count, heads * head_dim]
  DeviceRows keys;     ///< of the positions [0, first_position + count)
  DeviceRows values;
  float* output;  ///< f32 [count, heads * value_dim]
  int64_t count;
  int64_t heads;
  int64_t first_position;
  int64_t window = 0;  ///< 0: none
  float scale;
  float softcap = 0;
  const float* slopes = nullptr;  ///< f32 [heads], or none
  bool exact = false;             ///< products in f32, however many queries there are
};

/// What kernels of attention read. Row r of a kv head is query r / group and head r % group of those that
/// share it.
struct AttentionArguments {
  const float* query;
  float* output;
  const float* slopes;
  float* totals;  ///< [kv_heads, rows, splits, 2]: the highest score of a split, times log2 e, and the sum of
                  ///< 2^(score - highest); not touched when there is one split
  float* mixed;   ///< [kv_heads, rows, splits, value_dim]: the sum of 2^(score - highest) value
  RowLayout keys;
  RowLayout values;
  int rows;
  int group;
  int first_position;
  int window;      ///< larger than every position where there is none
  int first_key;   ///< where the first split begins, a multiple of kTileKeys
  int split_keys;  ///< of each split, a multiple of kTileKeys
  int splits;
  int key_lanes;       ///< lanes of a warp that share a key in kSplitAttention: 8, 16 or 32
  float score_factor;  ///< a score is cap tanh(q.k factor) + slope distance, without a cap q.k factor + ...
  float cap;           ///< times log2 e; 0: none
};

/// Keys that are worked on together; positions of a page are a multiple of it.
inline constexpr int kTileKeys = 64;
inline constexpr int kAttentionThreads = 128;

/// Products in f32: one row (1), or four.
inline constexpr Kernel kSplitAttentionFp32{"split_attention_fp32", kAttentionThreads, 3};
inline constexpr Kernel kSplitAttentionFp16{"split_attention_fp16", kAttentionThreads, 4};
inline constexpr Kernel kSplitAttentionInt8{"split_attention_int8", kAttentionThreads, 4};
inline constexpr Kernel kSplitAttention4Fp32{"split_attention4_fp32", kAttentionThreads, 3};
inline constexpr Kernel kSplitAttention4Fp16{"split_attention4_fp16", kAttentionThreads, 3};
inline constexpr Kernel kSplitAttention4Int8{"split_attention4_int8", kAttentionThreads, 3};

/// Products of halves, heads of up to so many features, keys and values as halves: 64 rows, or, wide, 128.
inline constexpr Kernel kTileAttention64{"tile_attention_64", kAttentionThreads, 3};
inline constexpr Kernel kTileAttention128{"tile_attention_128", kAttentionThreads, 2};
inline constexpr Kernel kTileAttention256{"tile_attention_256", kAttentionThreads, 2};
inline constexpr Kernel kTileAttention64Wide{"tile_attention_64_wide", kAttentionThreads, 2};
inline constexpr Kernel kTileAttention128Wide{"tile_attention_128_wide", kAttentionThreads, 2};
/// The same of 16 rows, keys and values as halves or codes, too.
inline constexpr Kernel kRowAttention64{"row_attention_64", kAttentionThreads, 3};
inline constexpr Kernel kRowAttention128{"row_attention_128", kAttentionThreads, 3};
inline constexpr Kernel kRowAttention256{"row_attention_256", kAttentionThreads, 2};

/// Splits become one.
inline constexpr Kernel kMergeSplits{"merge_splits", kAttentionThreads};

/// Whether attention takes heads of so many features: up to 256, a multiple of 8.
bool supports_heads(int64_t features);
/// Such heads. f32 through and through.
bool supports_split_attention(const DeviceAttention& problem);
/// The same heads, and a positive scale. Queries, keys, values and weights are rounded to f16, which they
/// must not exceed.
bool supports_tile_attention(const DeviceAttention& problem);

/// How a problem is run.
struct AttentionPlan {
  const Kernel* kernel = nullptr;  ///< null: no kernel takes it
  Grid grid;
  size_t shared_bytes = 0;
  int64_t splits = 1;      ///< of the keys
  int64_t split_keys = 0;  ///< of each
  bool halves = false;     ///< keys and values are made halves first
  std::string reason;
};

/// A pure function of the problem's sizes and the device.
AttentionPlan plan_attention(const DeviceAttention& problem, const DeviceProperties& device);

/// Of the workspace, on 16 bytes, that `attend` needs for a plan.
size_t attention_workspace_bytes(const DeviceAttention& problem, const AttentionPlan& plan);

void attend(Device& device, const DeviceAttention& problem, const AttentionPlan& plan, void* workspace);

}  // namespace salient::cuda
