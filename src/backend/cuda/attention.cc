#include "backend/cuda/attention.h"

#include <algorithm>
#include <climits>
#include <vector>

#include "backend/cuda/launch.h"
#include "base/error.h"

namespace salient::cuda {
namespace {

constexpr int64_t kMostFeatures = 256;
/// Queries up to which a text grows token by token, or a few guesses are checked.
constexpr int64_t kFewQueries = 8;
/// Rows of a kv head from which products of halves take less time than those in f32 beside reading the keys.
constexpr int64_t kRowsForTiles = 4;
/// Blocks of a batch to one that is at work: enough for all to end at about the same time.
constexpr int64_t kTurnsOfBatch = 4;
/// Of the workspace of a batch, unless a single sequence takes more.
constexpr size_t kMostWorkspace = size_t{64} << 20;
constexpr int64_t kMostAlongZ = 65535;

/// What the launch of a kernel needs to know of it.
struct KernelSizes {
  const Kernel* kernel;
  int64_t rows;   ///< of a block
  int64_t tiles;  ///< of keys that are worth a split
  size_t shared_bytes;
  const char* reason;
  bool halves_alone = false;  ///< it reads no other keys and values
};

bool keeps_halves(KvType type) { return type == KvType::fp16 || type == KvType::bf16; }

int64_t blocks_of(int64_t count, int64_t size) { return (count + size - 1) / size; }

int64_t group_of(const DeviceAttention& problem) { return problem.heads / problem.keys.format.heads; }
int64_t rows_of(const DeviceAttention& problem) { return problem.count * group_of(problem); }
int64_t widest(const DeviceAttention& problem) {
  return std::max(problem.keys.format.dim, problem.values.format.dim);
}

int window_of(const DeviceAttention& problem) {
  return problem.window == 0 ? INT_MAX : static_cast<int>(std::min<int64_t>(problem.window, INT_MAX));
}

/// Of the one sequence, or the one of a batch that has the most.
KeySplits most_splits(const DeviceAttention& problem, const SplitRule& rule) {
  const int window = window_of(problem);
  const auto first = static_cast<int>(problem.first_position);
  const auto count = static_cast<int>(problem.count);
  if (problem.positions.empty()) return splits_of_keys(rule, window, first, first + count);
  KeySplits most{0, 0, 0};
  for (const int position : problem.positions) {
    const KeySplits own = splits_of_keys(rule, window, position, position + 1);
    if (own.splits > most.splits) most = own;
  }
  return most;
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
      .reason = "few rows, or kept as f32: products in f32"};
  if (problem.keys.format.type == KvType::fp16)
    sizes.kernel = of_type(kSplitAttentionFp16, kSplitAttention4Fp16);
  if (problem.keys.format.type == KvType::bf16)
    sizes.kernel = of_type(kSplitAttentionBf16, kSplitAttention4Bf16);
  if (problem.keys.format.type == KvType::int8)
    sizes.kernel = of_type(kSplitAttentionInt8, kSplitAttention4Int8);
  return sizes;
}

/// Of kernels of halves that of the type that pages keep: anything else becomes f16.
const Kernel* of_halves(const DeviceAttention& problem, const Kernel& f16, const Kernel& bf16) {
  return problem.keys.format.type == KvType::bf16 ? &bf16 : &f16;
}

constexpr int64_t kRowsOfRowKernel = 16;

/// Four parts of tiles to a warp, of the widest heads two: 16 keys, and where they are codes their scales.
/// Behind them the queries, if registers have no room for them.
KernelSizes row_kernel(const DeviceAttention& problem) {
  const int64_t features = widest(problem);
  constexpr const char* kReason = "a few rows of halves or codes: the keys of a tile are shared out";
  const auto bytes = [](size_t slots, size_t width, size_t queries) {
    return 4 * slots * (16 * 2 * width + 16 * sizeof(float)) + queries * 2 * width;
  };
  const auto sizes = [&](const Kernel& f16, const Kernel& bf16, size_t shared_bytes) {
    return KernelSizes{of_halves(problem, f16, bf16), kRowsOfRowKernel, 1, shared_bytes, kReason};
  };
  if (features <= 64) return sizes(kRowAttention64, kRowAttention64Bf16, bytes(4, 64, 0));
  if (features <= 128) return sizes(kRowAttention128, kRowAttention128Bf16, bytes(4, 128, 16));
  return sizes(kRowAttention256, kRowAttention256Bf16, bytes(2, 256, 16));
}

/// A tile of keys, one of values, and where registers have no room for them the queries.
KernelSizes tile_kernel(const DeviceAttention& problem) {
  const int64_t features = widest(problem);
  constexpr const char* kReason = "many rows: products of halves";
  const auto bytes = [](size_t rows, size_t width) { return rows * 2 * width; };
  const auto sizes = [&](const Kernel& f16, const Kernel& bf16, size_t shared_bytes) {
    return KernelSizes{of_halves(problem, f16, bf16), 64, 4, shared_bytes, kReason, true};
  };
  if (features <= 64) return sizes(kTileAttention64, kTileAttention64Bf16, bytes(2 * 64, 64));
  if (features <= 128) return sizes(kTileAttention128, kTileAttention128Bf16, bytes(2 * 64, 128));
  return sizes(kTileAttention256, kTileAttention256Bf16, bytes(2 * 64 + 64, 256));
}

KernelSizes wide_tile_kernel(const DeviceAttention& problem) {
  constexpr const char* kReason = "very many rows: products of halves, twice as many for what is loaded";
  const auto bytes = [](size_t rows, size_t width) { return rows * 2 * width; };
  const auto sizes = [&](const Kernel& f16, const Kernel& bf16, size_t shared_bytes) {
    return KernelSizes{of_halves(problem, f16, bf16), 128, 4, shared_bytes, kReason, true};
  };
  if (widest(problem) <= 64) return sizes(kTileAttention64Wide, kTileAttention64WideBf16, bytes(2 * 64, 64));
  return sizes(kTileAttention128Wide, kTileAttention128WideBf16, bytes(2 * 32 + 128, 128));
}

const char* why_no_kernel(const DeviceAttention& problem) {
  const KvFormat& keys = problem.keys.format;
  const KvFormat& values = problem.values.format;
  if (keys.type != values.type || keys.heads != values.heads) return "keys and values differ";
  if (problem.heads % keys.heads != 0) return "heads are no multiple of the kv heads";
  if (!supports_heads(keys.dim) || !supports_heads(values.dim))
    return "heads of more than 256 features or of no multiple of 8";
  if (problem.first_position + problem.count > INT_MAX - kTileKeys) return "too many positions";
  if (!problem.positions.empty() && problem.count != 1) return "a batch of several queries each";
  return nullptr;
}

KernelSizes kernel_for(const DeviceAttention& problem, const DeviceProperties& device) {
  const KvType type = problem.keys.format.type;
  const int64_t rows = rows_of(problem);
  // f32 is kept by who wants it, as long as it is not the products that take the time.
  const bool few = problem.count <= kFewQueries && (type == KvType::fp32 || rows < kRowsForTiles);
  if (few || !supports_tile_attention(problem)) return split_kernel(problem);
  // Making halves of codes takes as long as reading them some five times.
  const int64_t most = type == KvType::int8 ? 4 * kRowsOfRowKernel : kRowsOfRowKernel;
  if (type != KvType::fp32 && rows <= most) return row_kernel(problem);
  const KernelSizes wide = wide_tile_kernel(problem);
  const int64_t wide_blocks = blocks_of(rows, wide.rows) * problem.keys.format.heads;
  const bool enough = widest(problem) <= 128 && wide_blocks >= room_for(wide, device);
  return enough ? wide : tile_kernel(problem);
}

int key_lanes(const DeviceAttention& problem) {
  int lanes = 8;
  while (lanes * 8 < widest(problem)) lanes *= 2;
  return lanes;
}

/// Positions that any query sees, from a tile's first on.
int64_t seen_keys(const DeviceAttention& problem, const AttentionPlan& plan) {
  return problem.first_position + problem.count - plan.splits.first_key;
}

bool merges(const AttentionPlan& plan) { return plan.splits.splits > 1; }

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
    const auto rows = static_cast<size_t>(seen_keys(problem, plan) * keys.heads);
    result.values = rows * static_cast<size_t>(keys.dim) * 2;
    result.totals = result.values + rows * static_cast<size_t>(values.dim) * 2;
  }
  const int64_t rows = plan.at_once * keys.heads * rows_of(problem);
  const int64_t softmaxes = merges(plan) ? rows * plan.splits.splits : 0;
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
  AttentionArguments result{.query = problem.query,
                            .output = problem.output,
                            .slopes = problem.slopes,
                            .totals = reinterpret_cast<float*>(memory + workspace.totals),
                            .mixed = reinterpret_cast<float*>(memory + workspace.mixed),
                            .batch = problem.batch,
                            .keys = layout_of(problem.keys),
                            .values = layout_of(problem.values),
                            .rows = static_cast<int>(rows_of(problem)),
                            .group = static_cast<int>(group_of(problem)),
                            .first_position = static_cast<int>(problem.first_position),
                            .splits = plan.splits,
                            .rule = plan.rule,
                            .most_splits = plan.splits.splits,
                            .window = window_of(problem),
                            .key_lanes = key_lanes(problem),
                            .score_factor = capped ? problem.scale / problem.softcap : problem.scale * kLog2E,
                            .cap = capped ? problem.softcap * kLog2E : 0.0f};
  if (!plan.halves) return result;
  const int64_t first = plan.splits.first_key;
  const int64_t count = seen_keys(problem, plan);
  result.keys = layout_of_halves(problem.keys.format, memory, first, count);
  result.values = layout_of_halves(problem.values.format, memory + workspace.values, first, count);
  return result;
}

