#pragma once

#include <memory>
#include <optional>
#include <string>

#include "backend/backend.h"
#include "backend/cuda/device.h"
#include "backend/cuda/linear_products.h"

namespace salient::cuda {

struct CudaBackendOptions {
  /// What inputs and dense weights of linears are rounded to for tensor cores. Dense weights that f16 cannot
  /// hold are bf16 in any case.
  HalfType half = HalfType::f16;
  /// The family of kernels of quantized weights, where it takes a product; else the plan's.
  std::optional<ProductFamily> family{};
  /// Whether the fastest plan of each product is found by measuring, and where that is kept, see
  /// ProductTable.
  bool measure = false;
  std::string table_file{};
};

/// Computes on a device. Tensors keep a copy there; what it has no kernel for runs on the CPU, on the host's
/// bytes.
std::unique_ptr<Backend> make_cuda_backend(std::unique_ptr<Device> device, const CudaBackendOptions& options);

}  // namespace salient::cuda
