#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <vector>

#include "backend/cuda/device_buffer.h"
#include "backend/kv_pages.h"
#include "tensor/tensor_memory.h"

namespace salient::cuda {

/// Positions [begin, end) that are about to be written.
struct WrittenPositions {
  int64_t begin = 0;
  int64_t end = 0;
};

/// Where blocks of a cache lie on the device, current there; the host's bytes of those that are written are
/// stale from now on.
std::vector<std::byte*> addresses_of(std::span<const KvBlock> blocks,
                                     const std::shared_ptr<DeviceMemory>& memory,
                                     const WrittenPositions& written);

/// Sequences whose blocks are more than the device can hold at once. To find that out again in every layer
/// would bring all it can hold there each time. Safe to share between threads.
class LargeSequences {
 public:
  /// Whether to try: not where as many blocks or fewer found no room, but for once in a while.
  bool may_fit(size_t blocks) { return blocks < least_ || ++refusals_ % kTriedAgainAfter == 0; }
  void add(size_t blocks) { least_ = std::min<size_t>(least_, blocks); }
  /// So many found room after all.
  void remove(size_t blocks) {
    if (blocks >= least_) least_ = SIZE_MAX;
  }

 private:
  static constexpr size_t kTriedAgainAfter = 4096;
  std::atomic<size_t> least_ = SIZE_MAX;
  std::atomic<size_t> refusals_ = 0;
};

/// Addresses of blocks on the device. Layers of a pass, and most passes, find those of their sequence there
/// already.
class PageTables {
 public:
  std::byte* const* table(Device& device, std::span<std::byte* const> addresses);

 private:
  struct Table {
    std::vector<std::byte*> addresses;
    DeviceBuffer buffer;
  };
  std::list<Table> tables_;  // the last one used first
};

}  // namespace salient::cuda
