#include "backend/cuda/launch_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/cuda/device_buffer.h"
#include "backend/cuda/forwarding_device.h"
#include "backend/cuda/halves.h"
#include "backend/cuda/linear.h"
#include "backend/cuda/simulator.h"
#include "base/error.h"
#include "support/error_matcher.h"

namespace salient::test {
namespace {

using cuda::bytes_of;

/// Without memory for graphs or launches, when asked.
class StarvedDevice final : public cuda::ForwardingDevice {
 public:
  using ForwardingDevice::ForwardingDevice;
  void launch(const cuda::Launch& launch) override {
    if (launches_left-- <= 0) fail(ErrorKind::out_of_memory, "no memory for a launch");
    device_.launch(launch);
  }
  void run(cuda::LaunchGraph& graph, std::span<const cuda::Launch> launches) override {
    if (!graphs) fail(ErrorKind::out_of_memory, "no memory for a graph");
    device_.run(graph, launches);
  }
  bool graphs = true;
  int launches_left = 1 << 20;
};

/// A queue over a simulated device, and a kernel that adds a bias again and again.
class LaunchQueueTest : public testing::Test {
 protected:
  LaunchQueueTest() {
    queue = std::make_unique<cuda::LaunchQueue>(starved);
    y = cuda::DeviceBuffer(*queue, 16);
    const std::vector<float> ones(4, 1.0f);
    bias = cuda::DeviceBuffer::of(*queue, std::span(ones));
    queue->fill_zero(y.address(), 16);
  }

  void add(int count, int out = 4) {
    for (int i = 0; i < count; ++i) {
      const cuda::AddBiasArguments arguments{
          .y = y.as<float>(), .bias = bias.as<float>(), .rows = 1, .out = out};
      queue->launch({.kernel = cuda::kAddBias, .grid = {}, .arguments = bytes_of(arguments)});
    }
  }
  std::vector<float> read() {
    std::vector<float> values(4);
    queue->copy_out(values.data(), y.address(), 16);
    return values;
  }

