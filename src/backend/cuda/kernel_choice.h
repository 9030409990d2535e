#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "backend/cuda/linear_products.h"

namespace salient::cuda {

/// Which kernels multiply by quantized weights.
struct KernelChoice {
  std::optional<ProductFamily> family{};  ///< where it takes a product; none: as plans say
  std::string note;                       ///< what the name stands for here, and why
};

/// "auto", or a name that AutoAWQ, transformers or vLLM give to kernels: gemm, gemv, gemv_fast, marlin,
/// exllama, exllamav2 and their spellings in arguments and configurations, upper case as well. There each
/// goes with a layout of files; here every checkpoint has every kernel. Errors: invalid_argument with the
/// names.
KernelChoice kernel_by_name(std::string_view name);

}  // namespace salient::cuda
