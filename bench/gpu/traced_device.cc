#include "gpu/traced_device.h"

#include <algorithm>

namespace salient::gpu {
namespace {

RecordedLaunch recorded(const cuda::Launch& launch) {
  return {.kernel = launch.kernel,
          .grid = launch.grid,
          .shared_bytes = launch.shared_bytes,
          .arguments = {launch.arguments.begin(), launch.arguments.end()}};
}

/// Sets a pointer while it lives.
template <typename T>
class Pointed {
 public:
  Pointed(T*& pointer, T* to) : pointer_(pointer) { pointer_ = to; }
  ~Pointed() { pointer_ = nullptr; }
  Pointed(const Pointed&) = delete;
  Pointed& operator=(const Pointed&) = delete;

 private:
  T*& pointer_;
};

}  // namespace

std::unique_ptr<cuda::Device> borrowed(cuda::Device& device) {
  return std::make_unique<cuda::ForwardingDevice>(device);
}

std::vector<cuda::Launch> launches_of(std::span<const RecordedLaunch> recorded) {
  std::vector<cuda::Launch> launches;
  launches.reserve(recorded.size());
  for (const RecordedLaunch& launch : recorded)
    launches.push_back({.kernel = launch.kernel,
                        .grid = launch.grid,
                        .shared_bytes = launch.shared_bytes,
                        .arguments = launch.arguments});
  return launches;
}

std::vector<RecordedLaunch> TracedDevice::record(const std::function<void()>& queue) {
  std::vector<RecordedLaunch> launches;
  record_is_whole_ = true;
  {
    const Pointed scope(record_, &launches);
    queue();
  }
  if (!record_is_whole_) launches.clear();
  return launches;
}

void TracedDevice::watch(const std::function<void()>& queue,
                         const std::function<void(const Recording&)>& use) {
  Recording recording;
  std::vector<void*> kept;
  const auto give_back = [&] {
    for (void* memory : std::exchange(kept, {})) release(memory);
  };
  try {
    const Pointed keeping(kept_, &kept);
    {
      const Pointed watching(watched_, &recording);
      queue();
    }
    use(recording);
  } catch (...) {
    give_back();
    throw;
  }
  give_back();
}

bool TracedDevice::spoils_record() {
  if (record_ == nullptr) return false;
  record_is_whole_ = false;
  return true;
}

void* TracedDevice::allocate(size_t bytes) {
  void* memory = device_.allocate(bytes);
  sizes_[memory] = bytes;
  used_bytes_ += static_cast<int64_t>(bytes);
  peak_bytes_ = std::max(peak_bytes_, used_bytes_);
  return memory;
}

void TracedDevice::release(void* memory) noexcept {
  if (kept_ != nullptr) return kept_->push_back(memory);
  if (const auto found = sizes_.find(memory); found != sizes_.end()) {
    used_bytes_ -= static_cast<int64_t>(found->second);
    sizes_.erase(found);
  }
  device_.release(memory);
}

void TracedDevice::copy_in(void* to, const void* from, size_t bytes) {
  if (spoils_record()) return;
  ++work_.copies_in;
  work_.bytes_in += static_cast<int64_t>(bytes);
  device_.copy_in(to, from, bytes);
}

void TracedDevice::copy_out(void* to, const void* from, size_t bytes) {
  if (spoils_record()) return;
  ++work_.copies_out;
  work_.bytes_out += static_cast<int64_t>(bytes);
  device_.copy_out(to, from, bytes);
}

void TracedDevice::copy(void* to, const void* from, size_t bytes) {
  if (!spoils_record()) device_.copy(to, from, bytes);
}

void TracedDevice::fill_zero(void* to, size_t bytes) {
  if (!spoils_record()) device_.fill_zero(to, bytes);
}

void TracedDevice::note(const cuda::Launch& launch) {
  ++work_.launches;
  kernels_.insert(launch.kernel.name);
  if (watched_ != nullptr) watched_->launches.push_back(recorded(launch));
}

void TracedDevice::launch(const cuda::Launch& launch) {
  if (record_ != nullptr) {
    record_->push_back(recorded(launch));
    return;
  }
  note(launch);
  device_.launch(launch);
}

void TracedDevice::multiply(const cuda::HalfProduct& product) {
  if (spoils_record()) return;
  ++work_.multiplications;
  kernels_.insert("library");
  if (watched_ != nullptr) watched_->products.push_back(product);
  device_.multiply(product);
}

void TracedDevice::run(cuda::LaunchGraph& graph, std::span<const cuda::Launch> launches) {
  ++work_.graphs;
  for (const cuda::Launch& launch : launches) note(launch);
  device_.run(graph, launches);
}

}  // namespace salient::gpu
