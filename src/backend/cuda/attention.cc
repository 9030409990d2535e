#include "backend/cuda/attention.h"

#include <algorithm>
#include <climits>
#include <vector>

#include "base/error.h"

namespace salient::cuda {
namespace {

constexpr int64_t kMostFeatures = 256;
/// Queries up to which a text grows token by token, or a few guesses are checked.
constexpr int64_t kFewQueries = 8;
/// Rows of a kv head from which products of halves take less time than those in f32 beside reading the keys.
constexpr int64_t kRowsForTiles = 4;
constexpr float kLog2E = 1.44269504088896341f;

/// What the launch of a kernel needs to know of it.
struct KernelSizes {
  const Kernel* kernel;
  int64_t rows;    ///< of a block
  int64_t blocks;  ///< that a multiprocessor has room for, and that keep its memory busy
  int64_t tiles;   ///< of keys that are worth a split
  size_t shared_bytes;
  const char* reason;
};

int64_t blocks_of(int64_t count, int64_t size) { return (count + size - 1) / size; }

int64_t group_of(const DeviceAttention& problem) { return problem.heads / problem.keys.format.heads; }
int64_t rows_of(const DeviceAttention& problem) { return problem.count * group_of(problem); }
int64_t widest(const DeviceAttention& problem) {
  return std::max(problem.keys.format.dim, problem.values.format.dim);
}

/// The first tile that any query sees.
int64_t first_key(const DeviceAttention& problem) {
  if (problem.window == 0) return 0;
  return std::max<int64_t>(0, problem.first_position - problem.window + 1) / kTileKeys * kTileKeys;
}

KernelSizes split_kernel(const DeviceAttention& problem) {
  const bool one = rows_of(problem) == 1;
  const int64_t rows = one ? 1 : 4;
  const auto of_type = [&](const Kernel& single, const Kernel& four) { return one ? &single : &four; };
  KernelSizes sizes{
      .kernel = of_type(kSplitAttentionFp32, kSplitAttention4Fp32),
      .rows = rows,
      .blocks = one ? 4 : 3,
      .tiles = 1,
      .shared_bytes = static_cast<size_t>(4 * rows * (problem.values.format.dim + 2)) * sizeof(float),
      .reason = "few rows, or exact: products in f32"};
  if (problem.keys.format.type == KvType::fp16)
    sizes.kernel = of_type(kSplitAttentionFp16, kSplitAttention4Fp16);
  if (problem.keys.format.type == KvType::int8)
    sizes.kernel = of_type(kSplitAttentionInt8, kSplitAttention4Int8);
  return sizes;
}

/// 16 rows, tiles of 128 bytes for each feature: four of them, of the widest heads three.
KernelSizes row_kernel(int64_t features) {
  constexpr const char* kReason = "a few rows of halves: the keys of a tile are shared out";
  if (features <= 64) return {&kRowAttention64, 16, 3, 1, size_t{4} * 64 * 128, kReason};
  if (features <= 128) return {&kRowAttention128, 16, 3, 1, size_t{4} * 128 * 128, kReason};
  return {&kRowAttention256, 16, 1, 1, size_t{3} * 256 * 128, kReason};
}

/// 64 rows, two tiles, and of the widest heads the queries.
KernelSizes tile_kernel(int64_t features) {
  constexpr const char* kReason = "many rows: products of halves";
  if (features <= 64) return {&kTileAttention64, 64, 3, 4, size_t{2} * 64 * 128, kReason};
  if (features <= 128) return {&kTileAttention128, 64, 2, 4, size_t{2} * 128 * 128, kReason};
  return {&kTileAttention256, 64, 2, 4, size_t{3} * 256 * 128, kReason};
}

const char* why_no_kernel(const DeviceAttention& problem) {
  const KvFormat& keys = problem.keys.format;
  const KvFormat& values = problem.values.format;
  if (keys.type != values.type || keys.heads != values.heads) return "keys and values differ";
  if (problem.heads % keys.heads != 0) return "heads are no multiple of the kv heads";
  if (widest(problem) > kMostFeatures) return "heads of more than 256 features";
  if (keys.dim % 8 != 0 || values.dim % 8 != 0) return "heads of features that are no multiple of 8";
  if (problem.first_position + problem.count > INT_MAX - kTileKeys) return "too many positions";
  return nullptr;
}

KernelSizes kernel_for(const DeviceAttention& problem) {
  const bool few = problem.count <= kFewQueries;
  const bool worth = !few || (problem.keys.format.type != KvType::fp32 && rows_of(problem) >= kRowsForTiles);
  if (problem.exact || !worth || !supports_tile_attention(problem)) return split_kernel(problem);
  return few && rows_of(problem) <= 16 ? row_kernel(widest(problem)) : tile_kernel(widest(problem));
}

int key_lanes(const DeviceAttention& problem) {
  int lanes = 8;
  while (lanes * 8 < widest(problem)) lanes *= 2;
  return lanes;
}

AttentionArguments arguments_of(const DeviceAttention& problem, const AttentionPlan& plan, void* workspace) {
  const int64_t softmaxes = problem.keys.format.heads * rows_of(problem) * plan.splits;
  auto* totals = static_cast<float*>(workspace);
  const bool capped = problem.softcap > 0;
  return {
      .query = problem.query,
      .output = problem.output,
      .slopes = problem.slopes,
      .totals = totals,
      .mixed = plan.splits == 1 ? nullptr : totals + 2 * softmaxes,
      .keys = layout_of(problem.keys),
      .values = layout_of(problem.values),
      .rows = static_cast<int>(rows_of(problem)),
      .group = static_cast<int>(group_of(problem)),
      .first_position = static_cast<int>(problem.first_position),
      .window = problem.window == 0 ? INT_MAX : static_cast<int>(std::min<int64_t>(problem.window, INT_MAX)),
      .first_key = static_cast<int>(first_key(problem)),
      .split_keys = static_cast<int>(plan.split_keys),
      .splits = static_cast<int>(plan.splits),
      .key_lanes = key_lanes(problem),
      .score_factor = capped ? problem.scale / problem.softcap : problem.scale * kLog2E,
      .cap = capped ? problem.softcap * kLog2E : 0.0f};
}

}  // namespace

bool supports_split_attention(const DeviceAttention& problem) { return why_no_kernel(problem) == nullptr; }

bool supports_tile_attention(const DeviceAttention& problem) {
  return why_no_kernel(problem) == nullptr && problem.scale > 0;
}

AttentionPlan plan_attention(const DeviceAttention& problem, const DeviceProperties& device) {
  if (const char* reason = why_no_kernel(problem)) return {.reason = reason};
  const KernelSizes sizes = kernel_for(problem);
  const int64_t kv_heads = problem.keys.format.heads;
  const int64_t blocks = blocks_of(rows_of(problem), sizes.rows);
  const int64_t end = problem.first_position + problem.count;
  const int64_t tiles = blocks_of(end - first_key(problem), kTileKeys);
  // As many blocks as are at work at once, none of which waits for another to end.
  const int64_t room = device.multiprocessors * sizes.blocks / (blocks * kv_heads);
  const int64_t wanted = std::clamp<int64_t>(room, 1, std::max<int64_t>(1, tiles / sizes.tiles));
  const int64_t split_tiles = blocks_of(tiles, wanted);
  const int64_t splits = blocks_of(tiles, split_tiles);
  return {
      .kernel = sizes.kernel,
      .grid = {.x = static_cast<int>(blocks), .y = static_cast<int>(kv_heads), .z = static_cast<int>(splits)},
      .shared_bytes = sizes.shared_bytes,
      .splits = splits,
      .split_keys = split_tiles * kTileKeys,
      .reason = sizes.reason};
}

size_t attention_workspace_bytes(const DeviceAttention& problem, const AttentionPlan& plan) {
  if (plan.splits == 1) return 0;
  const int64_t softmaxes = problem.keys.format.heads * rows_of(problem) * plan.splits;
  return static_cast<size_t>(softmaxes * (problem.values.format.dim + 2)) * sizeof(float);
}

void attend(Device& device, const DeviceAttention& problem, const AttentionPlan& plan, void* workspace) {
  if (plan.kernel == nullptr) fail(ErrorKind::internal, "attention on the device: {}", plan.reason);
  const AttentionArguments arguments = arguments_of(problem, plan, workspace);
  device.launch({.kernel = *plan.kernel,
                 .grid = plan.grid,
                 .shared_bytes = plan.shared_bytes,
                 .arguments = bytes_of(arguments)});
  if (plan.splits == 1) return;
  device.launch({.kernel = kMergeSplits,
                 .grid = {.x = arguments.rows, .y = plan.grid.y},
                 .arguments = bytes_of(arguments)});
}

}  // namespace salient::cuda
