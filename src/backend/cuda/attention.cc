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
  int64_t rows;   ///< of a block
  int64_t tiles;  ///< of keys that are worth a split
  size_t shared_bytes;
  const char* reason;
  bool halves_alone = false;  ///< it reads no other keys and values
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

/// Blocks that are at work at a time.
int64_t room_for(const KernelSizes& sizes, const DeviceProperties& device) {
  return int64_t{device.multiprocessors} * resident_blocks(device, *sizes.kernel, sizes.shared_bytes);
}

KernelSizes split_kernel(const DeviceAttention& problem) {
  const bool one = rows_of(problem) == 1;
  const int64_t rows = one ? 1 : 4;
  const auto of_type = [&](const Kernel& single, const Kernel& four) { return one ? &single : &four; };
  KernelSizes sizes{
      .kernel = of_type(kSplitAttentionFp32, kSplitAttention4Fp32),
      .rows = rows,
      .tiles = 1,
      .shared_bytes = static_cast<size_t>(4 * rows * (problem.values.format.dim + 2)) * sizeof(float),
      .reason = "few rows, or exact: products in f32"};
  if (problem.keys.format.type == KvType::fp16)
    sizes.kernel = of_type(kSplitAttentionFp16, kSplitAttention4Fp16);
  if (problem.keys.format.type == KvType::int8)
    sizes.kernel = of_type(kSplitAttentionInt8, kSplitAttention4Int8);
  return sizes;
}

constexpr int64_t kRowsOfRowKernel = 16;

/// Four parts of tiles to a warp, of the widest heads two: 16 keys, and where they are codes their scales.
/// Behind them the queries, if registers have no room for them.
KernelSizes row_kernel(int64_t features) {
  constexpr const char* kReason = "a few rows of halves or codes: the keys of a tile are shared out";
  const auto bytes = [](size_t slots, size_t width, size_t queries) {
    return 4 * slots * (16 * 2 * width + 16 * sizeof(float)) + queries * 2 * width;
  };
  if (features <= 64) return {&kRowAttention64, kRowsOfRowKernel, 1, bytes(4, 64, 0), kReason};
  if (features <= 128) return {&kRowAttention128, kRowsOfRowKernel, 1, bytes(4, 128, 16), kReason};
  return {&kRowAttention256, kRowsOfRowKernel, 1, bytes(2, 256, 16), kReason};
}

/// A tile of keys, one of values, and where registers have no room for them the queries.
KernelSizes tile_kernel(int64_t features) {
  constexpr const char* kReason = "many rows: products of halves";
  const auto bytes = [](size_t rows, size_t width) { return rows * 2 * width; };
  if (features <= 64) return {&kTileAttention64, 64, 4, bytes(2 * 64, 64), kReason, true};
  if (features <= 128) return {&kTileAttention128, 64, 4, bytes(2 * 64, 128), kReason, true};
  return {&kTileAttention256, 64, 4, bytes(2 * 64 + 64, 256), kReason, true};
}

KernelSizes wide_tile_kernel(int64_t features) {
  constexpr const char* kReason = "very many rows: products of halves, twice as many for what is loaded";
  const auto bytes = [](size_t rows, size_t width) { return rows * 2 * width; };
  if (features <= 64) return {&kTileAttention64Wide, 128, 4, bytes(2 * 64, 64), kReason, true};
  return {&kTileAttention128Wide, 128, 4, bytes(2 * 32 + 128, 128), kReason, true};
}

const char* why_no_kernel(const DeviceAttention& problem) {
  const KvFormat& keys = problem.keys.format;
  const KvFormat& values = problem.values.format;
  if (keys.type != values.type || keys.heads != values.heads) return "keys and values differ";
  if (problem.heads % keys.heads != 0) return "heads are no multiple of the kv heads";
  if (!supports_heads(keys.dim) || !supports_heads(values.dim))
    return "heads of more than 256 features or of no multiple of 8";
  if (problem.first_position + problem.count > INT_MAX - kTileKeys) return "too many positions";
  return nullptr;
}

KernelSizes kernel_for(const DeviceAttention& problem, const DeviceProperties& device) {
  const KvType type = problem.keys.format.type;
  const int64_t rows = rows_of(problem);
  const int64_t features = widest(problem);
  // f32 is kept by who wants it, as long as it is not the products that take the time.
  const bool few = problem.count <= kFewQueries && (type == KvType::fp32 || rows < kRowsForTiles);
  if (problem.exact || few || !supports_tile_attention(problem)) return split_kernel(problem);
  // Making halves of codes takes as long as reading them some five times.
  const int64_t most = type == KvType::int8 ? 4 * kRowsOfRowKernel : kRowsOfRowKernel;
  if (type != KvType::fp32 && rows <= most) return row_kernel(features);
  const KernelSizes wide = wide_tile_kernel(features);
  const int64_t wide_blocks = blocks_of(rows, wide.rows) * problem.keys.format.heads;
  const bool enough = features <= 128 && wide_blocks >= room_for(wide, device);
  return enough ? wide : tile_kernel(features);
}

int key_lanes(const DeviceAttention& problem) {
  int lanes = 8;
  while (lanes * 8 < widest(problem)) lanes *= 2;
  return lanes;
}

/// Positions that any query sees, from a tile's first on.
int64_t seen_keys(const DeviceAttention& problem) {
  return problem.first_position + problem.count - first_key(problem);
}

/// Where what a plan needs stands in the workspace, each on 16 bytes: halves, totals, mixtures.
struct Workspace {
  size_t values = 0;  ///< halves of keys stand at 0
  size_t totals = 0;
  size_t mixed = 0;
  size_t bytes = 0;
};