void make_halves(Device& device, const DeviceAttention& problem, const AttentionPlan& plan,
                 std::byte* memory) {
  const HalfRowsArguments arguments{.from = {layout_of(problem.keys), layout_of(problem.values)},
                                    .to = {memory, memory + workspace_of(problem, plan).values},
                                    .heads = static_cast<int>(problem.keys.format.heads),
                                    .first = plan.splits.first_key,
                                    .count = static_cast<int>(seen_keys(problem, plan))};
  const int64_t pieces = seen_keys(problem, plan) * widest(problem) / 8;
  device.launch({.kernel = kHalfRows,
                 .grid = {.x = blocks_for(pieces, kHalfRows.threads), .y = arguments.heads, .z = 2},
                 .arguments = bytes_of(arguments)});
}

/// As many blocks of a sequence as are at work at once, none of which waits for another to end. Those of
/// a batch need not be that many each: its splits may be longer, so that fewer are to be merged.
SplitRule rule_of(const DeviceAttention& problem, const KernelSizes& sizes, const DeviceProperties& device) {
  const int64_t blocks = blocks_of(rows_of(problem), sizes.rows) * problem.keys.format.heads;
  const int64_t room = std::max<int64_t>(1, room_for(sizes, device) / blocks);
  SplitRule rule{.most = static_cast<int>(room), .least_tiles = static_cast<int>(sizes.tiles)};
  if (problem.positions.empty() || problem.as_alone) return rule;
  int64_t tiles = 0;
  for (const int position : problem.positions) {
    const int first_key = splits_of_keys(rule, window_of(problem), position, position + 1).first_key;
    tiles += blocks_of(position + 1 - first_key, kTileKeys);
  }
  rule.least_tiles = static_cast<int>(std::max<int64_t>(sizes.tiles, tiles / (kTurnsOfBatch * room)));
  return rule;
}

