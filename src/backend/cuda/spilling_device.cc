#include "backend/cuda/spilling_device.h"

#include "base/error.h"

namespace salient::cuda {

template <typename Body>
auto RetryingDevice::with_room(const Body& body) const -> decltype(body()) {
  try {
    return body();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::out_of_memory) throw;
    if (copies_.take_away(kBytesAtOnce, device_, DeviceCopies::Which::behind_launches) == 0) throw;
  }
  return body();
}

void RetryingDevice::launch(const Launch& launch) {
  with_room([&] { device_.launch(launch); });
}

bool RetryingDevice::multiplies() const {
  return with_room([&] { return device_.multiplies(); });
}

void RetryingDevice::multiply(const HalfProduct& product) {
  with_room([&] { device_.multiply(product); });
}

std::unique_ptr<LaunchGraph> RetryingDevice::capture(std::span<const Launch> launches) {
  return with_room([&] { return device_.capture(launches); });
}

void RetryingDevice::run(LaunchGraph& graph, std::span<const Launch> launches) {
  with_room([&] { device_.run(graph, launches); });
}

bool SpillingDevice::may_make_room(size_t bytes) {
  const size_t free = device_.free_bytes();
  return bytes <= free || copies_.can_free(bytes - free);
}

void* SpillingDevice::allocate(size_t bytes) {
  for (;;) {
    try {
      return device_.allocate(bytes);
    } catch (Error& error) {
      if (error.kind() != ErrorKind::out_of_memory) throw;
      if (may_make_room(bytes) && copies_.take_away(bytes, device_) > 0) continue;
      constexpr double kMiB = 1 << 20;
      fail(ErrorKind::out_of_memory,
           "{}; with all tensors away but what is being worked on ({:.1f} MiB) there is too little beside "
           "weights "
           "and working memory: take fewer tokens at a time, a smaller model or a GPU with more memory",
           error.what(), static_cast<double>(copies_.held_bytes()) / kMiB);
    }
  }
}

}  // namespace salient::cuda
