#include "backend/cpu/scratch.h"

#include <array>

#include "tensor/tensor.h"

namespace salient {

std::byte* scratch_bytes(ScratchUse use, size_t bytes) {
  thread_local std::array<Tensor, kScratchUses> buffers;
  Tensor& buffer = buffers[static_cast<size_t>(use)];
  if (!buffer.defined() || buffer.byte_size() < bytes) {
    buffer = Tensor();
    buffer = Tensor::empty(DType::u8, {static_cast<int64_t>(bytes)});
  }
  return buffer.mutable_bytes();
}

}  // namespace salient
