#include "backend/cuda/elementwise.h"

#include <algorithm>
#include <cstring>

#include "backend/cuda/launch.h"

namespace salient::cuda {
namespace {

template <typename Arguments>
void launch_values(Device& device, const Kernel& kernel, const Arguments& arguments) {
  if (arguments.count == 0) return;
  launch(device, kernel, {.x = blocks_for(arguments.count, 4 * kElementwiseThreads)}, arguments);
}

}  // namespace

void add(Device& device, const float* x, float* y, int64_t count) {
  launch_values(device, kAddValues, AddArguments{.x = x, .y = y, .count = count});
}

void scale(Device& device, float factor, float* x, int64_t count) {
  launch_values(device, kScaleValues, ScaleArguments{.x = x, .count = count, .factor = factor, .cap = 0});
}

void softcap(Device& device, float cap, float* x, int64_t count) {
  launch_values(device, kScaleValues, ScaleArguments{.x = x, .count = count, .factor = 1, .cap = cap});
}

void activation(Device& device, Activation activation, float* x, int64_t count) {
  launch_values(
      device, kActivate,
      ActivateArguments{.gate = x, .up = nullptr, .y = x, .count = count, .activation = activation});
}

void gated_activation(Device& device, const GatedActivation& problem) {
  launch_values(device, kActivate,
                ActivateArguments{.gate = problem.gate,
                                  .up = problem.up,
                                  .y = problem.y,
                                  .count = problem.count,
                                  .activation = problem.activation});
}

void find_not_finite(Device& device, const float* x, int64_t count, uint32_t* flag) {
  launch_values(device, kFindNotFinite, NotFiniteArguments{.x = x, .count = count, .flag = flag});
}

bool all_finite(Device& device, const float* x, int64_t count, uint32_t* flag) {
  device.fill_zero(flag, sizeof(*flag));
  find_not_finite(device, x, count, flag);
  uint32_t found = 0;
  device.copy_out(&found, flag, sizeof(found));
  return found == 0;
}

void write_bytes(Device& device, std::span<const std::byte> bytes, void* to) {
  auto* target = static_cast<std::byte*>(to);
  while (!bytes.empty()) {
    const size_t count = std::min<size_t>(bytes.size(), kWriteBytes);
    WriteArguments arguments{.to = target, .count = static_cast<int64_t>(count), .words = {}};
    std::memcpy(arguments.words, bytes.data(), count);
    launch(device, kWriteArguments, {}, arguments);
    bytes = bytes.subspan(count);
    target += count;
  }
}

void send_bytes(Device& device, std::span<const std::byte> bytes, void* to) {
  constexpr size_t kMostByLaunches = size_t{2} * kWriteBytes;
  const bool words = reinterpret_cast<uintptr_t>(to) % sizeof(uint32_t) == 0;
  if (words && bytes.size() <= kMostByLaunches) return write_bytes(device, bytes, to);
  device.copy_in(to, bytes.data(), bytes.size());
}

void write_words(Device& device, std::span<const WordWrite> words) {
  while (!words.empty()) {
    const size_t count = std::min<size_t>(words.size(), kMostWords);
    WriteWordsArguments arguments{.count = static_cast<int>(count), .words = {}};
    std::ranges::copy(words.first(count), arguments.words);
    launch(device, kWriteWords, {}, arguments);
    words = words.subspan(count);
  }
}

}  // namespace salient::cuda
