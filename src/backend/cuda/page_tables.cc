#include "backend/cuda/page_tables.h"

#include <algorithm>

#include "backend/cuda/elementwise.h"

namespace salient::cuda {
namespace {

constexpr size_t kMostTables = 256;
/// Tables grow by so many addresses at a time.
constexpr size_t kTableStep = 64;

}  // namespace

std::vector<std::byte*> addresses_of(std::span<const KvBlock> blocks,
                                     const std::shared_ptr<DeviceMemory>& memory,
                                     const WrittenPositions& written) {
  std::vector<std::byte*> addresses;
  addresses.reserve(blocks.size());
  try {
    for (int64_t page = 0; page < std::ssize(blocks); ++page) {
      Tensor& block = *blocks[static_cast<size_t>(page)];
      const bool writes = page * kPageRows < written.end && (page + 1) * kPageRows > written.begin;
      void* address = writes ? block.device_update(memory) : const_cast<void*>(block.device_read(memory));
      addresses.push_back(static_cast<std::byte*>(address));
    }
  } catch (...) {
    memory->let_go();
    throw;
  }
  return addresses;
}

std::byte* const* PageTables::table(Device& device, std::span<std::byte* const> addresses) {
  if (addresses.empty()) return nullptr;
  // The last block is a sequence's own as soon as it is written; those before may be shared.
  const auto ends_alike = [&](const Table& table) {
    return !table.addresses.empty() && table.addresses.back() == addresses.back();
  };
  const auto found = std::ranges::find_if(tables_, ends_alike);
  if (found == tables_.end()) {
    tables_.emplace_front();
    if (tables_.size() > kMostTables) tables_.pop_back();
  } else {
    tables_.splice(tables_.begin(), tables_, found);
  }
  Table& table = tables_.front();
  if (!std::ranges::equal(table.addresses, addresses)) {
    table.addresses.clear();  // of no use until all is written
    const size_t rounded = (addresses.size() + kTableStep - 1) / kTableStep * kTableStep;
    table.buffer.reserve(device, rounded * sizeof(std::byte*));
    write_bytes(device, std::as_bytes(addresses), table.buffer.address());
    table.addresses.assign(addresses.begin(), addresses.end());
  }
  return table.buffer.as<std::byte*>();
}

}  // namespace salient::cuda
