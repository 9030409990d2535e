// The device of simulator.h: memory of the host between guards, launches that the simulator runs.
#include <algorithm>
#include <cstring>
#include <new>

#include "backend/cuda/simulator.h"
#include "base/error.h"
#include "tensor/dtype.h"

namespace salient::test {
namespace {

constexpr size_t kGuardBytes = 256;
constexpr std::byte kGuard{0xa5};

std::byte* guarded(std::byte* memory) { return memory + kGuardBytes; }

/// The names of the kernels that were captured.
struct SimulatedGraph final : cuda::LaunchGraph {
  std::vector<std::string> kernels;
};

}  // namespace

SimulatedDevice::SimulatedDevice()
    : properties_{.name = "simulated",
                  .compute_capability = 80,
                  .multiprocessors = 4,
                  .shared_bytes = size_t{99} << 10,
                  .multiprocessor_shared_bytes = size_t{164} << 10,
                  .total_bytes = size_t{4} << 30} {}

SimulatedDevice::~SimulatedDevice() {
  while (!sizes_.empty()) release(sizes_.begin()->first);
}

void* SimulatedDevice::allocate(size_t bytes) {
  if (used_bytes_ + bytes > properties_.total_bytes)
    fail(ErrorKind::out_of_memory, "the simulated device has no {} bytes left", bytes);
  auto* memory = new (std::align_val_t{256}) std::byte[bytes + 2 * kGuardBytes];
  std::fill_n(memory, kGuardBytes, kGuard);
  std::fill_n(guarded(memory), bytes, std::byte{0xff});
  std::fill_n(guarded(memory) + bytes, kGuardBytes, kGuard);
  sizes_[guarded(memory)] = bytes;
  used_bytes_ += bytes;
  most_used_bytes_ = std::max(most_used_bytes_, used_bytes_);
  return guarded(memory);
}

void SimulatedDevice::release(void* memory) noexcept {
  if (memory == nullptr) return;
  const auto found = sizes_.find(memory);
  if (found == sizes_.end()) {
    guards_held_ = false;
    return;
  }
  const size_t bytes = found->second;
  auto* begin = static_cast<std::byte*>(memory) - kGuardBytes;
  const auto whole = [](std::byte b) { return b == kGuard; };
  guards_held_ = guards_held_ && std::all_of(begin, begin + kGuardBytes, whole) &&
                 std::all_of(guarded(begin) + bytes, guarded(begin) + bytes + kGuardBytes, whole);
  used_bytes_ -= bytes;
  sizes_.erase(found);
  ::operator delete[](begin, std::align_val_t{256});
}

void SimulatedDevice::copy_in(void* to, const void* from, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}
void SimulatedDevice::copy_out(void* to, const void* from, size_t bytes) {
  ++waits_;
  if (bytes > 0) std::memcpy(to, from, bytes);
}
void SimulatedDevice::copy(void* to, const void* from, size_t bytes) {
  if (bytes > 0) std::memmove(to, from, bytes);
}
void SimulatedDevice::fill_zero(void* to, size_t bytes) { std::memset(to, 0, bytes); }

void SimulatedDevice::launch(const cuda::Launch& launch) {
  const auto kernels = simulated_kernels();
  const auto found = std::ranges::find_if(
      kernels, [&](const auto& k) { return std::strcmp(k.name, launch.kernel.name) == 0; });
  if (found == kernels.end()) fail(ErrorKind::internal, "there is no kernel {}", launch.kernel.name);
  if (found->threads != launch.kernel.threads || found->argument_bytes != launch.arguments.size() ||
      found->blocks < launch.kernel.blocks)
    fail(ErrorKind::internal, "kernel {} has other threads, blocks or arguments", launch.kernel.name);
  if (launch.shared_bytes > properties_.shared_bytes || launch.grid.x < 1 || launch.grid.y < 1 ||
      launch.grid.z < 1)
    fail(ErrorKind::internal, "kernel {}: the device cannot launch that", launch.kernel.name);
  ++launches_[launch.kernel.name];
  blocks_ += int64_t{launch.grid.x} * launch.grid.y * launch.grid.z;
  const std::vector<std::byte> arguments(launch.arguments.begin(), launch.arguments.end());
  counts_ +=
      simulate({launch.grid, found->threads, launch.shared_bytes}, found->run, arguments.data(), seed_);
}

double SimulatedDevice::seconds_of(const std::function<void()>& work) {
  const int64_t before = blocks_;
  work();
  return static_cast<double>(1 + blocks_ - before) * 1e-6;
}

void SimulatedDevice::multiply(const cuda::HalfProduct& product) {
  const auto value = [&](const void* from, int64_t index) {
    const uint16_t bits = static_cast<const uint16_t*>(from)[index];
    return product.type == cuda::HalfType::f16 ? to_float(Half{bits}) : to_float(BFloat16{bits});
  };
  for (int64_t row = 0; row < product.rows; ++row) {
    for (int64_t out = 0; out < product.out; ++out) {
      double sum = 0;
      for (int64_t k = 0; k < product.in; ++k)
        sum +=
            double{value(product.x, row * product.in + k)} * double{value(product.w, out * product.in + k)};
      product.y[row * product.out + out] = static_cast<float>(sum);
    }
  }
}

std::unique_ptr<cuda::LaunchGraph> SimulatedDevice::capture(std::span<const cuda::Launch> launches) {
  auto graph = std::make_unique<SimulatedGraph>();
  for (const cuda::Launch& launch : launches) graph->kernels.emplace_back(launch.kernel.name);
  return graph;
}

void SimulatedDevice::run(cuda::LaunchGraph& graph, std::span<const cuda::Launch> launches) {
  const auto& kernels = dynamic_cast<SimulatedGraph&>(graph).kernels;
  if (kernels.size() != launches.size()) fail(ErrorKind::internal, "a graph of other launches");
  ++graph_runs_;
  for (size_t i = 0; i < launches.size(); ++i) {
    if (kernels[i] != launches[i].kernel.name) fail(ErrorKind::internal, "a graph of other kernels");
    launch(launches[i]);
  }
}

}  // namespace salient::test
