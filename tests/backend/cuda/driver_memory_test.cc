// Memory that the driver and cuBLASLt need for themselves, beside what the pool has taken.
#include <gmock/gmock.h>

#include "backend/cuda/driver_fixture.h"
#include "backend/cuda/half_products.h"
#include "backend/cuda/staging.h"
#include "support/error_matcher.h"

namespace salient::test {
namespace {

using ::testing::HasSubstr;

constexpr int kNoMemory = 2;          // of the driver
constexpr int kAllocationFailed = 3;  // of cuBLASLt
constexpr size_t kMiB = size_t{1} << 20;

class DriverMemory : public DriverTest {
 protected:
  DriverMemory() {
    a = static_cast<uint32_t*>(device->allocate(4 * sizeof(uint32_t)));
    device->fill_zero(a, 16);
  }
  ~DriverMemory() override { device->release(a); }

  /// So that the pool keeps something that it can give back.
  void keep(size_t bytes) const { device->release(device->allocate(bytes)); }
  uint32_t first() const {
    uint32_t value = 0;
    device->copy_out(&value, a, sizeof value);
    return value;
  }

  std::unique_ptr<cuda::Device> device = open();
  uint32_t* a = nullptr;
};

TEST_F(DriverMemory, SomeIsLeftToTheDriver) {
  const size_t total = device->properties().total_bytes;
  void* most = device->allocate(total - 20 * kMiB);
  EXPECT_THAT([&] { device->allocate(5 * kMiB); },
              throws_error(ErrorKind::out_of_memory, HasSubstr("no room for 5.0 MiB: 20.0 of 1024.0 MiB")));
  void* more = device->allocate(2 * kMiB);
  device->release(most);
  device->release(more);
}

/// The host fills the buffers with what is to come while the device is at work on what it has.
TEST_F(DriverMemory, WhatFitsIntoTheBuffersDoesNotWaitForTheDevice) {
  constexpr size_t kBytes = cuda::Staging::kBuffers * cuda::Staging::kBufferBytes;
  const ShiftArguments arguments{a, a, 1, 4};
  const std::vector<std::byte> weights(kBytes, std::byte{7});
  void* memory = device->allocate(kBytes + cuda::Staging::kBufferBytes);
  device->launch(launch(kShift, arguments));
  const size_t finished = fake->finished;
  device->copy_in(memory, weights.data(), kBytes);
  EXPECT_EQ(fake->finished, finished) << "the launch is yet to run";
  EXPECT_TRUE(launched.empty());
  device->copy_in(static_cast<std::byte*>(memory) + kBytes, weights.data(), cuda::Staging::kBufferBytes);
  EXPECT_EQ(launched.size(), 1u);
  EXPECT_GT(fake->queued(), fake->finished) << "only the first buffer had to be free";
  device->release(memory);
}

TEST_F(DriverMemory, GraphsGetWhatThePoolKeeps) {
  const ShiftArguments arguments{a, a, 1, 4};
  const cuda::Launch launches[] = {launch(kShift, arguments), launch(kShift, arguments)};
  keep(8 * kMiB);
  fake->failures["cuGraphInstantiateWithFlags"] = {kNoMemory};
  const auto graph = device->capture(launches);
  EXPECT_EQ(fake->calls["cuMemFree_v2"], 1);
  fake->failures["cuGraphInstantiateWithFlags"] = {kNoMemory};
  EXPECT_THAT([&] { device->capture(launches); },
              throws_error(ErrorKind::out_of_memory, HasSubstr("cuGraphInstantiateWithFlags")))
      << "nothing was kept any more";
  keep(8 * kMiB);
  fake->failures["cuGraphLaunch"] = {kNoMemory};
  device->run(*graph, launches);
  EXPECT_EQ(first(), 2u);
}

TEST_F(DriverMemory, ModulesGetWhatThePoolKeeps) {
  keep(8 * kMiB);
  fake->failures["cuModuleLoadData"] = {kNoMemory};
  const ShiftArguments arguments{a, a, 1, 4};
  device->launch(launch(kShift, arguments));
  keep(8 * kMiB);
  fake->failures["cuLaunchKernel"] = {kNoMemory};
  device->launch(launch(kShift, arguments));
  EXPECT_EQ(first(), 2u);
  fake->failures["cuLaunchKernel"] = {kNoMemory};
  EXPECT_THAT([&] { device->launch(launch(kShift, arguments)); },
              throws_error(ErrorKind::out_of_memory, HasSubstr("kernel shift: cuLaunchKernel")));
  keep(8 * kMiB);
  fake->failures["cuLaunchKernel"] = {719};
  EXPECT_THAT([&] { device->launch(launch(kShift, arguments)); },
              throws_error(ErrorKind::internal, HasSubstr("")))
      << "other failures are none of memory";
  EXPECT_EQ(fake->calls["cuMemFree_v2"], 2);
}

TEST_F(DriverMemory, TheLibraryOfProductsGetsWhatThePoolKeeps) {
  keep(8 * kMiB);
  fake->failures["cublasLtCreate"] = {kAllocationFailed};
  EXPECT_TRUE(device->multiplies());
  auto* halves = static_cast<uint16_t*>(device->allocate(256));
  auto* y = static_cast<float*>(device->allocate(256));
  device->fill_zero(halves, 256);
  const cuda::HalfProduct product{halves, halves, y, 2, 8, 4, cuda::HalfType::f16};
  keep(8 * kMiB);
  fake->failures["cublasLtMatmul"] = {kAllocationFailed};
  device->multiply(product);
  EXPECT_EQ(fake->calls["cublasLtMatmul"], 2);
  fake->failures["cublasLtMatmul"] = {kAllocationFailed};
  EXPECT_THAT([&] { device->multiply(product); },
              throws_error(ErrorKind::out_of_memory, HasSubstr("cublasLtMatmul")));
  device->release(halves);
  device->release(y);
}

TEST_F(DriverMemory, ALibraryThatFoundNoMemoryIsTriedAgain) {
  fake->failures["cublasLtCreate"] = {kAllocationFailed};
  EXPECT_THAT([&] { device->multiplies(); },
              throws_error(ErrorKind::out_of_memory, HasSubstr("cublasLtCreate")));
  EXPECT_TRUE(device->multiplies());
}

TEST_F(DriverMemory, ProductsHaveAWorkspaceOnAFullDevice) {
  const size_t total = device->properties().total_bytes;
  fake->gpus[0].total_bytes += cuda::HalfProducts::kWorkspaceBytes + 18 * kMiB;
  void* most = device->allocate(total - kMiB);
  float* y = static_cast<float*>(device->allocate(256));
  device->fill_zero(y, 256);
  device->multiply({y, y, y + 32, 1, 8, 4, cuda::HalfType::f16});
  device->release(most);
  device->release(y);
}

}  // namespace
}  // namespace salient::test
