#include "tensor/tensor_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <mutex>
#include <vector>

#include "base/error.h"

namespace salient {
namespace {

/// The allocator keeps smaller ones by itself.
constexpr size_t kLeast = size_t{1} << 16;
/// Pages that Linux uses for large blocks when it is told to (x86-64).
constexpr size_t kHugePage = size_t{1} << 21;

/// Straight from the system, from a huge page on if it fills one: they are zeroed five times as fast.
struct Block {
  std::byte* data = nullptr;
  size_t bytes = 0;
};

size_t rounded_up(size_t value, size_t step) { return (value + step - 1) / step * step; }

Block map_block(size_t bytes) {
  constexpr size_t kPage = 4096;
  bytes = rounded_up(bytes, kPage);
  const bool huge = bytes >= kHugePage;
  const size_t mapped = huge ? bytes + kHugePage : bytes;
  void* memory = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) fail(ErrorKind::out_of_memory, "cannot allocate {} bytes for activations", bytes);
  auto* begin = static_cast<std::byte*>(memory);
  if (!huge) return {begin, bytes};
  const auto address = reinterpret_cast<uintptr_t>(begin);
  std::byte* data = begin + (rounded_up(address, kHugePage) - address);
  std::byte* end = begin + mapped;
  if (data != begin) ::munmap(begin, static_cast<size_t>(data - begin));
  if (data + bytes != end) ::munmap(data + bytes, static_cast<size_t>(end - data) - bytes);
  ::madvise(data, bytes, MADV_HUGEPAGE);  // advice: it may be refused
  return {data, bytes};
}

void unmap(const Block& block) { ::munmap(block.data, block.bytes); }

}  // namespace

class TensorPool::Blocks {
 public:
  ~Blocks() { close(); }

  /// For `bytes`, of which a block of up to kSlack times as many may be used.
  Block take(size_t bytes) {
    const std::lock_guard lock(mutex_);
    needed_ += bytes;
    most_needed_ = std::max(most_needed_, needed_);
    const auto most = static_cast<size_t>(static_cast<double>(bytes) * kSlack);
    auto best = kept_.end();
    for (auto it = kept_.begin(); it != kept_.end(); ++it) {
      if (it->bytes < bytes || it->bytes > most) continue;
      if (best == kept_.end() || it->bytes < best->bytes) best = it;
    }
    if (best != kept_.end()) {
      const Block block = *best;
      kept_.erase(best);
      return block;
    }
    make_room(bytes);
    try {
      const Block block = map_block(bytes);
      taken_ += block.bytes;
      return block;
    } catch (...) {
      needed_ -= bytes;
      throw;
    }
  }

  void give_back(const Block& block, size_t bytes) {
    const std::lock_guard lock(mutex_);
    needed_ -= bytes;
    if (!closed_) return kept_.push_back(block);
    taken_ -= block.bytes;
    unmap(block);
  }

  void close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    for (const Block& block : kept_) drop(block);
    kept_.clear();
  }

  size_t taken() const {
    const std::lock_guard lock(mutex_);
    return taken_;
  }

 private:
  void drop(const Block& block) {
    taken_ -= block.bytes;
    unmap(block);
  }

  /// What has waited longest goes first.
  void make_room(size_t bytes) {
    const double most = static_cast<double>(most_needed_) * kSlack;
    while (!kept_.empty() && static_cast<double>(taken_ + bytes) > most) {
      drop(kept_.front());
      kept_.erase(kept_.begin());
    }
  }

  mutable std::mutex mutex_;
  std::vector<Block> kept_;
  size_t taken_ = 0;        // from the system
  size_t needed_ = 0;       // by tensors that live
  size_t most_needed_ = 0;  // by those that lived at the same time
  bool closed_ = false;
};

TensorPool::TensorPool() : blocks_(std::make_shared<Blocks>()) {}
TensorPool::~TensorPool() { blocks_->close(); }

Tensor TensorPool::empty(DType dtype, Shape shape) {
  const size_t bytes = static_cast<size_t>(element_count(shape)) * salient::byte_size(dtype);
  if (bytes < kLeast) return Tensor::empty(dtype, std::move(shape));
  const Block block = blocks_->take(bytes);
  const auto give_back = [blocks = blocks_, block, bytes](std::byte*) { blocks->give_back(block, bytes); };
  return Tensor::in(dtype, std::move(shape), std::shared_ptr<std::byte>(block.data, give_back));
}

size_t TensorPool::byte_size() const { return blocks_->taken(); }

Tensor pool_or_new(TensorPool* pool, DType dtype, Shape shape) {
  return pool == nullptr ? Tensor::empty(dtype, std::move(shape)) : pool->empty(dtype, std::move(shape));
}

}  // namespace salient
