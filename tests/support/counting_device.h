#pragma once

#include <chrono>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "tensor/tensor_memory.h"

namespace salient {

/// A device that is memory of its own, and counts what goes to and fro.
class CountingDevice final : public DeviceMemory {
 public:
  struct Counts {
    int uploads = 0;
    int downloads = 0;
    int copies = 0;
    bool operator==(const Counts&) const = default;
  };

  void* allocate(size_t bytes) override {
    const std::lock_guard lock(mutex_);
    std::vector<std::byte> memory(bytes, std::byte{0xee});
    void* address = memory.data();
    allocated_.emplace(address, std::move(memory));
    return address;
  }
  void release(void* address) noexcept override {
    const std::lock_guard lock(mutex_);
    allocated_.erase(address);
  }
  void upload(void* to, const std::byte* from, size_t bytes) override {
    take_time();
    const std::lock_guard lock(mutex_);
    std::memcpy(to, from, bytes);
    ++counts_.uploads;
  }
  void download(std::byte* to, const void* from, size_t bytes) override {
    take_time();
    const std::lock_guard lock(mutex_);
    std::memcpy(to, from, bytes);
    ++counts_.downloads;
  }
  void copy(void* to, const void* from, size_t bytes) override {
    const std::lock_guard lock(mutex_);
    std::memcpy(to, from, bytes);
    ++counts_.copies;
  }

  /// Since the last call.
  Counts counts() { return std::exchange(counts_, {}); }
  size_t allocations() const { return allocated_.size(); }

 private:
  /// So that threads which should wait for one another, and do not, meet here.
  static void take_time() { std::this_thread::sleep_for(std::chrono::microseconds(100)); }

  std::mutex mutex_;
  std::map<void*, std::vector<std::byte>> allocated_;
  Counts counts_;
};

}  // namespace salient