  SimulatedDevice simulated;
  SimulatedDevice* device = &simulated;
  StarvedDevice starved{simulated};
  std::unique_ptr<cuda::LaunchQueue> queue;
  cuda::DeviceBuffer y;
  cuda::DeviceBuffer bias;
};

TEST_F(LaunchQueueTest, ARunThatComesAgainBecomesAGraph) {
  for (int run = 1; run <= 4; ++run) {
    add(10);
    EXPECT_EQ(read(), std::vector<float>(4, static_cast<float>(10 * run)));
  }
  EXPECT_EQ(device->graph_runs(), 2);  // the first is remembered, the second captured
}

/// The simulated device counts a microsecond, and one for each block.
TEST_F(LaunchQueueTest, WhatIsTimedIsAllOfTheWorkAndNothingElse) {
  for (int run = 0; run < 3; ++run) {
    add(10);
    read();
  }
  add(3);  // held back
  EXPECT_NEAR(queue->seconds_of([&] { add(10); }), 11e-6, 1e-12);
  EXPECT_EQ(read(), std::vector<float>(4, 43.0f));
}

TEST_F(LaunchQueueTest, WhatIsHeldBackRunsWithItsOwnArguments) {
  for (int run = 0; run < 2; ++run) {
    add(10);
    read();
  }
  add(10, 2);
  EXPECT_EQ(read(), (std::vector<float>{30, 30, 20, 20}));
  EXPECT_EQ(device->graph_runs(), 1);
}

TEST_F(LaunchQueueTest, ARunThatGoesAnotherWayIsSentAsItIs) {
  for (int run = 0; run < 2; ++run) {
    add(10);
    read();
  }
  add(7);
  EXPECT_EQ(device->launches().at("product_bias"), 20);  // held
  EXPECT_EQ(read(), std::vector<float>(4, 27.0f));
  add(13);
  EXPECT_EQ(read(), std::vector<float>(4, 40.0f));
  EXPECT_EQ(device->graph_runs(), 0);
}

TEST_F(LaunchQueueTest, ShortRunsAreSentAtOnce) {
  for (int run = 0; run < 4; ++run) {
    add(3);
    EXPECT_EQ(device->launches().at("product_bias"), 3 * (run + 1));
    read();
  }
  EXPECT_EQ(device->graph_runs(), 0);
}

TEST_F(LaunchQueueTest, MemoryStaysUntilWhatUsesItHasRun) {
  for (int run = 0; run < 2; ++run) {
    add(10);
    read();
  }
  const size_t before = device->used_bytes();
  add(9);
  {
    const std::vector<float> twos(4, 2.0f);
    cuda::DeviceBuffer other(*queue, 16);
    const cuda::AddBiasArguments arguments{.y = y.as<float>(), .bias = bias.as<float>(), .rows = 1, .out = 4};
    queue->launch({.kernel = cuda::kAddBias, .grid = {}, .arguments = bytes_of(arguments)});
  }
  EXPECT_EQ(device->used_bytes(), before + 16);
  EXPECT_EQ(read(), std::vector<float>(4, 30.0f));
  EXPECT_EQ(device->used_bytes(), before);
}

TEST_F(LaunchQueueTest, MemoryThatWaitsIsFoundWhereThereIsNoOther) {
  for (int run = 0; run < 2; ++run) {
    add(10);
    read();
  }
  device->set_total_bytes(1 << 20);
  const size_t free = device->properties().total_bytes - device->used_bytes();
  add(5);
  queue->release(queue->allocate(free));  // held: what comes next may use it
  EXPECT_EQ(device->launches().at("product_bias"), 20);
  cuda::DeviceBuffer all(*queue, free);
  EXPECT_EQ(device->launches().at("product_bias"), 25);
  EXPECT_EQ(read(), std::vector<float>(4, 25.0f));
}

TEST_F(LaunchQueueTest, AGraphThatFindsNoMemoryIsSentByLaunches) {
  for (int run = 0; run < 2; ++run) {
    add(10);
    read();
  }
  starved.graphs = false;
  add(10);
  EXPECT_EQ(read(), std::vector<float>(4, 30.0f));
  EXPECT_EQ(device->graph_runs(), 0);
  starved.graphs = true;
  add(10);  // captured again
  add(10);
  read();
  for (int run = 0; run < 2; ++run) {
    add(10);
    read();
  }
  EXPECT_GT(device->graph_runs(), 0);
  EXPECT_EQ(read(), std::vector<float>(4, 70.0f));
}

/// Else whoever allocates would make room and go on without them.
TEST_F(LaunchQueueTest, LaunchesThatAreLostAreNoWantOfMemory) {
  for (int run = 0; run < 2; ++run) {
    add(10);
    read();
  }
  device->set_total_bytes(1 << 20);
  const size_t free = device->properties().total_bytes - device->used_bytes();
  add(5);
  queue->release(queue->allocate(free));  // held
  starved.launches_left = 2;
  EXPECT_THAT([&] { queue->allocate(free); },
              throws_error(ErrorKind::internal,
                           testing::HasSubstr("3 launches that were held back, from product_bias on, are "
                                              "lost: no memory for a launch")));
  starved.launches_left = 1 << 20;
  cuda::DeviceBuffer all(*queue, free);
  EXPECT_EQ(read(), std::vector<float>(4, 22.0f)) << "none is sent twice";
}

TEST_F(LaunchQueueTest, LaunchesThatAreLostAtTheEndOfARunAreNoWantOfMemory) {
  constexpr int kMost = static_cast<int>(cuda::LaunchQueue::kMostLaunches);
  for (int run = 0; run < 2; ++run) {
    add(kMost);
    read();
  }
  add(kMost - 1);
  starved.graphs = false;
  starved.launches_left = 0;
  EXPECT_THAT([&] { add(1); }, throws_error(ErrorKind::internal, testing::HasSubstr("64 launches")));
  starved.launches_left = 1;
  add(1);
  starved.launches_left = 0;
  EXPECT_THAT([&] { add(1); }, throws_error(ErrorKind::out_of_memory, testing::HasSubstr("")))
      << "the one that was asked for, and no other";
}

/// Ten launches of two kernels, in the order of the bits.
void launch_pattern(cuda::Device& queue, unsigned bits, const cuda::AddBiasArguments& add) {
  const cuda::HalvesArguments nothing{};
  for (int i = 0; i < 10; ++i, bits /= 2) {
    if (bits % 2 == 0) {
      queue.launch({.kernel = cuda::kAddBias, .grid = {}, .arguments = bytes_of(add)});
    } else {
      queue.launch({.kernel = cuda::kHalvesF16, .grid = {}, .arguments = bytes_of(nothing)});
    }
  }
  queue.synchronize();
}

TEST_F(LaunchQueueTest, GraphsThatRunStay) {
  const cuda::AddBiasArguments arguments{.y = y.as<float>(), .bias = bias.as<float>(), .rows = 1, .out = 4};
  for (int run = 0; run < 2; ++run) launch_pattern(*queue, 0, arguments);
  constexpr auto kOthers = static_cast<unsigned>(2 * cuda::LaunchQueue::kMostGraphs);
  for (unsigned other = 1; other <= kOthers; ++other) {
    launch_pattern(*queue, other, arguments);
    launch_pattern(*queue, 0, arguments);
  }
  EXPECT_EQ(device->graph_runs(), static_cast<int>(kOthers));
  launch_pattern(*queue, 1, arguments);  // forgotten: it counts as new
  launch_pattern(*queue, 1, arguments);
  EXPECT_EQ(device->graph_runs(), static_cast<int>(kOthers));
}

TEST_F(LaunchQueueTest, LongRunsAreCutSoThatTheDeviceNeedNotWait) {
  constexpr int kMost = static_cast<int>(cuda::LaunchQueue::kMostLaunches);
  const int count = 2 * kMost + 20;
  for (int run = 1; run <= 2; ++run) {
    add(count);
    EXPECT_EQ(read(), std::vector<float>(4, static_cast<float>(run * count)));
  }
  EXPECT_EQ(device->graph_runs(), 0);
  add(kMost - 1);
  EXPECT_EQ(device->graph_runs(), 0);
  add(1);
  EXPECT_EQ(device->graph_runs(), 1);  // before the host waits
  add(count - kMost);
  EXPECT_EQ(read(), std::vector<float>(4, static_cast<float>(3 * count)));
  EXPECT_EQ(device->graph_runs(), 3);
}

TEST_F(LaunchQueueTest, ARunBehindAFailureBeginsAnew) {
  add(10);
  const cuda::Kernel unknown{"no_such_kernel", 256};
  EXPECT_THROW(queue->launch({.kernel = unknown, .grid = {}, .arguments = {}}), Error);
  EXPECT_EQ(read(), std::vector<float>(4, 10.0f));
  for (int run = 0; run < 3; ++run) {
    add(10);
    read();
  }
  EXPECT_EQ(device->graph_runs(), 1);
}

}  // namespace
}  // namespace salient::test
