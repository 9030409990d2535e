#include "backend/cuda/memory_pool.h"

#include <algorithm>
#include <bit>
#include <new>

namespace salient::cuda {

MemoryPool::~MemoryPool() {
  give_back_kept();
  for (const auto& [memory, size] : used_) source_.release(memory);
}

size_t MemoryPool::size_class(size_t bytes) {
  const size_t least = std::max(bytes, size_t{1});
  const size_t step = std::clamp(std::bit_floor(least) / 8, size_t{256}, size_t{2} << 20);
  return (least + step - 1) / step * step;
}

void* MemoryPool::allocate(size_t bytes) {
  const std::lock_guard lock(mutex_);
  const size_t size = size_class(bytes);
  if (void* kept = take_kept(size)) return kept;
  void* memory = source_.allocate(size);
  if (memory == nullptr && !kept_.empty()) {
    give_back_kept();
    memory = source_.allocate(size);
  }
  if (memory == nullptr) return nullptr;
  used_.emplace(memory, size);
  used_bytes_ += size;
  return memory;
}

/// The smallest that is large enough, and by no more than an eighth larger.
void* MemoryPool::take_kept(size_t size) {
  const auto found = kept_.lower_bound(size);
  if (found == kept_.end() || found->first > size + size / 8) return nullptr;
  const auto [kept_size, memory] = *found;
  used_.emplace(memory, kept_size);
  kept_.erase(found);
  kept_bytes_ -= kept_size;
  used_bytes_ += kept_size;
  return memory;
}

void MemoryPool::release(void* memory) noexcept {
  if (memory == nullptr) return;
  const std::lock_guard lock(mutex_);
  const auto found = used_.find(memory);
  if (found == used_.end()) return;
  const size_t size = found->second;
  used_.erase(found);
  used_bytes_ -= size;
  try {
    kept_.emplace(size, memory);
    kept_bytes_ += size;
  } catch (const std::bad_alloc&) {
    source_.release(memory);
  }
}

void MemoryPool::give_back_kept() noexcept {
  for (const auto& [size, memory] : kept_) source_.release(memory);
  kept_.clear();
  kept_bytes_ = 0;
}

size_t MemoryPool::give_back() noexcept {
  const std::lock_guard lock(mutex_);
  const size_t bytes = kept_bytes_;
  give_back_kept();
  return bytes;
}

size_t MemoryPool::kept_bytes() const {
  const std::lock_guard lock(mutex_);
  return kept_bytes_;
}

size_t MemoryPool::used_bytes() const {
  const std::lock_guard lock(mutex_);
  return used_bytes_;
}

}  // namespace salient::cuda
