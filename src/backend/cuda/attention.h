#pragma once

#include <span>
#include <string>

#include "backend/cuda/kv_rows.h"
#include "backend/cuda/simt.h"

namespace salient::cuda {

/// AttentionProblem (backend.h) with addresses of the device. Or, with `positions`, a batch of single
/// queries, each of a sequence of its own: then `count` is 1, and what stands in `first_position` and the
/// blocks of keys and values is not looked at.
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
  const float* slopes = nullptr;        ///< f32 [heads], or none
  std::span<const int> positions = {};  ///< of the batch's queries
  const BatchRow* batch = nullptr;      ///< on the device, the same with their rows of `query` and `output`
  bool as_alone = true;  ///< every sequence gets the bytes that it gets alone; else what is fastest
};

/// How keys are shared out.
struct SplitRule {
  int most;         ///< splits of a sequence
  int least_tiles;  ///< of a split, where there are as many
};

/// Splits of the keys that some queries of a sequence see, the last of which may be shorter.
struct KeySplits {
  int first_key;   ///< where the first begins, a multiple of kTileKeys
  int split_keys;  ///< of each, a multiple of kTileKeys
  int splits;
};

/// What kernels of attention read. Row r of a kv head is query r / group and head r % group of those that
/// share it.
struct AttentionArguments {
  const float* query;
  float* output;
  const float* slopes;
  float* totals;  ///< [sequences, kv_heads, rows, most_splits, 2]: the highest score of a split, times log2
                  ///< e, and the sum of 2^(score - highest); not touched when a sequence has one split
  float*
      mixed;  ///< [sequences, kv_heads, rows, most_splits, value_dim]: the sum of 2^(score - highest) value
  const BatchRow* batch;  ///< of each sequence its only query; null: one sequence
  RowLayout keys;
  RowLayout values;
  int rows;
  int group;
  int first_position;  ///< of the one sequence
  KeySplits splits;    ///< of the one sequence
  SplitRule rule;      ///< of a batch
  int most_splits;     ///< of any sequence
  int window;          ///< larger than every position where there is none
  int key_lanes;       ///< lanes of a warp that share a key in kSplitAttention: 8, 16 or 32
  float score_factor;  ///< a score is cap tanh(q.k factor) + slope distance, without a cap q.k factor + ...
  float cap;           ///< times log2 e; 0: none
};

/// Keys that are worked on together; positions of a page are a multiple of it.
inline constexpr int kTileKeys = 64;
/// Scores are powers of two.
inline constexpr float kLog2E = 1.44269504088896341f;
inline constexpr int kAttentionThreads = 128;

/// The splits of what queries at positions [first_position, end) see. One function, for the plan and for
/// kernels, which cut the keys of each sequence of a batch themselves.
SALIENT_HOST_DEVICE KeySplits splits_of_keys(const SplitRule& rule, int window, int first_position, int end) {
  const int oldest = first_position - window + 1;
  const int first_key = oldest > 0 ? oldest / kTileKeys * kTileKeys : 0;
  const int tiles = (end - first_key + kTileKeys - 1) / kTileKeys;
  const int wanted = tiles / rule.least_tiles < rule.most ? tiles / rule.least_tiles : rule.most;
  const int split_tiles = wanted <= 1 ? tiles : (tiles + wanted - 1) / wanted;
  return {first_key, split_tiles * kTileKeys, (tiles + split_tiles - 1) / split_tiles};
}

/// Products in f32: one row (1), or four.
inline constexpr Kernel kSplitAttentionFp32{"split_attention_fp32", kAttentionThreads, 3};
inline constexpr Kernel kSplitAttentionFp16{"split_attention_fp16", kAttentionThreads, 4};
inline constexpr Kernel kSplitAttentionBf16{"split_attention_bf16", kAttentionThreads, 4};
inline constexpr Kernel kSplitAttentionInt8{"split_attention_int8", kAttentionThreads, 4};
inline constexpr Kernel kSplitAttention4Fp32{"split_attention4_fp32", kAttentionThreads, 3};
inline constexpr Kernel kSplitAttention4Fp16{"split_attention4_fp16", kAttentionThreads, 3};
inline constexpr Kernel kSplitAttention4Bf16{"split_attention4_bf16", kAttentionThreads, 3};
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

/// The same of pages of bf16, with queries and weights of bf16, too, so that nothing loses its range.
inline constexpr Kernel kTileAttention64Bf16{"tile_attention_64_bf16", kAttentionThreads, 3};
inline constexpr Kernel kTileAttention128Bf16{"tile_attention_128_bf16", kAttentionThreads, 2};
inline constexpr Kernel kTileAttention256Bf16{"tile_attention_256_bf16", kAttentionThreads, 2};
inline constexpr Kernel kTileAttention64WideBf16{"tile_attention_64_wide_bf16", kAttentionThreads, 2};
inline constexpr Kernel kTileAttention128WideBf16{"tile_attention_128_wide_bf16", kAttentionThreads, 2};
inline constexpr Kernel kRowAttention64Bf16{"row_attention_64_bf16", kAttentionThreads, 3};
inline constexpr Kernel kRowAttention128Bf16{"row_attention_128_bf16", kAttentionThreads, 3};
inline constexpr Kernel kRowAttention256Bf16{"row_attention_256_bf16", kAttentionThreads, 2};

/// Splits become one.
inline constexpr Kernel kMergeSplits{"merge_splits", kAttentionThreads};

/// Whether attention takes heads of so many features: up to 256, a multiple of 8.
bool supports_heads(int64_t features);
/// Such heads. f32 through and through.
bool supports_split_attention(const DeviceAttention& problem);
/// The same heads, and a positive scale. Queries, keys, values and weights are rounded to f16, which they
/// must not exceed, or, where pages are bf16, to that.
bool supports_tile_attention(const DeviceAttention& problem);
/// Whether the kernel of a single query of the problem's sizes takes a batch.
bool takes_batches(const DeviceAttention& problem, const DeviceProperties& device);

/// How a problem is run.
struct AttentionPlan {
  const Kernel* kernel = nullptr;  ///< null: no kernel takes it
  Grid grid;
  size_t shared_bytes = 0;
  SplitRule rule{1, 1};
  KeySplits splits{0, 0, 1};  ///< of the keys; of a batch those of the sequence that has the most
  int64_t at_once = 1;        ///< sequences of a launch
  bool halves = false;        ///< keys and values are made halves first
  std::string reason;
};

/// A pure function of the problem's sizes and the device. Of a batch only where `takes_batches`.
AttentionPlan plan_attention(const DeviceAttention& problem, const DeviceProperties& device);

/// Of the workspace, on 16 bytes, that `attend` needs for a plan.
size_t attention_workspace_bytes(const DeviceAttention& problem, const AttentionPlan& plan);

void attend(Device& device, const DeviceAttention& problem, const AttentionPlan& plan, void* workspace);

}  // namespace salient::cuda
