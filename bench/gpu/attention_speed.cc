#include <algorithm>
#include <cmath>

#include "backend/cuda/attention.h"
#include "base/error.h"
#include "gpu/random_data.h"
#include "gpu/sections.h"
#include "gpu/timing.h"

namespace salient::gpu {
namespace {

struct Heads {
  int64_t heads = 32;
  int64_t kv_heads = 8;
  int64_t dim = 128;
};

/// Keys and values of one sequence in pages that are nobody else's.
class Cache {
 public:
  Cache(cuda::Device& device, const Heads& heads, KvType type, int64_t positions)
      : format_{type, heads.kv_heads, heads.dim} {
    std::vector<std::byte*> addresses;
    for (int64_t page = 0; page * kPageRows < positions; ++page) {
      blocks_.emplace_back(device, 2 * format_.page_bytes());
      addresses.push_back(blocks_.back().as<std::byte>());
    }
    table_ = cuda::DeviceBuffer::of(device, std::span<std::byte* const>(addresses));
    const Tensor x = random_floats({kPageRows, heads.kv_heads * heads.dim}, 51);
    const auto rows = cuda::DeviceBuffer::of(device, x.values<float>());
    for (int64_t page = 0; page < std::ssize(addresses); ++page)
      cuda::rope_and_store(device, {}, {},
                           {.count = kPageRows,
                            .keys = rows.as<float>(),
                            .values = rows.as<float>(),
                            .to_keys = keys(),
                            .to_values = values(),
                            .first = page * kPageRows});
  }

  cuda::DeviceRows keys() const {
    return {.format = format_, .blocks = table_.as<std::byte*>(), .offset = 0};
  }
  cuda::DeviceRows values() const {
    return {.format = format_, .blocks = table_.as<std::byte*>(), .offset = format_.page_bytes()};
  }

 private:
  KvFormat format_;
  std::vector<cuda::DeviceBuffer> blocks_;
  cuda::DeviceBuffer table_;
};

struct Stretch {
  int64_t count;
  int64_t first_position;
  KvType type;

  int64_t positions() const { return first_position + count; }
};

/// Bytes of keys and values that every query sees.
size_t cache_bytes(const Heads& heads, const Stretch& stretch) {
  const KvFormat format{stretch.type, heads.kv_heads, heads.dim};
  return static_cast<size_t>(stretch.positions()) * 2 * format.page_bytes() / kPageRows;
}

double operations(const Heads& heads, const Stretch& stretch) {
  const auto count = static_cast<double>(stretch.count);
  const double keys = count * static_cast<double>(stretch.first_position) + count * (count + 1) / 2;
  return 4.0 * static_cast<double>(heads.heads * heads.dim) * keys;
}

Json time_stretch(SectionRun& run, const Heads& heads, const Stretch& stretch) {
  cuda::Device& device = run.device();
  const int copies = copies_of(run, cache_bytes(heads, stretch));
  std::vector<Cache> caches;
  for (int i = 0; i < copies; ++i) caches.emplace_back(device, heads, stretch.type, stretch.positions());
  const auto query = cuda::DeviceBuffer::of(
      device, random_floats({stretch.count, heads.heads * heads.dim}, 52).values<float>());
  const cuda::DeviceBuffer output(device, query.byte_size());
  const auto problem = [&](int i) {
    const Cache& cache = caches[static_cast<size_t>(i)];
    return cuda::DeviceAttention{.query = query.as<float>(),
                                 .keys = cache.keys(),
                                 .values = cache.values(),
                                 .output = output.as<float>(),
                                 .count = stretch.count,
                                 .heads = heads.heads,
                                 .first_position = stretch.first_position,
                                 .scale = 1 / std::sqrt(static_cast<float>(heads.dim))};
  };
  const cuda::AttentionPlan plan = cuda::plan_attention(problem(0), device.properties());
  const cuda::DeviceBuffer workspace(device,
                                     std::max<size_t>(1, cuda::attention_workspace_bytes(problem(0), plan)));
  const Timing timing =
      measure(run, copies, [&](int i) { cuda::attend(device, problem(i), plan, workspace.address()); });
  const double rate = static_cast<double>(cache_bytes(heads, stretch)) / timing.seconds;
  Json row{{"queries", stretch.count},
           {"first_position", stretch.first_position},
           {"cache", to_string(stretch.type)},
           {"kernel", plan.kernel == nullptr ? "none" : plan.kernel->name},
           {"splits", plan.splits.splits}};
  row.update(timing.to_json());
  row["gb_per_s"] = number(rate * 1e-9);
  row["share_of_copy"] = share(rate, run.bandwidth());
  row["share_of_peak"] = share(rate, peak_of(device.properties()).bytes_per_second);
  row["tflops"] = number(operations(heads, stretch) / timing.seconds * 1e-12);
  return row;
}

std::vector<Stretch> stretches(const SectionRun& run) {
  if (run.tiny()) return {{1, 150, KvType::fp16}, {12, 0, KvType::fp16}};
  std::vector<Stretch> list;
  for (const KvType type : {KvType::fp16, KvType::bf16, KvType::int8, KvType::fp32})
    for (const int64_t positions : {1024, 8192, 32768}) list.push_back({1, positions - 1, type});
  for (const int64_t count : {512, 2048, 8192}) list.push_back({count, 0, KvType::fp16});
  for (const int64_t count : {2, 4, 8}) list.push_back({count, 8192 - count, KvType::fp16});
  list.push_back({512, 8192 - 512, KvType::fp16});
  for (const KvType type : {KvType::bf16, KvType::int8}) list.push_back({2048, 0, type});
  return list;
}

}  // namespace

void time_attention(SectionRun& run) {
  const Heads heads = run.tiny() ? Heads{4, 2, 64} : Heads{};
  for (const Stretch& stretch : stretches(run)) {
    const auto name =
        fmt::format("{} queries at {}, {}", stretch.count, stretch.first_position, to_string(stretch.type));
    run.attempt(name, [&] { run.json()["rows"].push_back(time_stretch(run, heads, stretch)); });
  }
  if (!run.tiny()) run.json()["nvidia_smi"] = smi_line();
}

}  // namespace salient::gpu
