#pragma once

#include <memory>

#include "tensor/tensor.h"

namespace salient {

/// Memory for tensors that come and go: what one gives back serves the next of about its size. Memory fresh
/// from the system costs as much to touch for the first time as a short operation takes to fill it. Safe to
/// share between threads; tensors may outlive the pool, which frees what it keeps when it goes.
///
/// At no time has it taken more from the system than kSlack times the most that its tensors needed at once.
class TensorPool {
 public:
  static constexpr double kSlack = 1.25;

  TensorPool();
  ~TensorPool();
  TensorPool(const TensorPool&) = delete;
  TensorPool& operator=(const TensorPool&) = delete;

  /// Uninitialised. Errors: out_of_memory.
  Tensor empty(DType dtype, Shape shape);
  /// Taken from the system at this moment, in bytes.
  size_t byte_size() const;

 private:
  class Blocks;
  std::shared_ptr<Blocks> blocks_;
};

/// A tensor of the pool if there is one.
Tensor pool_or_new(TensorPool* pool, DType dtype, Shape shape);

}  // namespace salient