/// Sequences of a batch for which grid and workspace have room.
int64_t at_once(const DeviceAttention& problem, const AttentionPlan& plan) {
  if (problem.positions.empty()) return 1;
  const size_t bytes = std::max<size_t>(1, workspace_of(problem, plan).bytes);
  const auto room = static_cast<int64_t>(std::max<size_t>(1, kMostWorkspace / bytes));
  return std::min({std::ssize(problem.positions), room, kMostAlongZ / plan.splits.splits});
}

/// `sequences` of a batch from the first of the arguments on, or the one of a problem.
void attend_at_once(Device& device, const AttentionPlan& plan, const AttentionArguments& arguments,
                    int64_t sequences) {
  Grid grid = plan.grid;
  grid.z = static_cast<int>(sequences * plan.splits.splits);
  device.launch({.kernel = *plan.kernel,
                 .grid = grid,
                 .shared_bytes = plan.shared_bytes,
                 .arguments = bytes_of(arguments)});
  if (!merges(plan)) return;
  device.launch({.kernel = kMergeSplits,
                 .grid = {.x = arguments.rows, .y = grid.y, .z = static_cast<int>(sequences)},
                 .shared_bytes = static_cast<size_t>(4 * arguments.values.dim) * sizeof(float),
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
  AttentionPlan plan{.kernel = sizes.kernel,
                     .shared_bytes = sizes.shared_bytes,
                     .rule = rule_of(problem, sizes, device),
                     .halves = sizes.halves_alone && !keeps_halves(problem.keys.format.type),
                     .reason = sizes.reason};
  plan.splits = most_splits(problem, plan.rule);
  plan.at_once = at_once(problem, plan);
  plan.grid = {.x = static_cast<int>(blocks_of(rows_of(problem), sizes.rows)),
               .y = static_cast<int>(problem.keys.format.heads),
               .z = static_cast<int>(plan.at_once * plan.splits.splits)};
  return plan;
}

bool takes_batches(const DeviceAttention& problem, const DeviceProperties& device) {
  return why_no_kernel(problem) == nullptr && !kernel_for(problem, device).halves_alone;
}

size_t attention_workspace_bytes(const DeviceAttention& problem, const AttentionPlan& plan) {
  return workspace_of(problem, plan).bytes;
}

void attend(Device& device, const DeviceAttention& problem, const AttentionPlan& plan, void* workspace) {
  if (plan.kernel == nullptr) fail(ErrorKind::internal, "attention on the device: {}", plan.reason);
  auto* memory = static_cast<std::byte*>(workspace);
  if (plan.halves) make_halves(device, problem, plan, memory);
  AttentionArguments arguments = arguments_of(problem, plan, memory);
  if (problem.positions.empty()) return attend_at_once(device, plan, arguments, 1);
  for (int64_t rest = std::ssize(problem.positions); rest > 0; rest -= plan.at_once) {
    attend_at_once(device, plan, arguments, std::min(rest, plan.at_once));
    arguments.batch += plan.at_once;
  }
}

}  // namespace salient::cuda
