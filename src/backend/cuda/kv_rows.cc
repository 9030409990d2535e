#include "backend/cuda/kv_rows.h"

#include "backend/cuda/launch.h"

namespace salient::cuda {
namespace {

constexpr int64_t kWarpsOfBlock = 4;

void launch_rows(Device& device, const KvRowsArguments& arguments) {
  const int64_t heads = arguments.query_heads + arguments.key_heads + arguments.value_heads;
  const int64_t warps = heads * arguments.count;
  if (warps == 0) return;
  device.launch(
      {.kernel = kKvRows, .grid = {.x = blocks_for(warps, kWarpsOfBlock)}, .arguments = bytes_of(arguments)});
}

void set_rotation(const Rotation& rotation, KvRowsArguments* arguments) {
  arguments->cosine = rotation.cosine;
  arguments->sine = rotation.sine;
  arguments->pairs = static_cast<int>(rotation.pairs);
  arguments->first_feature = static_cast<int>(rotation.first);
  arguments->neighbours = rotation.layout == RopePairs::neighbours;
}

void set_queries(const RotatedHeads& heads, KvRowsArguments* arguments) {
  arguments->query = heads.x;
  arguments->query_heads = static_cast<int>(heads.heads);
  arguments->query_dim = static_cast<int>(heads.head_dim);
}

void set_rows(const NewRows& rows, KvRowsArguments* arguments) {
  arguments->count = static_cast<int>(rows.count);
  arguments->first_position = static_cast<int>(rows.first);
  arguments->batch = rows.batch;
  if (rows.keys != nullptr) {
    arguments->keys = rows.keys;
    arguments->to_keys = layout_of(rows.to_keys);
    arguments->key_heads = static_cast<int>(rows.to_keys.format.heads);
  }
  if (rows.values != nullptr) {
    arguments->values = rows.values;
    arguments->to_values = layout_of(rows.to_values);
    arguments->value_heads = static_cast<int>(rows.to_values.format.heads);
  }
}

}  // namespace

RowLayout layout_of(const DeviceRows& rows) {
  const KvFormat& format = rows.format;
  const auto row_bytes = format.dim * static_cast<int64_t>(format.element_bytes());
  const bool paged = rows.blocks != nullptr;
  return {.blocks = rows.blocks,
          .rows = reinterpret_cast<const std::byte*>(rows.rows),
          .offset = static_cast<int64_t>(rows.offset),
          .head_stride = paged ? static_cast<int64_t>(format.head_bytes()) : row_bytes,
          .row_stride = paged ? row_bytes : format.heads * row_bytes,
          .dim = static_cast<int>(format.dim),
          .type = format.type};
}

bool supports_store(const KvFormat& format) { return format.dim % 4 == 0; }

void rope(Device& device, const Rotation& rotation, const RotatedHeads& heads, int64_t rows) {
  rope_and_store(device, rotation, heads, {.count = rows});
}

void rope_and_store(Device& device, const Rotation& rotation, const RotatedHeads& queries,
                    const NewRows& rows) {
  KvRowsArguments arguments{};
  set_rotation(rotation, &arguments);
  set_queries(queries, &arguments);
  set_rows(rows, &arguments);
  launch_rows(device, arguments);
}

}  // namespace salient::cuda
