#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "backend/cuda/device.h"
#include "backend/cuda/driver_api.h"
#include "backend/cuda/kernel_images.h"
#include "salient/error.h"

namespace salient::cuda {

/// Runs `body`; an Error that leaves it says which kernel it was. Launches are many: without an Error nothing
/// is formatted.
template <typename Body>
auto for_kernel(const Launch& launch, Body&& body) -> decltype(body()) {
  try {
    return body();
  } catch (Error& error) {
    error.prepend(std::string("kernel ") + launch.kernel.name);
    throw;
  }
}

/// The kernels of all images in a context, found by name. Images are loaded when the first kernel is asked
/// for. The context must be current in every call.
class KernelLibrary {
 public:
  KernelLibrary(const driver::Driver& driver, const KernelImages& images)
      : driver_(driver), images_(images) {}
  ~KernelLibrary();
  KernelLibrary(const KernelLibrary&) = delete;
  KernelLibrary& operator=(const KernelLibrary&) = delete;

  /// The launch as the driver wants it; the kernel may have as much shared memory as it asks for. `argument`
  /// is a place that lives as long as the node does. Errors: internal for kernels that no image has and
  /// arguments of another size than the kernel's.
  driver::KernelNode node(const Launch& launch, void*& argument);

 private:
  struct LoadedKernel {
    driver::Function function;
    size_t argument_bytes;
    size_t shared_bytes;  ///< that it may ask for
  };
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };

  LoadedKernel& find(const char* name);
  LoadedKernel load(const char* name) const;
  void load_images();

  const driver::Driver& driver_;
  KernelImages images_;
  std::vector<driver::Module> modules_;
  std::unordered_map<std::string, LoadedKernel, Hash, std::equal_to<>> kernels_;
};

}  // namespace salient::cuda
