#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "backend/cuda/device.h"
#include "backend/cuda/driver_api.h"

namespace salient::test {

struct FakeGpu {
  std::string name = "NVIDIA Fake 80GB";
  int major = 9;
  int minor = 0;
  int multiprocessors = 132;
  int shared_bytes = 232448;
  int multiprocessor_shared_bytes = 233472;
  size_t total_bytes = size_t{1} << 30;
};

/// A kernel whose turn has come.
struct FakeLaunch {
  std::string kernel;
  cuda::Grid grid;
  int threads;
  size_t shared_bytes;
  const std::byte* arguments;
};

struct FakeFunction {
  std::string name;
  size_t argument_bytes;
  size_t shared_bytes = size_t{48} << 10;
};

/// What the fake driver library does and did. Memory of its GPUs is the host's. Nothing that is queued
/// happens before somebody waits for it, so that copies from memory that is used again too early carry wrong
/// bytes.
struct FakeDriver {
  // Settings.
  int version = 13000;
  cuda::driver::Result start = cuda::driver::kSuccess;
  std::vector<FakeGpu> gpus{FakeGpu{}};
  /// What the next calls of a function return, once each.
  std::map<std::string, std::deque<cuda::driver::Result>> failures;
  std::function<void(const FakeLaunch&)> run = [](const FakeLaunch&) {};

  // What happened.
  std::map<std::string, int> calls;
  int pushed_contexts = 0;

  // What is there.
  std::map<void*, size_t> memory;
  size_t memory_bytes = 0;
  std::set<void*> objects;  ///< streams, events, modules, graphs, pinned memory
  int retained_contexts = 0;
  std::map<std::string, FakeFunction> functions;
  std::deque<std::function<void()>> queue;
  size_t finished = 0;  ///< entries that have left the queue, each of which took a millisecond

  /// Runs what is queued up to an entry.
  void work_until(size_t entry) {
    while (finished < entry && !queue.empty()) {
      const auto next = std::move(queue.front());
      queue.pop_front();
      ++finished;
      next();
    }
  }
  size_t queued() const { return finished + queue.size(); }
};

/// The exported function that gives a test the state.
inline constexpr const char* kFakeDriverState = "salient_fake_driver";

}  // namespace salient::test
