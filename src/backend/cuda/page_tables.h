#pragma once

#include <list>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "backend/cuda/device_buffer.h"
#include "backend/cuda/elementwise.h"
#include "backend/cuda/kv_rows.h"
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

/// Which blocks sequences have and where rows of batches stand, on the device. Layers of a pass find it there
/// already; from one pass to the next little of it changes, which one launch writes for all sequences. Use:
/// `begin`, what an operation needs, `send`, the operation's launches.
class PageTables {
 public:
  /// What the last operation was given need not stay.
  void begin();
  /// Addresses of a sequence's blocks; null for none.
  std::byte* const* table(Device& device, std::span<std::byte* const> addresses);
  const BatchRow* batch(Device& device, std::span<const BatchRow> rows);
  /// Behind it the device has all that was asked for.
  void send(Device& device);

 private:
  struct Table {
    std::vector<std::byte*> addresses;
    DeviceBuffer buffer;
    uint64_t used = 0;  ///< by which operation
  };
  struct Batch {
    std::vector<BatchRow> rows;
    DeviceBuffer buffer;
  };

  Table& table_for(std::span<std::byte* const> addresses);
  Batch& batch_of(size_t rows);

  std::unordered_multimap<std::byte*, Table> tables_;  // by the last address
  std::list<Batch> batches_;                           // the last one used first
  std::vector<WordWrite> changes_;                     // not sent
  uint64_t operation_ = 0;
};

}  // namespace salient::cuda
