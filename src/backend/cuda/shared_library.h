#pragma once

#include <string>

namespace salient::cuda {

/// A library that is loaded when it is wanted, so that the program starts without it. It is never unloaded:
/// NVIDIA's keep threads and handlers of the end of the process.
class SharedLibrary {
 public:
  /// Errors: not_found, with what the loader says.
  explicit SharedLibrary(const std::string& path);

  /// Null where there is none.
  void* find(const char* symbol) const;
  /// Errors: unsupported: an older library.
  void* get(const char* symbol) const;
  template <typename Function>
  void get(const char* symbol, Function*& function) const {
    function = reinterpret_cast<Function*>(get(symbol));
  }

 private:
  std::string path_;
  void* handle_;
};

}  // namespace salient::cuda
