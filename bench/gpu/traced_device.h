#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "backend/cuda/forwarding_device.h"

namespace salient::gpu {

/// What a device was asked for.
struct DeviceWork {
  int64_t launches = 0;  ///< of kernels, those of graphs included
  int64_t graphs = 0;
  int64_t multiplications = 0;  ///< by the library
  int64_t copies_in = 0;
  int64_t copies_out = 0;
  int64_t bytes_in = 0;
  int64_t bytes_out = 0;
};

/// A launch with its arguments.
struct RecordedLaunch {
  cuda::Kernel kernel;
  cuda::Grid grid;
  size_t shared_bytes;
  std::vector<std::byte> arguments;
};

/// What was queued, in order of its kind.
struct Recording {
  std::vector<RecordedLaunch> launches;
  std::vector<cuda::HalfProduct> products;
};
std::vector<cuda::Launch> launches_of(std::span<const RecordedLaunch> recorded);

/// A device that others own, watched: which kernels run, and how much travels between it and the host.
class TracedDevice final : public cuda::ForwardingDevice {
 public:
  explicit TracedDevice(cuda::Device& device) : ForwardingDevice(device) {}
  TracedDevice(const TracedDevice&) = delete;
  TracedDevice& operator=(const TracedDevice&) = delete;

  /// Kernels, and "library", since the last call.
  std::set<std::string> take_kernels() {
    const std::set<std::string> names = kernels();
    kernels_.clear();
    return names;
  }
  std::set<std::string> kernels() const { return {kernels_.begin(), kernels_.end()}; }
  const DeviceWork& work() const { return work_; }
  int64_t used_bytes() const { return used_bytes_; }
  int64_t peak_bytes() const { return peak_bytes_; }
  void forget_peak() { peak_bytes_ = used_bytes_; }

  /// The launches of `queue`, which do not run. Nothing where it asks for more than kernels.
  std::vector<RecordedLaunch> record(const std::function<void()>& queue);
  /// Runs `queue` and shows `use` what ran. Memory that was released meanwhile is still there, so that it may
  /// run again.
  void watch(const std::function<void()>& queue, const std::function<void(const Recording&)>& use);

  void* allocate(size_t bytes) override;
  void release(void* memory) noexcept override;
  void copy_in(void* to, const void* from, size_t bytes) override;
  void copy_out(void* to, const void* from, size_t bytes) override;
  void copy(void* to, const void* from, size_t bytes) override;
  void fill_zero(void* to, size_t bytes) override;
  void launch(const cuda::Launch& launch) override;
  void multiply(const cuda::HalfProduct& product) override;
  void run(cuda::LaunchGraph& graph, std::span<const cuda::Launch> launches) override;

 private:
  void note(const cuda::Launch& launch);
  /// Whether what is asked for is to be left undone, as somebody records.
  bool spoils_record();

  std::set<const char*> kernels_;  // by address: thousands of launches a second come by
  DeviceWork work_;
  std::map<void*, size_t> sizes_;
  int64_t used_bytes_ = 0;
  int64_t peak_bytes_ = 0;
  std::vector<RecordedLaunch>* record_ = nullptr;
  Recording* watched_ = nullptr;
  std::vector<void*>* kept_ = nullptr;  // released while somebody watches
  bool record_is_whole_ = true;
};

/// What stands for a device where somebody wants to own one.
std::unique_ptr<cuda::Device> borrowed(cuda::Device& device);

}  // namespace salient::gpu
