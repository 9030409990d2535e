#include "backend/cuda/driver.h"

#include <gmock/gmock.h>

#include <numeric>
#include <thread>

#include "backend/cuda/driver_fixture.h"
#include "backend/cuda/staging.h"
#include "base/error.h"
#include "support/error_matcher.h"
#include "tensor/dtype.h"

namespace salient::test {
namespace {

using cuda::bytes_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using ::testing::StrEq;

class QueryCuda : public DriverTest {};

TEST_F(QueryCuda, ListsDevicesInOrder) {
  fake->gpus.push_back({.name = "NVIDIA Other", .major = 12, .minor = 1, .multiprocessors = 20});
  const auto status = cuda::query_cuda(libraries());
  EXPECT_EQ(status.why_not, "");
  ASSERT_EQ(status.devices.size(), 2u);
  EXPECT_EQ(status.devices[0].name, "NVIDIA Fake 80GB");
  EXPECT_EQ(status.devices[0].compute_capability, 90);
  EXPECT_EQ(status.devices[0].multiprocessors, 132);
  EXPECT_EQ(status.devices[0].shared_bytes, 232448u);
  EXPECT_EQ(status.devices[0].multiprocessor_shared_bytes, 233472u);
  EXPECT_EQ(status.devices[0].total_bytes, size_t{1} << 30);
  EXPECT_EQ(status.devices[1].compute_capability, 121);
}

TEST_F(QueryCuda, SaysWhyThereIsNone) {
  EXPECT_EQ(cuda::query_cuda({.kernels = {}}).why_not,
            "this build has no CUDA kernels: nvcc was not found when it was built (./dev build brings it "
            "where there is "
            "a driver)");
  auto elsewhere = libraries();
  elsewhere.driver = "libnowhere.so.1";
  EXPECT_THAT(cuda::query_cuda(elsewhere).why_not, StartsWith("no NVIDIA driver: libnowhere.so.1: "));
  elsewhere.driver = "libm.so.6";
  EXPECT_THAT(cuda::query_cuda(elsewhere).why_not, HasSubstr("too old"));
  fake->version = 12060;
  EXPECT_EQ(cuda::query_cuda(libraries()).why_not,
            "the driver (CUDA 12.6) is too old: 13.0 or newer is needed");
  fake->version = 13000;
  fake->start = 100;
  EXPECT_EQ(cuda::query_cuda(libraries()).why_not, "the NVIDIA driver sees no device");
  fake->start = 803;
  EXPECT_THAT(cuda::query_cuda(libraries()).why_not,
              HasSubstr("cuInit: CUDA_ERROR_FAKE (as the test asked)"));
  fake->start = 0;
  fake->gpus = {{.name = "NVIDIA Old", .major = 7, .minor = 5}};
  EXPECT_EQ(cuda::query_cuda(libraries()).why_not,
            "NVIDIA Old has compute capability 7.5: 8.0 or newer is needed");
  EXPECT_THAT([&] { open(); }, throws_error(ErrorKind::unsupported, HasSubstr("NVIDIA Old")));
  fake->gpus.clear();
  EXPECT_EQ(cuda::query_cuda(libraries()).why_not, "the NVIDIA driver sees no device");
  EXPECT_THAT([&] { open(); }, throws_error(ErrorKind::unsupported, HasSubstr("sees no device")));
}

TEST_F(QueryCuda, DriversAreAskedForTheReleaseThatMadeTheKernels) {
  auto older = libraries();
  older.kernels.toolkit = 12090;
  fake->version = 12080;
  EXPECT_EQ(cuda::query_cuda(older).why_not, "");
  fake->version = 12070;
  EXPECT_THAT(cuda::query_cuda(older).why_not, HasSubstr("12.8 or newer"));
}

TEST_F(QueryCuda, OrdinalsThatNoDeviceHasAreRefused) {
  for (const int ordinal : {-1, 1})
    EXPECT_THAT(
        [&] { cuda::open_cuda_device(ordinal, libraries()); },
        throws_error(ErrorKind::invalid_argument, HasSubstr("no CUDA device " + std::to_string(ordinal))));
}

class DriverDevice : public DriverTest {
 protected:
  ~DriverDevice() override { device.reset(); }
  std::unique_ptr<cuda::Device> device = open();

