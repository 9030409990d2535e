#include "backend/cuda/kernel_library.h"

#include "base/error.h"

namespace salient::cuda {
namespace {

/// Of a kernel that did not ask for more.
constexpr size_t kSharedBytesAtFirst = size_t{48} << 10;

}  // namespace

KernelLibrary::~KernelLibrary() {
  for (const driver::Module loaded : modules_) driver_.try_call(driver_.unload_module, loaded);
}

void KernelLibrary::load_images() {
  for (size_t i = modules_.size(); i < images_.images.size(); ++i) {
    const KernelImage& image = images_.images[i];
    with_context(fmt::format("kernels of {}", image.name), [&] {
      driver::Module loaded = nullptr;
      driver_.call(driver_.load_module, &loaded, static_cast<const void*>(image.bytes.data()));
      modules_.push_back(loaded);
    });
  }
}

KernelLibrary::LoadedKernel KernelLibrary::load(const char* name) const {
  for (const driver::Module loaded : modules_) {
    LoadedKernel kernel{.function = nullptr, .argument_bytes = 0, .shared_bytes = kSharedBytesAtFirst};
    if (driver_.module_function.function(&kernel.function, loaded, name) != driver::kSuccess) continue;
    size_t offset = 0;
    driver_.call(driver_.parameter_info, kernel.function, size_t{0}, &offset, &kernel.argument_bytes);
    return kernel;
  }
  fail(ErrorKind::internal, "no image of this build has it");
}

KernelLibrary::LoadedKernel& KernelLibrary::find(const char* name) {
  if (const auto found = kernels_.find(std::string_view(name)); found != kernels_.end()) return found->second;
  load_images();
  return kernels_.emplace(name, load(name)).first->second;
}

driver::KernelNode KernelLibrary::node(const Launch& launch, void*& argument) {
  return for_kernel(launch, [&] {
    LoadedKernel& kernel = find(launch.kernel.name);
    if (launch.arguments.size() != kernel.argument_bytes) {
      fail(ErrorKind::internal, "{} bytes of arguments, but it takes {}", launch.arguments.size(),
           kernel.argument_bytes);
    }
    if (launch.shared_bytes > kernel.shared_bytes) {
      driver_.call(driver_.set_function_attribute, kernel.function, driver::kDynamicSharedBytes,
                   static_cast<int>(launch.shared_bytes));
      kernel.shared_bytes = launch.shared_bytes;
    }
    argument = const_cast<std::byte*>(launch.arguments.data());
    return driver::KernelNode{.function = kernel.function,
                              .grid_x = static_cast<unsigned>(launch.grid.x),
                              .grid_y = static_cast<unsigned>(launch.grid.y),
                              .grid_z = static_cast<unsigned>(launch.grid.z),
                              .block_x = static_cast<unsigned>(launch.kernel.threads),
                              .shared_bytes = static_cast<unsigned>(launch.shared_bytes),
                              .arguments = &argument};
  });
}

}  // namespace salient::cuda
