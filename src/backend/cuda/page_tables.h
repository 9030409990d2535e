#pragma once

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
