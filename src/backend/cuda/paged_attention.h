#pragma once

#include <vector>

#include "backend/backend.h"
#include "backend/cuda/attention.h"
#include "backend/cuda/page_tables.h"
#include "backend/cuda/tensor_access.h"

namespace salient::cuda {

/// Attention, and what goes before it, of tensors and caches: what stands side by side in a batch is one
/// launch.
class PagedAttention {
 public:
  /// `access` must outlive it.
  explicit PagedAttention(const TensorAccess& access) : access_(access) {}

  /// On checked shapes. False, and nothing done, where pages are such that the device does not take them.
  bool rope_and_store(const RopeStoreProblem& problem);
  /// On checked shapes. `otherwise` gets what no kernel takes.
  void attend(std::span<const AttentionProblem> problems, Backend& otherwise);

 private:
  void place(Device& device, std::span<const RowsForCache> caches,
             std::span<const std::vector<std::byte*>> addresses, NewRows* rows);
  void run(Device& device, const DeviceAttention& asked);
  void run_together(Device& device, std::span<const DeviceAttention> queries, bool as_alone);

  const TensorAccess& access_;
  PageTables tables_;
  DeviceBuffer workspace_;
};

}  // namespace salient::cuda
