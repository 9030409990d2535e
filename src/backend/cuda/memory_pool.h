#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <unordered_map>

namespace salient::cuda {

/// Where a pool gets its memory.
class MemorySource {
 public:
  virtual ~MemorySource() = default;
  /// Null where there is no room.
  virtual void* allocate(size_t bytes) = 0;
  virtual void release(void* memory) noexcept = 0;
};

/// Keeps released memory for the next who asks: the driver takes microseconds for an allocation and waits for
/// all work when it frees one. Whoever gets memory again uses it behind those who had it, since a device has
/// one queue. Safe to share between threads.
class MemoryPool {
 public:
  explicit MemoryPool(MemorySource& source) : source_(source) {}
  /// Gives everything back, what is in use too.
  ~MemoryPool();
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;

  /// Null where there is no room even with all that was kept given back.
  void* allocate(size_t bytes);
  void release(void* memory) noexcept;
  /// To the source, all that is kept. Returns how many bytes that were.
  size_t give_back() noexcept;
  /// Released and kept.
  size_t kept_bytes() const;
  size_t used_bytes() const;

  /// What is asked of the source for so many bytes: steps of an eighth of a power of two, at least 256 bytes
  /// and at most 2 MiB, the pages of GPU memory.
  static size_t size_class(size_t bytes);

 private:
  void* take_kept(size_t size);
  void give_back_kept() noexcept;

  mutable std::mutex mutex_;
  MemorySource& source_;
  std::unordered_map<void*, size_t> used_;
  std::multimap<size_t, void*> kept_;
  size_t used_bytes_ = 0;
  size_t kept_bytes_ = 0;
};

}  // namespace salient::cuda
