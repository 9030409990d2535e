#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "backend/cuda/shared_library.h"

/// The part of NVIDIA's driver interface that the back end uses, declared here so that the program is built
/// without CUDA; the tests compare it with a cuda.h where there is one.
namespace salient::cuda::driver {

using Result = int;
using DeviceId = int;
using Address = unsigned long long;
using Context = struct ContextTag*;
using Module = struct ModuleTag*;
using Function = struct FunctionTag*;
using Stream = struct StreamTag*;
using Event = struct EventTag*;
using Graph = struct GraphTag*;
using GraphNode = struct GraphNodeTag*;
using GraphExec = struct GraphExecTag*;
using KernelHandle = struct KernelHandleTag*;

inline constexpr Result kSuccess = 0;
inline constexpr Result kOutOfMemory = 2;
inline constexpr Result kNoDevice = 100;

/// Attributes of devices.
inline constexpr int kMultiprocessors = 16;
inline constexpr int kSharedBytesOfMultiprocessor = 81;
inline constexpr int kComputeCapabilityMajor = 75;
inline constexpr int kComputeCapabilityMinor = 76;
inline constexpr int kSharedBytesOfBlock = 97;  ///< that a kernel gets when it asks for them
/// Attributes of functions.
inline constexpr int kDynamicSharedBytes = 8;

inline constexpr unsigned kNonBlockingStream = 1;
inline constexpr unsigned kEventWithTiming = 0;
inline constexpr unsigned kEventWithoutTiming = 2;

/// CUDA_KERNEL_NODE_PARAMS_v2.
struct KernelNode {
  Function function = nullptr;
  unsigned grid_x = 1;
  unsigned grid_y = 1;
  unsigned grid_z = 1;
  unsigned block_x = 1;
  unsigned block_y = 1;
  unsigned block_z = 1;
  unsigned shared_bytes = 0;
  void** arguments = nullptr;
  void** extra = nullptr;
  KernelHandle kernel = nullptr;
  Context context = nullptr;
};

/// X(member, name in cuda.h, exported symbol, parameters...).
#define SALIENT_DRIVER_FUNCTIONS(X)                                                                      \
  X(init, cuInit, cuInit, unsigned)                                                                      \
  X(version, cuDriverGetVersion, cuDriverGetVersion, int*)                                               \
  X(error_name, cuGetErrorName, cuGetErrorName, Result, const char**)                                    \
  X(error_text, cuGetErrorString, cuGetErrorString, Result, const char**)                                \
  X(device_count, cuDeviceGetCount, cuDeviceGetCount, int*)                                              \
  X(device, cuDeviceGet, cuDeviceGet, DeviceId*, int)                                                    \
  X(device_name, cuDeviceGetName, cuDeviceGetName, char*, int, DeviceId)                                 \
  X(device_attribute, cuDeviceGetAttribute, cuDeviceGetAttribute, int*, int, DeviceId)                   \
  X(device_bytes, cuDeviceTotalMem, cuDeviceTotalMem_v2, size_t*, DeviceId)                              \
  X(retain_context, cuDevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain, Context*, DeviceId)              \
  X(release_context, cuDevicePrimaryCtxRelease, cuDevicePrimaryCtxRelease_v2, DeviceId)                  \
  X(current_context, cuCtxGetCurrent, cuCtxGetCurrent, Context*)                                         \
  X(push_context, cuCtxPushCurrent, cuCtxPushCurrent_v2, Context)                                        \
  X(pop_context, cuCtxPopCurrent, cuCtxPopCurrent_v2, Context*)                                          \
  X(memory_info, cuMemGetInfo, cuMemGetInfo_v2, size_t*, size_t*)                                        \
  X(allocate, cuMemAlloc, cuMemAlloc_v2, Address*, size_t)                                               \
  X(release, cuMemFree, cuMemFree_v2, Address)                                                           \
  X(allocate_pinned, cuMemHostAlloc, cuMemHostAlloc, void**, size_t, unsigned)                           \
  X(release_pinned, cuMemFreeHost, cuMemFreeHost, void*)                                                 \
  X(copy_in, cuMemcpyHtoDAsync, cuMemcpyHtoDAsync_v2, Address, const void*, size_t, Stream)              \
  X(copy_out, cuMemcpyDtoHAsync, cuMemcpyDtoHAsync_v2, void*, Address, size_t, Stream)                   \
  X(copy, cuMemcpyDtoDAsync, cuMemcpyDtoDAsync_v2, Address, Address, size_t, Stream)                     \
  X(fill, cuMemsetD8Async, cuMemsetD8Async, Address, unsigned char, size_t, Stream)                      \
  X(create_stream, cuStreamCreate, cuStreamCreate, Stream*, unsigned)                                    \
  X(destroy_stream, cuStreamDestroy, cuStreamDestroy_v2, Stream)                                         \
  X(synchronize_stream, cuStreamSynchronize, cuStreamSynchronize, Stream)                                \
  X(create_event, cuEventCreate, cuEventCreate, Event*, unsigned)                                        \
  X(destroy_event, cuEventDestroy, cuEventDestroy_v2, Event)                                             \
  X(record_event, cuEventRecord, cuEventRecord, Event, Stream)                                           \
  X(synchronize_event, cuEventSynchronize, cuEventSynchronize, Event)                                    \
  X(elapsed_milliseconds, cuEventElapsedTime_v2, cuEventElapsedTime_v2, float*, Event, Event)            \
  X(load_module, cuModuleLoadData, cuModuleLoadData, Module*, const void*)                               \
  X(unload_module, cuModuleUnload, cuModuleUnload, Module)                                               \
  X(module_function, cuModuleGetFunction, cuModuleGetFunction, Function*, Module, const char*)           \
  X(set_function_attribute, cuFuncSetAttribute, cuFuncSetAttribute, Function, int, int)                  \
  X(parameter_info, cuFuncGetParamInfo, cuFuncGetParamInfo, Function, size_t, size_t*, size_t*)          \
  X(launch, cuLaunchKernel, cuLaunchKernel, Function, unsigned, unsigned, unsigned, unsigned, unsigned,  \
    unsigned, unsigned, Stream, void**, void**)                                                          \
  X(create_graph, cuGraphCreate, cuGraphCreate, Graph*, unsigned)                                        \
  X(destroy_graph, cuGraphDestroy, cuGraphDestroy, Graph)                                                \
  X(add_kernel_node, cuGraphAddKernelNode, cuGraphAddKernelNode_v2, GraphNode*, Graph, const GraphNode*, \
    size_t, const KernelNode*)                                                                           \
  X(instantiate_graph, cuGraphInstantiate, cuGraphInstantiateWithFlags, GraphExec*, Graph,               \
    unsigned long long)                                                                                  \
  X(set_kernel_node, cuGraphExecKernelNodeSetParams, cuGraphExecKernelNodeSetParams_v2, GraphExec,       \
    GraphNode, const KernelNode*)                                                                        \
  X(destroy_graph_exec, cuGraphExecDestroy, cuGraphExecDestroy, GraphExec)                               \
  X(launch_graph, cuGraphLaunch, cuGraphLaunch, GraphExec, Stream)

template <typename... Parameters>
struct Entry {
  const char* symbol;
  Result (*function)(Parameters...) = nullptr;
};

/// The loaded driver.
struct Driver {
  /// Errors: not_found without the library.
  explicit Driver(const std::string& path);

