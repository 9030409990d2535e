#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/cuda/device.h"

namespace salient::test {

/// A kernel compiled for the CPU, see simt.h.
struct SimulatedKernel {
  const char* name;
  int threads;
  int blocks;  ///< of a multiprocessor, at least
  size_t argument_bytes;
  void (*run)(const std::byte* arguments);
};

/// For the lists of kernels (SALIENT_..._KERNELS).
#define SALIENT_SIMULATED(name, Args, threads, blocks, ...) \
  {#name, threads, blocks, sizeof(Args),                    \
   [](const std::byte* arguments) { __VA_ARGS__(*reinterpret_cast<const Args*>(arguments)); }},

/// Every kernel of the back end.
std::span<const SimulatedKernel> simulated_kernels();

struct SimulatedGrid {
  cuda::Grid grid;
  int threads;
  size_t shared_bytes = 0;
};

/// What a launch did that a GPU would have spent time on.
struct SimulatedCounts {
  uint64_t shared_conflicts = 0;  ///< additional cycles of 16-byte accesses and matrix loads, of all warps
  uint64_t stream_bytes = 0;      ///< read by load_stream and copy_stream
  uint64_t products = 0;          ///< mma instructions, of warps
  SimulatedCounts& operator+=(const SimulatedCounts& other);
};

/// Runs a kernel as a GPU might. Threads of a block run one at a time from one synchronisation to the next,
/// in an order that `seed` chooses; shared memory and what asynchronous copies will fill are NaN until then,
/// and copies arrive as late as they may. Errors: internal for threads that leave each other at a barrier or
/// at an instruction of the whole warp, and those that the kernel throws.
SimulatedCounts simulate(const SimulatedGrid& grid, void (*run)(const std::byte*), const std::byte* arguments,
                         uint32_t seed = 0);

/// The simulator as a device. Memory is the host's, each allocation between guards that are looked at when it
/// is released.
class SimulatedDevice final : public cuda::Device {
 public:
  SimulatedDevice();
  ~SimulatedDevice() override;

  const cuda::DeviceProperties& properties() const override { return properties_; }
  size_t free_bytes() override {
    return properties_.total_bytes - std::min(used_bytes_, properties_.total_bytes);
  }
  void* allocate(size_t bytes) override;
  void release(void* memory) noexcept override;
  void copy_in(void* to, const void* from, size_t bytes) override;
  void copy_out(void* to, const void* from, size_t bytes) override;
  void copy(void* to, const void* from, size_t bytes) override;
  void fill_zero(void* to, size_t bytes) override;
  void launch(const cuda::Launch& launch) override;
  void synchronize() override { ++waits_; }
  /// A microsecond, and one for each block that was launched.
  double seconds_of(const std::function<void()>& work) override;
  bool multiplies() const override { return multiplies_; }
  void multiply(const cuda::HalfProduct& product) override;
  std::unique_ptr<cuda::LaunchGraph> capture(std::span<const cuda::Launch> launches) override;
  void run(cuda::LaunchGraph& graph, std::span<const cuda::Launch> launches) override;

  /// Of all launches so far.
  const SimulatedCounts& counts() const { return counts_; }
  /// Launches of each kernel so far.
  const std::map<std::string, int>& launches() const { return launches_; }
  int graph_runs() const { return graph_runs_; }
  /// Times that the host waited for the device.
  int waits() const { return waits_; }
  /// Bytes allocated now.
  size_t used_bytes() const { return used_bytes_; }
  /// At once, so far.
  size_t most_used_bytes() const { return most_used_bytes_; }
  /// Whether a guard of a released allocation was found overwritten.
  bool guards_held() const { return guards_held_; }
  void set_multiplies(bool multiplies) { multiplies_ = multiplies; }
  void set_seed(uint32_t seed) { seed_ = seed; }
  void set_total_bytes(size_t bytes) { properties_.total_bytes = bytes; }

 private:
  cuda::DeviceProperties properties_;
  SimulatedCounts counts_;
  std::map<std::string, int> launches_;
  std::map<void*, size_t> sizes_;
  size_t used_bytes_ = 0;
  size_t most_used_bytes_ = 0;
  int graph_runs_ = 0;
  int waits_ = 0;
  int64_t blocks_ = 0;  ///< launched so far
  bool guards_held_ = true;
  bool multiplies_ = true;
  uint32_t seed_ = 0;
};

}  // namespace salient::test
