#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/cuda/device.h"
#include "backend/cuda/kernel_images.h"

namespace salient::cuda {

/// What is loaded when the program runs. Tests have others.
struct CudaLibraries {
  std::string driver = "libcuda.so.1";
  /// cuBLASLt, names to try. Any release does that the driver takes.
  std::vector<std::string> products{"libcublasLt.so.13", "/usr/local/cuda/lib64/libcublasLt.so.13",
                                    "libcublasLt.so.12", "/usr/local/cuda/lib64/libcublasLt.so.12"};
  KernelImages kernels = built_kernel_images();
};

struct CudaStatus {
  /// One line when no device can be used, else empty: no kernels, no driver, too old a driver, no device.
  std::string why_not;
  /// In the order of their ordinals; those too old for the kernels too.
  std::vector<DeviceProperties> devices;
};

/// The oldest chips that have what the kernels use: Ampere.
inline constexpr int kOldestComputeCapability = 80;

/// Looks for GPUs. Throws nothing but std::bad_alloc.
CudaStatus query_cuda(const CudaLibraries& libraries = {});

/// Errors: unsupported with the reason that query_cuda gives, or for a chip that is too old; invalid_argument
/// for an ordinal that no device has.
std::unique_ptr<Device> open_cuda_device(int ordinal, const CudaLibraries& libraries = {});

}  // namespace salient::cuda
