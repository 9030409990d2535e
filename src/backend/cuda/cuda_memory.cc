#include "backend/cuda/cuda_memory.h"

#include "backend/cuda/elementwise.h"

namespace salient::cuda {
namespace {

/// Up to so many bytes go with launches, so that they do not part a run of launches in two.
constexpr size_t kBytesOfLaunches = 2 * kWriteBytes;

}  // namespace

void* CudaMemory::allocate(size_t bytes) {
  const std::lock_guard lock(mutex_);
  return device_.allocate(bytes);
}

void CudaMemory::release(void* address) noexcept {
  const std::lock_guard lock(mutex_);
  copies_.forget(address);
  device_.release(address);
}

void CudaMemory::hold(void* address, TensorMemory& owner) {
  const std::lock_guard lock(mutex_);
  copies_.hold(address, owner);
}

void CudaMemory::hold_marked(const std::function<void(uint64_t use)>& visit) {
  const std::lock_guard lock(mutex_);
  visit(copies_.hold_marked());
}

void CudaMemory::let_go() noexcept {
  const std::lock_guard lock(mutex_);
  copies_.let_go();
}

void CudaMemory::upload(void* to, const std::byte* from, size_t bytes) {
  const std::lock_guard lock(mutex_);
  const bool words = reinterpret_cast<uintptr_t>(to) % sizeof(uint32_t) == 0;
  if (words && bytes <= kBytesOfLaunches) return write_bytes(device_, {from, bytes}, to);
  device_.copy_in(to, from, bytes);
}

void CudaMemory::download(std::byte* to, const void* from, size_t bytes) {
  const std::lock_guard lock(mutex_);
  device_.copy_out(to, from, bytes);
}

void CudaMemory::copy(void* to, const void* from, size_t bytes) {
  const std::lock_guard lock(mutex_);
  device_.copy(to, from, bytes);
}

}  // namespace salient::cuda
