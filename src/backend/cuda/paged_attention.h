#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/attention.h"
#include "backend/cuda/page_tables.h"
#include "backend/cuda/tensor_access.h"

namespace salient::cuda {

/// Sequences whose blocks are more than the device can hold at once. To find that out again in every layer
/// would bring all it can hold there each time. Safe to share between threads.
class LargeSequences {
 public:
  /// Whether to try: not where as many blocks or fewer found no room, but for once in a while. That may have
  /// been for other reasons, which pass: at first it is soon, then after twice as many calls each time.
  bool may_fit(size_t blocks) {
    if (blocks < least_) return true;
    if (++refusals_ < wait_) return false;
    refusals_ = 0;
    wait_ = std::min<size_t>(2 * wait_, kLongestWait);
    return true;
  }
  void add(size_t blocks) { least_ = std::min<size_t>(least_, blocks); }
  /// So many found room after all.
  void remove(size_t blocks) {
    if (blocks < least_) return;
    least_ = SIZE_MAX;
    wait_ = 1;
    refusals_ = 0;
  }

 private:
  static constexpr size_t kLongestWait = 4096;
  std::atomic<size_t> least_ = SIZE_MAX;
  std::atomic<size_t> refusals_ = 0;  // since the last try
  std::atomic<size_t> wait_ = 1;      // up to the next one
};

/// Attention, and what goes before it, of tensors and caches: what stands side by side in a batch is one
/// launch.
class PagedAttention {
 public:
  /// `access` must outlive it.
  explicit PagedAttention(const TensorAccess& access) : access_(access) {}

  /// On checked shapes. False, and nothing done, where pages are such that the device does not take them, or
  /// more than it has room for.
  bool rope_and_store(const RopeStoreProblem& problem);
  /// On checked shapes. `otherwise` gets what no kernel takes, and sequences that are larger than the device.
  void attend(std::span<const AttentionProblem> problems, Backend& otherwise);

 private:
  /// Whether `body` was done; not where so many blocks have no room on the device.
  template <typename Body>
  bool done_with_blocks(size_t blocks, const Body& body);
  void rope_and_store_on_device(const RopeStoreProblem& problem);
  void attend_on_device(std::span<const AttentionProblem> problems);
  void place(Device& device, std::span<const RowsForCache> caches,
             std::span<const std::vector<std::byte*>> addresses, NewRows* rows);
  void run(Device& device, const DeviceAttention& asked);
  void run_together(Device& device, std::span<const DeviceAttention> queries, bool as_alone);

  const TensorAccess& access_;
  PageTables tables_;
  LargeSequences large_;
  DeviceBuffer workspace_;
};

}  // namespace salient::cuda