  uint32_t* words(size_t count) { return static_cast<uint32_t*>(device->allocate(count * sizeof(uint32_t))); }
  std::vector<uint32_t> read(const uint32_t* from, size_t count) {
    std::vector<uint32_t> result(count);
    device->copy_out(result.data(), from, count * sizeof(uint32_t));
    return result;
  }
  static std::vector<uint32_t> counted(size_t count, uint32_t first) {
    std::vector<uint32_t> result(count);
    std::iota(result.begin(), result.end(), first);
    return result;
  }
};

TEST_F(DriverDevice, WhatWasCopiedInMayChangeAtOnce) {
  constexpr size_t kCount = 1000;
  uint32_t* to = words(kCount * 50);
  for (uint32_t i = 0; i < 50; ++i) {
    auto source = counted(kCount, i * kCount);
    device->copy_in(to + i * kCount, source.data(), kCount * sizeof(uint32_t));
    std::ranges::fill(source, 0u);
  }
  EXPECT_EQ(read(to, kCount * 50), counted(kCount * 50, 0));
  device->release(to);
}

TEST_F(DriverDevice, LargeCopiesGoThroughAllBuffersAndBack) {
  constexpr size_t kCount = cuda::Staging::kBufferBytes * (cuda::Staging::kBuffers + 2) / 4 + 123;
  uint32_t* to = words(kCount);
  for (const uint32_t first : {5u, 7u}) {
    auto source = counted(kCount, first);
    device->copy_in(to, source.data(), kCount * 4);
    std::ranges::fill(source, 0u);
    EXPECT_EQ(fake->calls["cuStreamSynchronize"], first == 5 ? 0 : 1) << "it is queued";
    EXPECT_TRUE(read(to, kCount) == counted(kCount, first));
  }
  device->release(to);
}

TEST_F(DriverDevice, SmallCopiesShareABuffer) {
  uint32_t* to = words(1000);
  const auto source = counted(1000, 1);
  for (size_t i = 0; i < 1000; ++i) device->copy_in(to + i, &source[i], sizeof(uint32_t));
  EXPECT_EQ(fake->calls["cuEventRecord"], 0);
  EXPECT_EQ(read(to, 1000), source);
  device->copy_in(to, source.data(), 0);
  device->copy(to, to, 0);
  device->fill_zero(to, 0);
  device->release(to);
}

TEST_F(DriverDevice, CopiesAndZerosStandInLine) {
  uint32_t* a = words(100);
  uint32_t* b = words(100);
  const auto source = counted(100, 1);
  device->copy_in(a, source.data(), 400);
  device->copy(b, a, 400);
  device->fill_zero(a, 200);
  EXPECT_EQ(read(b, 100), source);
  auto expected = source;
  std::fill(expected.begin(), expected.begin() + 50, 0u);
  EXPECT_EQ(read(a, 100), expected);
  device->release(a);
  device->release(b);
}

TEST_F(DriverDevice, LaunchesKernelsWithTheirArguments) {
  uint32_t* a = words(10);
  device->fill_zero(a, 40);
  ShiftArguments arguments{a, a, 5, 10};
  device->launch(launch(kShift, arguments));
  arguments = {a + 5, a + 5, 7, 5};
  device->launch(launch(kShiftMore, arguments));
  arguments = {};
  EXPECT_THAT(read(a, 10), ElementsAre(5, 5, 5, 5, 5, 12, 12, 12, 12, 12));
  ASSERT_EQ(launched.size(), 2u);
  EXPECT_EQ(launched[0].kernel, "shift");
  EXPECT_EQ(launched[0].threads, 64);
  EXPECT_EQ(launched[1].kernel, "shift_more");
  EXPECT_EQ(launched[1].threads, 128);
  EXPECT_EQ(launched[1].grid.x, 2);
  EXPECT_EQ(launched[1].grid.y, 3);
  EXPECT_EQ(launched[1].grid.z, 4);
  EXPECT_EQ(fake->calls["cuModuleLoadData"], 2);
  EXPECT_EQ(fake->calls["cuModuleGetFunction"], 3) << "the second is in the second image";
  device->launch(launch(kShift, ShiftArguments{a, a, 5, 10}));
  EXPECT_EQ(fake->calls["cuModuleGetFunction"], 3);
  device->release(a);
}

TEST_F(DriverDevice, SharedMemoryBeyond48KiBIsAskedForOnce) {
  uint32_t* a = words(4);
  const ShiftArguments arguments{a, a, 0, 4};
  auto shift = launch(kShift, arguments);
  for (const size_t bytes : {size_t{48} << 10, size_t{99} << 10, size_t{64} << 10, size_t{99} << 10}) {
    shift.shared_bytes = bytes;
    device->launch(shift);
  }
  device->synchronize();
  EXPECT_EQ(fake->calls["cuFuncSetAttribute"], 1);
  EXPECT_EQ(launched.back().shared_bytes, size_t{99} << 10);
  shift.shared_bytes = size_t{1} << 20;
  EXPECT_THAT(
      [&] { device->launch(shift); },
      throws_error(ErrorKind::internal, HasSubstr("kernel shift: cuFuncSetAttribute: CUDA_ERROR_FAKE")));
  device->release(a);
}

TEST_F(DriverDevice, KernelsThatAreNotThereOrTakeOtherArgumentsAreErrors) {
  const cuda::Kernel nothing{"nothing", 32};
  EXPECT_THAT([&] { device->launch(launch(nothing, {})); },
              throws_error(ErrorKind::internal, StrEq("kernel nothing: no image of this build has it")));
  const cuda::Kernel other{"other", 32};
  EXPECT_THAT(
      [&] { device->launch(launch(other, {})); },
      throws_error(ErrorKind::internal, StrEq("kernel other: 24 bytes of arguments, but it takes 8")));
}

TEST_F(DriverDevice, FailuresNameTheCall) {
  uint32_t* a = words(4);
  const ShiftArguments arguments{a, a, 0, 4};
  fake->failures["cuLaunchKernel"] = {719};
  EXPECT_THAT([&] { device->launch(launch(kShift, arguments)); },
              throws_error(ErrorKind::internal,
                           StrEq("kernel shift: cuLaunchKernel: CUDA_ERROR_FAKE (as the test asked)")));
  fake->failures["cuStreamSynchronize"] = {700};
  EXPECT_THAT(
      [&] { device->synchronize(); },
      throws_error(ErrorKind::internal, StrEq("cuStreamSynchronize: CUDA_ERROR_FAKE (as the test asked)")));
  fake->failures["cuMemHostAlloc"] = {2};
  EXPECT_THAT([&] { read(a, 4); }, throws_error(ErrorKind::out_of_memory, HasSubstr("cuMemHostAlloc")));
  EXPECT_EQ(read(a, 4).size(), 4u);
  fake->failures["cuModuleLoadData"] = {209};
  auto again = open();
  EXPECT_THAT(
      [&] { again->launch(launch(kShift, arguments)); },
      throws_error(ErrorKind::internal, HasSubstr("kernel shift: kernels of first: cuModuleLoadData")));
  device->release(a);
}

TEST_F(DriverDevice, OpeningThatFailsLeavesNothing) {
  fake->failures["cuStreamCreate"] = {1};
  EXPECT_THAT([&] { open(); }, throws_error(ErrorKind::internal, HasSubstr("cuStreamCreate")));
  EXPECT_EQ(fake->retained_contexts, 1) << "of the other device";
}

TEST_F(DriverDevice, MemoryIsKeptAndGivenBackWhenItRunsOut) {
  const size_t total = device->properties().total_bytes;
  const size_t reserved = total / 64;
  EXPECT_EQ(device->free_bytes(), total - reserved) << "some is the driver's";
  void* most = device->allocate(total / 4 * 3);
  EXPECT_THAT([&] { device->allocate(total / 2); },
              throws_error(ErrorKind::out_of_memory,
                           StrEq("NVIDIA Fake 80GB: no room for 512.0 MiB: 256.0 of 1024.0 MiB are free")));
  device->release(most);
  EXPECT_EQ(device->free_bytes(), total - reserved);
  EXPECT_EQ(device->allocate(total / 4 * 3), most) << "without asking the driver";
  EXPECT_EQ(fake->calls["cuMemFree_v2"], 0);
  device->release(most);
  void* half = device->allocate(total / 2);
  EXPECT_EQ(fake->calls["cuMemFree_v2"], 1);
  device->release(half);
  device->release(nullptr);
}

TEST_F(DriverDevice, ThreadsMayFollowEachOther) {
  uint32_t* a = words(4);
  std::thread([&] {
    const auto source = counted(4, 9);
    device->copy_in(a, source.data(), 16);
  }).join();
  EXPECT_THAT(read(a, 4), ElementsAre(9, 10, 11, 12));
  device->release(a);
}

/// What the fake driver has queued takes a millisecond each.
TEST_F(DriverDevice, WorkIsTimedByTheDevicesClock) {
  uint32_t* a = words(4);
  const ShiftArguments arguments{a, a, 1, 4};
  device->fill_zero(a, 16);
  const double seconds = device->seconds_of([&] {
    for (int i = 0; i < 3; ++i) device->launch(launch(kShift, arguments));
  });
  EXPECT_NEAR(seconds, 3e-3, 1e-9);
  EXPECT_EQ(launched.size(), 3u) << "it has waited";
  EXPECT_THAT([&] { device->seconds_of([] { fail(ErrorKind::unsupported, "no work"); }); },
              throws_error(ErrorKind::unsupported, StrEq("no work")));
  fake->failures["cuEventElapsedTime_v2"] = {1};
  EXPECT_THAT([&] { device->seconds_of([] {}); },
              throws_error(ErrorKind::internal, HasSubstr("cuEventElapsedTime_v2")));
  device->release(a);
}

TEST_F(DriverDevice, GraphsRunLaunchesInOrder) {
  uint32_t* a = words(4);
  device->fill_zero(a, 16);
  const ShiftArguments first{a, a + 1, 1, 1};
  const ShiftArguments second{a + 1, a + 2, 10, 1};
  ShiftArguments third{a + 2, a + 3, 100, 1};
  const std::vector<cuda::Launch> launches{launch(kShift, first), launch(kShiftMore, second),
                                           launch(kShift, third)};
  const auto graph = device->capture(launches);
  EXPECT_TRUE(launched.empty());
  device->run(*graph, launches);
  EXPECT_THAT(read(a, 4), ElementsAre(0, 1, 11, 111));
  EXPECT_EQ(fake->calls["cuGraphExecKernelNodeSetParams_v2"], 0);

  third.add = 200;
  const cuda::Launch larger{
      .kernel = kShiftMore, .grid = {7, 1, 1}, .shared_bytes = 60000, .arguments = bytes_of(second)};
  const std::vector<cuda::Launch> others{launches[0], larger, launches[2]};
  launched.clear();
  device->run(*graph, others);
  EXPECT_THAT(read(a, 4), ElementsAre(0, 1, 11, 211));
  EXPECT_EQ(fake->calls["cuGraphExecKernelNodeSetParams_v2"], 2);
  EXPECT_EQ(launched[1].grid.x, 7);
  EXPECT_EQ(launched[1].shared_bytes, 60000u);
  device->run(*graph, others);
  device->synchronize();
  EXPECT_EQ(fake->calls["cuGraphExecKernelNodeSetParams_v2"], 2);
  EXPECT_EQ(fake->calls["cuGraphLaunch"], 3);
  EXPECT_EQ(fake->calls["cuLaunchKernel"], 0);
  device->release(a);
}

TEST_F(DriverDevice, GraphsAreRunWithTheirKernelsOnly) {
  uint32_t* a = words(4);
  const ShiftArguments arguments{a, a, 1, 4};
  const cuda::Launch one[] = {launch(kShift, arguments)};
  const cuda::Launch other[] = {launch(kShiftMore, arguments)};
  const cuda::Launch two[] = {launch(kShift, arguments), launch(kShift, arguments)};
  const auto graph = device->capture(one);
  EXPECT_THAT([&] { device->run(*graph, other); },
              throws_error(ErrorKind::internal, StrEq("a graph with shift is run with shift_more")));
  EXPECT_THAT([&] { device->run(*graph, two); },
              throws_error(ErrorKind::internal, StrEq("a graph of 1 kernels is run with 2")));
  fake->failures["cuGraphInstantiateWithFlags"] = {1};
  EXPECT_THAT([&] { device->capture(two); },
              throws_error(ErrorKind::internal, HasSubstr("cuGraphInstantiateWithFlags: CUDA_ERROR_FAKE")));
  device->release(a);
}

TEST_F(DriverDevice, MultipliesHalvesByRows) {
  constexpr int64_t kRows = 3, kIn = 8, kOut = 5;
  ASSERT_TRUE(device->multiplies());
  for (const auto type : {cuda::HalfType::f16, cuda::HalfType::bf16}) {
    const auto half = [&](float value) {
      return type == cuda::HalfType::f16 ? to_half(value).bits : to_bfloat16(value).bits;
    };
    std::vector<uint16_t> x(kRows * kIn + 1), w(kOut * kIn);
    for (size_t i = 0; i < x.size(); ++i) x[i] = half(static_cast<float>(i % 7) - 3);
    for (size_t i = 0; i < w.size(); ++i) w[i] = half(static_cast<float>(i % 5) - 1);
    auto* device_x = static_cast<uint16_t*>(device->allocate(x.size() * 2));
    auto* device_w = static_cast<uint16_t*>(device->allocate(w.size() * 2));
    auto* y = static_cast<float*>(device->allocate(kRows * kOut * sizeof(float)));
    device->copy_in(device_x, x.data(), x.size() * 2);
    device->copy_in(device_w, w.data(), w.size() * 2);
    for (const int64_t shift : {0, 1, 0}) {  // the second time x begins at an odd address
      device->multiply({device_x + shift, device_w, y, kRows, kIn, kOut, type});
      std::vector<float> result(kRows * kOut);
      device->copy_out(result.data(), y, result.size() * sizeof(float));
      for (int64_t row = 0; row < kRows; ++row) {
        for (int64_t column = 0; column < kOut; ++column) {
          float sum = 0;
          for (int64_t k = 0; k < kIn; ++k)
            sum += static_cast<float>(((row * kIn + k + shift) % 7 - 3) * ((column * kIn + k) % 5 - 1));
          EXPECT_EQ(result[row * kOut + column], sum) << row << ", " << column;
        }
      }
    }
    device->multiply({device_x, device_w, y, 0, kIn, kOut, type});
    for (void* memory : {static_cast<void*>(device_x), static_cast<void*>(device_w), static_cast<void*>(y)})
      device->release(memory);
  }
  EXPECT_EQ(fake->calls["cublasLtMatmulAlgoGetHeuristic"], 4) << "once a shape, a type and an alignment";
  EXPECT_EQ(fake->calls["cublasLtMatmul"], 6);
}

TEST_F(DriverDevice, ProductsNeedALibraryThatStarts) {
  auto elsewhere = libraries();
  elsewhere.products = {"libnowhere.so.13"};
  EXPECT_FALSE(cuda::open_cuda_device(0, elsewhere)->multiplies());
  elsewhere.products = {"libnowhere.so.13", "libm.so.6", SALIENT_FAKE_DRIVER, SALIENT_FAKE_DRIVER};
  fake->failures["cublasLtCreate"] = {1};
  EXPECT_TRUE(cuda::open_cuda_device(0, elsewhere)->multiplies());
  EXPECT_EQ(fake->calls["cublasLtCreate"], 2);
  fake->failures["cublasLtMatmul"] = {13};
  float* y = static_cast<float*>(device->allocate(256));
  EXPECT_THAT(
      [&] {
        device->multiply({y, y, y, 2, 8, 4, cuda::HalfType::f16});
      },
      throws_error(ErrorKind::internal,
                   StrEq("product [2, 8] by [4, 8]: cublasLtMatmul: CUBLAS_STATUS_FAKE")));
  device->release(y);
}

}  // namespace
}  // namespace salient::test
