#include "backend/cuda/cuda_memory.h"

#include "backend/cuda/elementwise.h"

namespace salient::cuda {

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
  end_operation();
}

void CudaMemory::end_operation() noexcept {
  copies_.let_go();
  if (!queue_.holds_back()) copies_.all_sent();
}

size_t CudaMemory::taken_bytes() {
  const std::lock_guard lock(mutex_);
  return copies_.taken_bytes();
}

void CudaMemory::upload(void* to, const std::byte* from, size_t bytes) {
  const std::lock_guard lock(mutex_);
  send_bytes(device_, {from, bytes}, to);
}

void CudaMemory::download(std::byte* to, const void* from, size_t bytes) {
  const std::lock_guard lock(mutex_);
  copies_.keep(from, [&] { device_.copy_out(to, from, bytes); });
}

void CudaMemory::copy(void* to, const void* from, size_t bytes) {
  const std::lock_guard lock(mutex_);
  device_.copy(to, from, bytes);
}

}  // namespace salient::cuda