Workspace workspace_of(const DeviceAttention& problem, const AttentionPlan& plan) {
  const KvFormat& keys = problem.keys.format;
  const KvFormat& values = problem.values.format;
  Workspace result;
  if (plan.halves) {
    const auto rows = static_cast<size_t>(seen_keys(problem) * keys.heads);
    result.values = rows * static_cast<size_t>(keys.dim) * 2;
    result.totals = result.values + rows * static_cast<size_t>(values.dim) * 2;
  }
  const int64_t softmaxes = plan.splits == 1 ? 0 : keys.heads * rows_of(problem) * plan.splits;
  result.mixed = result.totals + static_cast<size_t>(blocks_of(softmaxes, 2) * 4) * sizeof(float);
  result.bytes = result.mixed + static_cast<size_t>(softmaxes * values.dim) * sizeof(float);
  return result;
}

/// Of halves [heads, count, dim] whose first row is that of position `first`.
RowLayout layout_of_halves(const KvFormat& format, const std::byte* memory, int64_t first, int64_t count) {
  const int64_t row_bytes = 2 * format.dim;
  return {.blocks = nullptr,
          .rows = memory,
          .offset = -first * row_bytes,
          .head_stride = count * row_bytes,
          .row_stride = row_bytes,
          .dim = static_cast<int>(format.dim),
          .type = KvType::fp16};
}

AttentionArguments arguments_of(const DeviceAttention& problem, const AttentionPlan& plan,
                                std::byte* memory) {
  const Workspace workspace = workspace_of(problem, plan);
  const bool capped = problem.softcap > 0;
  AttentionArguments result{
      .query = problem.query,
      .output = problem.output,
      .slopes = problem.slopes,
      .totals = reinterpret_cast<float*>(memory + workspace.totals),
      .mixed = reinterpret_cast<float*>(memory + workspace.mixed),
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
  if (!plan.halves) return result;
  const int64_t first = first_key(problem);
  result.keys = layout_of_halves(problem.keys.format, memory, first, seen_keys(problem));
  result.values =
      layout_of_halves(problem.values.format, memory + workspace.values, first, seen_keys(problem));
  return result;
}

void make_halves(Device& device, const DeviceAttention& problem, const AttentionPlan& plan,
                 std::byte* memory) {
  const HalfRowsArguments arguments{.from = {layout_of(problem.keys), layout_of(problem.values)},
                                    .to = {memory, memory + workspace_of(problem, plan).values},
                                    .heads = static_cast<int>(problem.keys.format.heads),
                                    .first = static_cast<int>(first_key(problem)),
                                    .count = static_cast<int>(seen_keys(problem))};
  const int64_t pieces = seen_keys(problem) * widest(problem) / 8;
  device.launch(
      {.kernel = kHalfRows,
       .grid = {.x = static_cast<int>(blocks_of(pieces, kHalfRows.threads)), .y = arguments.heads, .z = 2},
       .arguments = bytes_of(arguments)});
}

}  // namespace

bool supports_heads(int64_t features) { return features <= kMostFeatures && features % 8 == 0; }

bool supports_split_attention(const DeviceAttention& problem) { return why_no_kernel(problem) == nullptr; }

bool supports_tile_attention(const DeviceAttention& problem) {
  return why_no_kernel(problem) == nullptr && problem.scale > 0;
}

AttentionPlan plan_attention(const DeviceAttention& problem, const DeviceProperties& device) {
  if (const char* reason = why_no_kernel(problem)) return {.reason = reason};
  const KernelSizes sizes = kernel_for(problem, device);
  const int64_t kv_heads = problem.keys.format.heads;
  const int64_t blocks = blocks_of(rows_of(problem), sizes.rows);
  const int64_t end = problem.first_position + problem.count;
  const int64_t tiles = blocks_of(end - first_key(problem), kTileKeys);
  // As many blocks as are at work at once, none of which waits for another to end.
  const int64_t room = room_for(sizes, device) / (blocks * kv_heads);
  const int64_t wanted = std::clamp<int64_t>(room, 1, std::max<int64_t>(1, tiles / sizes.tiles));
  const int64_t split_tiles = blocks_of(tiles, wanted);
  const int64_t splits = blocks_of(tiles, split_tiles);
  return {
      .kernel = sizes.kernel,
      .grid = {.x = static_cast<int>(blocks), .y = static_cast<int>(kv_heads), .z = static_cast<int>(splits)},
      .shared_bytes = sizes.shared_bytes,
      .splits = splits,
      .split_keys = split_tiles * kTileKeys,
      .halves = sizes.halves_alone && problem.keys.format.type != KvType::fp16,
      .reason = sizes.reason};
}

size_t attention_workspace_bytes(const DeviceAttention& problem, const AttentionPlan& plan) {
  return workspace_of(problem, plan).bytes;
}

void attend(Device& device, const DeviceAttention& problem, const AttentionPlan& plan, void* workspace) {
  if (plan.kernel == nullptr) fail(ErrorKind::internal, "attention on the device: {}", plan.reason);
  auto* memory = static_cast<std::byte*>(workspace);
  if (plan.halves) make_halves(device, problem, plan, memory);
  const AttentionArguments arguments = arguments_of(problem, plan, memory);
  device.launch({.kernel = *plan.kernel,
                 .grid = plan.grid,
                 .shared_bytes = plan.shared_bytes,
                 .arguments = bytes_of(arguments)});
  if (plan.splits == 1) return;
  device.launch({.kernel = kMergeSplits,
                 .grid = {.x = arguments.rows, .y = plan.grid.y},
                 .shared_bytes = static_cast<size_t>(4 * problem.values.format.dim) * sizeof(float),
                 .arguments = bytes_of(arguments)});
}

}  // namespace salient::cuda
