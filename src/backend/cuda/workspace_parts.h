#pragma once

#include <cstddef>
#include <cstdint>

namespace salient::cuda {

/// Parts of a memory, each on 16 bytes; of none to see how much they take.
class WorkspaceParts {
 public:
  explicit WorkspaceParts(void* memory) : memory_(static_cast<std::byte*>(memory)) {}
  template <typename T>
  T* next(int64_t count) {
    auto* part = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + used_);
    used_ += (static_cast<size_t>(count) * sizeof(T) + 15) / 16 * 16;
    return part;
  }
  size_t used() const { return used_; }

 private:
  std::byte* memory_;
  size_t used_ = 0;
};

}  // namespace salient::cuda
