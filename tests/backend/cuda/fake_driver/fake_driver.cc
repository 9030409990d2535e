// A library with the symbols of libcuda.so.1 that the back end loads, see fake_driver.h.
#include "backend/cuda/fake_driver/fake_driver.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <type_traits>

#define SALIENT_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using namespace salient::cuda::driver;
using salient::test::FakeDriver;
using salient::test::FakeFunction;

constexpr Result kInvalidValue = 1;
constexpr Result kInvalidContext = 201;
constexpr Result kInvalidHandle = 400;
constexpr Result kNotFound = 500;
/// Of an allocation: some are as large as a GPU's memory.
constexpr size_t kPoisonedBytes = size_t{1} << 20;

FakeDriver state;
thread_local std::vector<Context> contexts;

Result enter(const char* function) {
  ++state.calls[function];
  auto& failures = state.failures[function];
  if (failures.empty()) return kSuccess;
  const Result result = failures.front();
  failures.pop_front();
  return result;
}

Result enter_with_context(const char* function) {
  const Result result = enter(function);
  return result == kSuccess && contexts.empty() ? kInvalidContext : result;
}

// Every function begins so.
#define SALIENT_ENTER \
  if (const Result result = enter(__func__); result != kSuccess) return result
#define SALIENT_ENTER_WITH_CONTEXT \
  if (const Result result = enter_with_context(__func__); result != kSuccess) return result
#define SALIENT_KNOWN(object) \
  if (!state.objects.contains(object)) return kInvalidHandle

template <typename T>
T* make(T* object) {
  state.objects.insert(object);
  return object;
}

template <typename T>
Result destroy(T* object) {
  if (state.objects.erase(object) == 0) return kInvalidHandle;
  delete object;
  return kSuccess;
}

/// The allocation that holds [address, address + bytes).
bool inside_memory(Address address, size_t bytes) {
  const auto above = state.memory.upper_bound(reinterpret_cast<void*>(address));
  if (above == state.memory.begin()) return false;
  const auto& [begin, size] = *std::prev(above);
  return address + bytes <= reinterpret_cast<Address>(begin) + size;
}

void* host(Address address) { return reinterpret_cast<void*>(address); }

struct QueuedKernel {
  FakeFunction function;
  KernelNode node;
  std::vector<std::byte> arguments;

  void run() const {
    state.run({.kernel = function.name,
               .grid = {static_cast<int>(node.grid_x), static_cast<int>(node.grid_y),
                        static_cast<int>(node.grid_z)},
               .threads = static_cast<int>(node.block_x * node.block_y * node.block_z),
               .shared_bytes = node.shared_bytes,
               .arguments = arguments.data()});
  }
};

Result make_kernel(const KernelNode& node, QueuedKernel& kernel) {
  const auto* function = reinterpret_cast<const FakeFunction*>(node.function);
  if (function == nullptr) return kInvalidHandle;
  if (node.shared_bytes > function->shared_bytes || node.grid_x == 0 || node.block_x > 1024)
    return kInvalidValue;
  const auto* bytes = static_cast<const std::byte*>(node.arguments[0]);
  kernel = {*function, node, {bytes, bytes + function->argument_bytes}};
  return kSuccess;
}

}  // namespace

namespace salient::cuda::driver {

struct ContextTag {};
struct StreamTag {};
struct ModuleTag {
  std::string text;
};
struct EventTag {
  bool timed;
  size_t entry = 0;
};
struct GraphNodeTag {
  QueuedKernel kernel;
  std::vector<GraphNode> before;
};
struct GraphTag {
  std::deque<GraphNodeTag> nodes;
};
struct GraphExecTag {
  std::map<GraphNode, GraphNodeTag> nodes;
};

}  // namespace salient::cuda::driver

namespace {

ContextTag primary_context;

/// Nodes in an order that their dependencies allow, the last that was added as early as may be.
std::vector<QueuedKernel> ordered(const GraphExecTag& graph) {
  std::vector<QueuedKernel> kernels;
  std::set<GraphNode> done;
  while (done.size() < graph.nodes.size()) {
    const auto ready = std::find_if(graph.nodes.rbegin(), graph.nodes.rend(), [&](const auto& entry) {
      return !done.contains(entry.first) &&
             std::ranges::all_of(entry.second.before, [&](GraphNode node) { return done.contains(node); });
    });
    done.insert(ready->first);
    kernels.push_back(ready->second.kernel);
  }
  return kernels;
}

}  // namespace

SALIENT_EXPORT FakeDriver* salient_fake_driver() { return &state; }

