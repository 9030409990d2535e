#include "recipe/device_plan.h"

#include <algorithm>

#include "awq/layer_statistics.h"
#include "base/error.h"
#include "calibrate/gram_matrix.h"

namespace salient {
namespace {

/// Dense linears are halves there.
constexpr uint64_t kHalf = 2;
constexpr uint64_t kF32 = 4;

double mebibytes(uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

uint64_t tokens_of(const Job& job) {
  uint64_t tokens = 0;
  for (const auto& sequence : job.data.sequences) tokens += sequence.size();
  return tokens;
}

DeviceNeed need_of_layer(const Job& job, const MemoryPlan& plan, int64_t layer) {
  const DecoderSpec& spec = job.weights.spec();
  const auto whole = whole_gram_widths(spec, layer, job.resolved.linears[static_cast<size_t>(layer)]);
  const uint64_t rows = std::min(static_cast<uint64_t>(plan.rows_per_batch), tokens_of(job));
  DeviceNeed need{.layer = layer};
  for (const LinearSlot& slot : spec.linears(layer)) {
    const int64_t in = slot.in_features;
    need.linears += static_cast<uint64_t>(slot.out_features) * static_cast<uint64_t>(in) * kHalf;
    const auto ranges = GramMatrix::ranges(in, whole.contains(in) ? 0 : plan.gram_block);
    const auto width = static_cast<uint64_t>(ranges.front().count());
    if (width * width * kF32 <= need.gram) continue;
    need.gram = width * width * kF32;
    need.rows = rows * width * kF32;
  }
  return need;
}

}  // namespace

DeviceNeed device_need(const Job& job, const MemoryPlan& plan) {
  DeviceNeed most;
  if (!job.awq || job.data.sequences.empty()) return most;
  for (int64_t layer = 0; layer < job.weights.spec().layers; ++layer) {
    const DeviceNeed need = need_of_layer(job, plan, layer);
    if (need.total() > most.total()) most = need;
  }
  return most;
}

void check_device_memory(const Job& job, const MemoryPlan& plan) {
  const std::optional<uint64_t> free = job.backend->free_device_bytes();
  const DeviceNeed need = device_need(job, plan);
  if (!free || need.total() <= *free) return;
  fail(ErrorKind::out_of_memory,
       "{}: layer {} needs {:.1f} MiB of its memory at once ({:.1f} for its linears, {:.1f} for a Gram "
       "matrix, "
       "{:.1f} for a batch of tokens), but {:.1f} MiB are free: take a GPU with more memory, or the CPU "
       "(--device cpu)",
       job.backend->description(), need.layer, mebibytes(need.total()), mebibytes(need.linears),
       mebibytes(need.gram), mebibytes(need.rows), mebibytes(*free));
}

}  // namespace salient
