#include "backend/cuda/page_tables.h"

#include <algorithm>
#include <array>
#include <bit>

namespace salient::cuda {
namespace {

/// From so many tables on those go that so many operations have not used.
constexpr size_t kManyTables = 256;
constexpr uint64_t kManyOperations = 4096;
constexpr size_t kMostBatches = 8;
/// Tables grow by so many addresses at a time.
constexpr size_t kTableStep = 64;
/// More changes of a batch are one copy.
constexpr int64_t kMostChanges = int64_t{2} * kMostWords;

static_assert(sizeof(BatchRow) == 2 * sizeof(uint64_t));
using RowWords = std::array<uint64_t, 2>;

bool same(const BatchRow& a, const BatchRow& b) {
  return a.blocks == b.blocks && a.position == b.position && a.row == b.row;
}

}  // namespace

/// In every layer of every pass nearly all blocks are there already: those cost one lock together. The others
/// are brought one by one.
std::vector<std::byte*> addresses_of(std::span<const KvBlock> blocks,
                                     const std::shared_ptr<DeviceMemory>& memory,
                                     const WrittenPositions& written) {
  std::vector<std::byte*> addresses(blocks.size());
  const auto writes = [&](size_t index) {
    const auto page = static_cast<int64_t>(index);
    return page * kPageRows < written.end && (page + 1) * kPageRows > written.begin;
  };
  try {
    memory->hold_marked([&](uint64_t use) {
      for (size_t page = 0; page < blocks.size(); ++page)
        addresses[page] = static_cast<std::byte*>(blocks[page]->device_find(memory, writes(page), use));
    });
    for (size_t page = 0; page < blocks.size(); ++page) {
      if (addresses[page] != nullptr) continue;
      Tensor& block = *blocks[page];
      addresses[page] = static_cast<std::byte*>(writes(page) ? block.device_update(memory)
                                                             : const_cast<void*>(block.device_read(memory)));
    }
  } catch (...) {
    memory->let_go();
    throw;
  }
  return addresses;
}

void PageTables::begin() {
  ++operation_;
  if (!changes_.empty()) {  // an error came between: nobody knows what the device has
    changes_.clear();
    tables_.clear();
    batches_.clear();
  }
  if (tables_.size() <= kManyTables) return;
  std::erase_if(tables_, [&](const auto& entry) { return entry.second.used + kManyOperations < operation_; });
}

/// One with these addresses, or one of the same sequence that this operation does not use yet. The last block
/// is a sequence's own as soon as it is written; those before may be shared.
PageTables::Table& PageTables::table_for(std::span<std::byte* const> addresses) {
  const auto [first, last] = tables_.equal_range(addresses.back());
  const auto fits = [&](const auto& entry) {
    return entry.second.used != operation_ || std::ranges::equal(entry.second.addresses, addresses);
  };
  const auto found = std::find_if(first, last, fits);
  return found != last ? found->second : tables_.emplace(addresses.back(), Table())->second;
}

std::byte* const* PageTables::table(Device& device, std::span<std::byte* const> addresses) {
  if (addresses.empty()) return nullptr;
  Table& table = table_for(addresses);
  table.used = operation_;
  const size_t bytes = (addresses.size() + kTableStep - 1) / kTableStep * kTableStep * sizeof(std::byte*);
  if (bytes > table.buffer.byte_size()) {
    table.addresses.clear();
    table.buffer.reserve(device, bytes);
  }
  for (size_t i = 0; i < addresses.size(); ++i) {
    if (i < table.addresses.size() && table.addresses[i] == addresses[i]) continue;
    changes_.push_back({table.buffer.as<uint64_t>() + i, std::bit_cast<uint64_t>(addresses[i])});
  }
  table.addresses.assign(addresses.begin(), addresses.end());
  return table.buffer.as<std::byte*>();
}

/// The one of as many rows that was used last, which is likely to differ least; else a new one.
PageTables::Batch& PageTables::batch_of(size_t rows) {
  const auto found = std::ranges::find(batches_, rows, [](const Batch& batch) { return batch.rows.size(); });
  if (found != batches_.end()) {
    batches_.splice(batches_.begin(), batches_, found);
  } else {
    batches_.emplace_front();
    if (batches_.size() > kMostBatches) batches_.pop_back();
  }
  return batches_.front();
}

const BatchRow* PageTables::batch(Device& device, std::span<const BatchRow> rows) {
  const auto known = std::ranges::find_if(
      batches_, [&](const Batch& batch) { return std::ranges::equal(batch.rows, rows, same); });
  if (known != batches_.end()) {
    batches_.splice(batches_.begin(), batches_, known);
    return known->buffer.as<BatchRow>();
  }
  Batch& batch = batch_of(rows.size());
  if (batch.rows.empty()) batch.buffer.reserve(device, rows.size_bytes());
  const size_t before = changes_.size();
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto words = std::bit_cast<RowWords>(rows[i]);
    for (size_t word = 0; word < words.size(); ++word) {
      if (!batch.rows.empty() && std::bit_cast<RowWords>(batch.rows[i])[word] == words[word]) continue;
      changes_.push_back({batch.buffer.as<uint64_t>() + 2 * i + word, words[word]});
    }
  }
  if (std::ssize(changes_) - static_cast<int64_t>(before) > kMostChanges) {
    changes_.resize(before);
    device.copy_in(batch.buffer.address(), rows.data(), rows.size_bytes());
  }
  batch.rows.assign(rows.begin(), rows.end());
  return batch.buffer.as<BatchRow>();
}

void PageTables::send(Device& device) {
  write_words(device, changes_);
  changes_.clear();
}

}  // namespace salient::cuda