SALIENT_EXPORT Result cuInit(unsigned) {
  SALIENT_ENTER;
  return state.start;
}
SALIENT_EXPORT Result cuDriverGetVersion(int* version) {
  SALIENT_ENTER;
  *version = state.version;
  return kSuccess;
}
SALIENT_EXPORT Result cuGetErrorName(Result error, const char** text) {
  *text = error == kOutOfMemory ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_FAKE";
  return kSuccess;
}
SALIENT_EXPORT Result cuGetErrorString(Result error, const char** text) {
  *text = error == kOutOfMemory ? "out of memory" : "as the test asked";
  return kSuccess;
}
SALIENT_EXPORT Result cuDeviceGetCount(int* count) {
  SALIENT_ENTER;
  *count = static_cast<int>(state.gpus.size());
  return kSuccess;
}
SALIENT_EXPORT Result cuDeviceGet(DeviceId* device, int ordinal) {
  SALIENT_ENTER;
  *device = ordinal + 100;
  return kSuccess;
}
SALIENT_EXPORT Result cuDeviceGetName(char* name, int length, DeviceId device) {
  SALIENT_ENTER;
  std::strncpy(name, state.gpus.at(device - 100).name.c_str(), static_cast<size_t>(length));
  return kSuccess;
}
SALIENT_EXPORT Result cuDeviceGetAttribute(int* value, int attribute, DeviceId device) {
  SALIENT_ENTER;
  const auto& gpu = state.gpus.at(device - 100);
  const std::map<int, int> values{{kMultiprocessors, gpu.multiprocessors},
                                  {kComputeCapabilityMajor, gpu.major},
                                  {kComputeCapabilityMinor, gpu.minor},
                                  {kSharedBytesOfBlock, gpu.shared_bytes},
                                  {kSharedBytesOfMultiprocessor, gpu.multiprocessor_shared_bytes}};
  *value = values.at(attribute);
  return kSuccess;
}
SALIENT_EXPORT Result cuDeviceTotalMem_v2(size_t* bytes, DeviceId device) {
  SALIENT_ENTER;
  *bytes = state.gpus.at(device - 100).total_bytes;
  return kSuccess;
}
SALIENT_EXPORT Result cuDevicePrimaryCtxRetain(Context* context, DeviceId) {
  SALIENT_ENTER;
  ++state.retained_contexts;
  *context = &primary_context;
  return kSuccess;
}
SALIENT_EXPORT Result cuDevicePrimaryCtxRelease_v2(DeviceId) {
  SALIENT_ENTER;
  --state.retained_contexts;
  return kSuccess;
}
SALIENT_EXPORT Result cuCtxGetCurrent(Context* context) {
  SALIENT_ENTER;
  *context = contexts.empty() ? nullptr : contexts.back();
  return kSuccess;
}
SALIENT_EXPORT Result cuCtxPushCurrent_v2(Context context) {
  SALIENT_ENTER;
  contexts.push_back(context);
  ++state.pushed_contexts;
  return kSuccess;
}
SALIENT_EXPORT Result cuCtxPopCurrent_v2(Context* context) {
  SALIENT_ENTER_WITH_CONTEXT;
  *context = contexts.back();
  contexts.pop_back();
  --state.pushed_contexts;
  return kSuccess;
}
SALIENT_EXPORT Result cuMemGetInfo_v2(size_t* free, size_t* total) {
  SALIENT_ENTER_WITH_CONTEXT;
  *total = state.gpus[0].total_bytes;
  *free = *total - state.memory_bytes;
  return kSuccess;
}
SALIENT_EXPORT Result cuMemAlloc_v2(Address* address, size_t bytes) {
  SALIENT_ENTER_WITH_CONTEXT;
  if (bytes == 0) return kInvalidValue;
  if (state.memory_bytes + bytes > state.gpus[0].total_bytes) return kOutOfMemory;
  void* memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  std::memset(memory, 0xcc, std::min(bytes, kPoisonedBytes));
  state.memory[memory] = bytes;
  state.memory_bytes += bytes;
  *address = reinterpret_cast<Address>(memory);
  return kSuccess;
}
SALIENT_EXPORT Result cuMemFree_v2(Address address) {
  SALIENT_ENTER_WITH_CONTEXT;
  state.work_until(state.queued());
  const auto found = state.memory.find(host(address));
  if (found == state.memory.end()) return kInvalidValue;
  state.memory_bytes -= found->second;
  std::free(found->first);
  state.memory.erase(found);
  return kSuccess;
}
SALIENT_EXPORT Result cuMemHostAlloc(void** memory, size_t bytes, unsigned) {
  SALIENT_ENTER_WITH_CONTEXT;
  *memory = make(std::malloc(bytes));
  return kSuccess;
}
SALIENT_EXPORT Result cuMemFreeHost(void* memory) {
  SALIENT_ENTER_WITH_CONTEXT;
  SALIENT_KNOWN(memory);
  state.objects.erase(memory);
  std::free(memory);
  return kSuccess;
}
SALIENT_EXPORT Result cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, Stream stream) {
  SALIENT_ENTER_WITH_CONTEXT;
  SALIENT_KNOWN(stream);
  if (!inside_memory(to, bytes)) return kInvalidValue;
  state.queue.emplace_back([=] { std::memcpy(host(to), from, bytes); });
  return kSuccess;
}
SALIENT_EXPORT Result cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, Stream stream) {
  SALIENT_ENTER_WITH_CONTEXT;
  SALIENT_KNOWN(stream);
  if (!inside_memory(from, bytes)) return kInvalidValue;
  state.queue.emplace_back([=] { std::memcpy(to, host(from), bytes); });
  return kSuccess;
}
SALIENT_EXPORT Result cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, Stream stream) {
  SALIENT_ENTER_WITH_CONTEXT;
  SALIENT_KNOWN(stream);
  if (!inside_memory(from, bytes) || !inside_memory(to, bytes)) return kInvalidValue;
  state.queue.emplace_back([=] { std::memcpy(host(to), host(from), bytes); });
  return kSuccess;
}
SALIENT_EXPORT Result cuMemsetD8Async(Address to, unsigned char value, size_t bytes, Stream stream) {
  SALIENT_ENTER_WITH_CONTEXT;
  SALIENT_KNOWN(stream);
  if (!inside_memory(to, bytes)) return kInvalidValue;
  state.queue.emplace_back([=] { std::memset(host(to), value, bytes); });
  return kSuccess;
}
SALIENT_EXPORT Result cuStreamCreate(Stream* stream, unsigned flags) {
  SALIENT_ENTER_WITH_CONTEXT;
  if (flags != kNonBlockingStream) return kInvalidValue;
  *stream = make(new StreamTag);
  return kSuccess;
}
SALIENT_EXPORT Result cuStreamDestroy_v2(Stream stream) {
  SALIENT_ENTER_WITH_CONTEXT;
  return destroy(stream);
}
SALIENT_EXPORT Result cuStreamSynchronize(Stream stream) {
  SALIENT_ENTER_WITH_CONTEXT;
  SALIENT_KNOWN(stream);
  state.work_until(state.queued());
  return kSuccess;
}
SALIENT_EXPORT Result cuEventCreate(Event* event, unsigned flags) {
  SALIENT_ENTER_WITH_CONTEXT;
  *event = make(new EventTag{.timed = flags == kEventWithTiming});
  return kSuccess;
}
SALIENT_EXPORT Result cuEventDestroy_v2(Event event) {
  SALIENT_ENTER_WITH_CONTEXT;
  return destroy(event);
}
SALIENT_EXPORT Result cuEventRecord(Event event, Stream stream) {
  SALIENT_ENTER_WITH_CONTEXT;
  SALIENT_KNOWN(stream);
  SALIENT_KNOWN(event);
  event->entry = state.queued();
  return kSuccess;
}
SALIENT_EXPORT Result cuEventSynchronize(Event event) {
  SALIENT_ENTER_WITH_CONTEXT;
  SALIENT_KNOWN(event);
  state.work_until(event->entry);
  return kSuccess;
}
SALIENT_EXPORT Result cuEventElapsedTime_v2(float* milliseconds, Event begin, Event end) {
  SALIENT_ENTER_WITH_CONTEXT;
  SALIENT_KNOWN(begin);
  SALIENT_KNOWN(end);
  if (!begin->timed || !end->timed || end->entry > state.finished) return kInvalidHandle;
  *milliseconds = static_cast<float>(end->entry - begin->entry);
  return kSuccess;
}
/// An image is text: lines of a kernel's name and the size of its arguments.
SALIENT_EXPORT Result cuModuleLoadData(Module* loaded, const void* image) {
  SALIENT_ENTER_WITH_CONTEXT;
  *loaded = make(new ModuleTag{static_cast<const char*>(image)});
  return kSuccess;
}
SALIENT_EXPORT Result cuModuleUnload(Module loaded) {
  SALIENT_ENTER_WITH_CONTEXT;
  return destroy(loaded);
}
SALIENT_EXPORT Result cuModuleGetFunction(Function* function, Module loaded, const char* name) {
  SALIENT_ENTER_WITH_CONTEXT;
  SALIENT_KNOWN(loaded);
  std::istringstream text(loaded->text);
  for (FakeFunction found; text >> found.name >> found.argument_bytes;) {
    if (found.name != name) continue;
    auto& kept = state.functions[name] = found;
    *function = reinterpret_cast<Function>(&kept);
    return kSuccess;
  }
  return kNotFound;
}
SALIENT_EXPORT Result cuFuncSetAttribute(Function function, int attribute, int value) {
  SALIENT_ENTER_WITH_CONTEXT;
  if (attribute != kDynamicSharedBytes || value > state.gpus[0].shared_bytes) return kInvalidValue;
  reinterpret_cast<FakeFunction*>(function)->shared_bytes = static_cast<size_t>(value);
  return kSuccess;
}
SALIENT_EXPORT Result cuFuncGetParamInfo(Function function, size_t index, size_t* offset, size_t* size) {
  SALIENT_ENTER_WITH_CONTEXT;
  if (index != 0) return kInvalidValue;
  *offset = 0;
  *size = reinterpret_cast<FakeFunction*>(function)->argument_bytes;
  return kSuccess;
}
SALIENT_EXPORT Result cuLaunchKernel(Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                                     unsigned block_x, unsigned block_y, unsigned block_z,
                                     unsigned shared_bytes, Stream stream, void** arguments, void**) {
  SALIENT_ENTER_WITH_CONTEXT;
  SALIENT_KNOWN(stream);
  QueuedKernel kernel;
  const Result result = make_kernel({.function = function,
                                     .grid_x = grid_x,
                                     .grid_y = grid_y,
                                     .grid_z = grid_z,
                                     .block_x = block_x,
                                     .block_y = block_y,
                                     .block_z = block_z,
                                     .shared_bytes = shared_bytes,
                                     .arguments = arguments},
                                    kernel);
  if (result == kSuccess) state.queue.emplace_back([kernel] { kernel.run(); });
  return result;
}
SALIENT_EXPORT Result cuGraphCreate(Graph* graph, unsigned) {
  SALIENT_ENTER_WITH_CONTEXT;
  *graph = make(new GraphTag);
  return kSuccess;
}
SALIENT_EXPORT Result cuGraphDestroy(Graph graph) {
  SALIENT_ENTER_WITH_CONTEXT;
  return destroy(graph);
}
SALIENT_EXPORT Result cuGraphAddKernelNode_v2(GraphNode* node, Graph graph, const GraphNode* before,
                                              size_t count, const KernelNode* parameters) {
  SALIENT_ENTER_WITH_CONTEXT;
  SALIENT_KNOWN(graph);
  QueuedKernel kernel;
  if (const Result result = make_kernel(*parameters, kernel); result != kSuccess) return result;
  *node = &graph->nodes.emplace_back(GraphNodeTag{kernel, {before, before + count}});
  return kSuccess;
}
SALIENT_EXPORT Result cuGraphInstantiateWithFlags(GraphExec* exec, Graph graph, unsigned long long) {
  SALIENT_ENTER_WITH_CONTEXT;
  SALIENT_KNOWN(graph);
  *exec = make(new GraphExecTag);
  for (GraphNodeTag& node : graph->nodes) (*exec)->nodes[&node] = node;
  return kSuccess;
}
SALIENT_EXPORT Result cuGraphExecKernelNodeSetParams_v2(GraphExec exec, GraphNode node,
                                                        const KernelNode* parameters) {
  SALIENT_ENTER_WITH_CONTEXT;
  SALIENT_KNOWN(exec);
  if (!exec->nodes.contains(node)) return kInvalidHandle;
  return make_kernel(*parameters, exec->nodes[node].kernel);
}
SALIENT_EXPORT Result cuGraphExecDestroy(GraphExec exec) {
  SALIENT_ENTER_WITH_CONTEXT;
  return destroy(exec);
}
SALIENT_EXPORT Result cuGraphLaunch(GraphExec exec, Stream stream) {
  SALIENT_ENTER_WITH_CONTEXT;
  SALIENT_KNOWN(exec);
  SALIENT_KNOWN(stream);
  for (const QueuedKernel& kernel : ordered(*exec)) state.queue.emplace_back([kernel] { kernel.run(); });
  return kSuccess;
}

#define SALIENT_SAME(member, name, exported, ...) \
  static_assert(std::is_same_v<decltype(&exported), Result (*)(__VA_ARGS__)>);
SALIENT_DRIVER_FUNCTIONS(SALIENT_SAME)
