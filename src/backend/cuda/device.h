#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

namespace salient::cuda {

/// A kernel by the name that SALIENT_GLOBAL gave it.
struct Kernel {
  const char* name;
  int threads;     ///< of a block
  int blocks = 1;  ///< that a multiprocessor's registers are enough for, at least: SALIENT_GLOBAL's
};

struct Grid {
  int x = 1;
  int y = 1;
  int z = 1;
};

/// A kernel at work: `arguments` is its structure, copied when it is launched.
struct Launch {
  const Kernel& kernel;
  Grid grid;
  size_t shared_bytes = 0;
  std::span<const std::byte> arguments;
};

template <typename Arguments>
std::span<const std::byte> bytes_of(const Arguments& arguments) {
  return std::as_bytes(std::span(&arguments, 1));
}

struct DeviceProperties {
  std::string name;          ///< "NVIDIA H100 80GB HBM3"
  int compute_capability{};  ///< 90 for 9.0
  int multiprocessors{};
  size_t shared_bytes{};  ///< that a block may ask for
  size_t multiprocessor_shared_bytes{};
  size_t total_bytes{};
};

/// Blocks of a kernel, each with so much shared memory, that are at work on a multiprocessor at a time.
int resident_blocks(const DeviceProperties& device, const Kernel& kernel, size_t shared_bytes);

enum class HalfType { f16, bf16 };

/// y [rows, out] = x [rows, in] w^T [in, out], halves of one type, y f32 (row-major, on the device).
struct HalfProduct {
  const void* x;
  const void* w;
  float* y;
  int64_t rows;
  int64_t in;
  int64_t out;
  HalfType type;
};

/// Launches that were captured, to be run as one.
class LaunchGraph {
 public:
  virtual ~LaunchGraph() = default;
};

/// A GPU, or what stands for one: memory and one queue of work, which runs in the order it was given.
/// Addresses are the device's and mean nothing to the host. Errors: out_of_memory; internal where a launch
/// or a copy fails. Not safe to share between threads.
class Device {
 public:
  virtual ~Device() = default;
  virtual const DeviceProperties& properties() const = 0;
  virtual size_t free_bytes() = 0;

  /// 256-byte aligned, uninitialised.
  virtual void* allocate(size_t bytes) = 0;
  virtual void release(void* memory) noexcept = 0;

  /// Queued; `from` may be changed when it returns.
  virtual void copy_in(void* to, const void* from, size_t bytes) = 0;
  /// Waits for all that was queued.
  virtual void copy_out(void* to, const void* from, size_t bytes) = 0;
  virtual void copy(void* to, const void* from, size_t bytes) = 0;
  virtual void fill_zero(void* to, size_t bytes) = 0;
  virtual void launch(const Launch& launch) = 0;
  virtual void synchronize() = 0;
  /// How long the device takes for what `work` queues, which it has then done.
  virtual double seconds_of(const std::function<void()>& work) = 0;

  /// Whether `multiply` works: a library for dense products is there.
  virtual bool multiplies() const = 0;
  virtual void multiply(const HalfProduct& product) = 0;

  /// Null where launches of this kind cannot be captured.
  virtual std::unique_ptr<LaunchGraph> capture(std::span<const Launch> launches) = 0;
  /// Runs a graph with other arguments, grids and shared memory for the same kernels.
  virtual void run(LaunchGraph& graph, std::span<const Launch> launches) = 0;
};

}  // namespace salient::cuda
