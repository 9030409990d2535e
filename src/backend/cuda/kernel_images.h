#pragma once

#include <cstddef>
#include <span>

namespace salient::cuda {

/// What nvcc made of a .cu file: the machine code of its kernels for several architectures, in a container
/// that the driver chooses from.
struct KernelImage {
  const char* name;  ///< "halves"
  std::span<const std::byte> bytes;
};

/// A set of images and what they ask of a driver.
struct KernelImages {
  std::span<const KernelImage> images;
  /// Of the CUDA release that made them, as drivers say theirs: 13000 for 13.0; 0 without images.
  int toolkit = 0;
};

/// Those of this build; none where nvcc was not found. Written by cmake/cuda_kernels.cmake.
KernelImages built_kernel_images();

}  // namespace salient::cuda
