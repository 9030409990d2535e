#include "backend/cuda/shared_library.h"

#include <dlfcn.h>

#include "base/error.h"

namespace salient::cuda {

SharedLibrary::SharedLibrary(const std::string& path)
    : path_(path), handle_(::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
  if (handle_ != nullptr) return;
  const char* reason = ::dlerror();
  fail(ErrorKind::not_found, "{}", reason != nullptr ? reason : path.c_str());
}

void* SharedLibrary::find(const char* symbol) const { return ::dlsym(handle_, symbol); }

void* SharedLibrary::get(const char* symbol) const {
  if (void* found = find(symbol)) return found;
  fail(ErrorKind::unsupported, "{} has no function {}", path_, symbol);
}

}  // namespace salient::cuda