  /// The first function that the library lacks, or empty: an old driver can say how old it is all the same.
  std::string missing;

  /// "CUDA_ERROR_NO_DEVICE (no CUDA-capable device is detected)".
  std::string text_of(Result result) const;
  /// Errors: out_of_memory or internal, with the function's name, unless `result` is kSuccess.
  void check(const char* symbol, Result result) const {
    if (result != kSuccess) fail_call(symbol, result);
  }
  template <typename... Parameters, typename... Arguments>
  void call(const Entry<Parameters...>& entry, Arguments... arguments) const {
    check(entry.symbol, entry.function(arguments...));
  }
  /// For destructors, which can do nothing about failures.
  template <typename... Parameters, typename... Arguments>
  void try_call(const Entry<Parameters...>& entry, Arguments... arguments) const noexcept {
    entry.function(arguments...);
  }

#define SALIENT_DRIVER_MEMBER(member, name, exported, ...) Entry<__VA_ARGS__> member{#exported};
  SALIENT_DRIVER_FUNCTIONS(SALIENT_DRIVER_MEMBER)
#undef SALIENT_DRIVER_MEMBER

 private:
  [[noreturn]] void fail_call(const char* symbol, Result result) const;
};

/// While it lives, the context is the calling thread's; whichever was before is so again behind it, since
/// others in the process (PyTorch) have theirs.
class ContextScope {
 public:
  /// A failure shows in the calls that follow.
  ContextScope(const Driver& driver, Context context) noexcept;
  ~ContextScope();
  ContextScope(const ContextScope&) = delete;
  ContextScope& operator=(const ContextScope&) = delete;

 private:
  const Driver& driver_;
  bool pushed_ = false;
};

}  // namespace salient::cuda::driver
