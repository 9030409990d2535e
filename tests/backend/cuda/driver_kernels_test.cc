#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "backend/cuda/driver_fixture.h"
#include "backend/cuda/halves.h"
#include "backend/cuda/simulator.h"
#include "tensor/dtype.h"

namespace salient::test {
namespace {

/// The fake driver's GPU runs the kernels of the back end, in the simulator.
class DriverKernels : public DriverTest {
 protected:
  DriverKernels() {
    for (const SimulatedKernel& kernel : simulated_kernels())
      image_ += std::string(kernel.name) + " " + std::to_string(kernel.argument_bytes) + "\n";
    image_ += '\0';
    fake->run = [](const FakeLaunch& launch) {
      const auto kernels = simulated_kernels();
      const auto found =
          std::ranges::find_if(kernels, [&](const auto& k) { return k.name == launch.kernel; });
      ASSERT_NE(found, kernels.end());
      EXPECT_EQ(found->threads, launch.threads);
      simulate({launch.grid, launch.threads, launch.shared_bytes}, found->run, launch.arguments);
    };
  }
  std::unique_ptr<cuda::Device> open_with_kernels() {
    images_ = {{"all", std::as_bytes(std::span(image_))}};
    auto with_kernels = libraries();
    with_kernels.kernels.images = images_;
    return cuda::open_cuda_device(0, with_kernels);
  }

 private:
  std::string image_;
  std::vector<cuda::KernelImage> images_;
};

TEST_F(DriverKernels, RunBehindTheirCopies) {
  const auto device = open_with_kernels();
  const std::vector<float> x{1.5f, -2.0f, 1e6f, 0.25f, -1e6f, 3.0f};
  auto* from = static_cast<float*>(device->allocate(x.size() * sizeof(float)));
  auto* to = static_cast<uint32_t*>(device->allocate(4 * 4 * sizeof(uint16_t)));
  device->copy_in(from, x.data(), x.size() * sizeof(float));
  const cuda::HalvesArguments arguments{
      .x = from, .to = to, .rows = 2, .columns = 3, .padded_rows = 4, .padded_columns = 4};
  const cuda::Launch launch{.kernel = cuda::kHalvesF16, .grid = {}, .arguments = cuda::bytes_of(arguments)};
  device->launch(launch);
  std::vector<uint16_t> halves(16);
  device->copy_out(halves.data(), to, 32);
  const std::vector<float> expected{1.5f, -2, 65504, 0, 0.25f, -65504, 3};
  for (size_t i = 0; i < halves.size(); ++i)
    EXPECT_EQ(to_float(Half{halves[i]}), i < expected.size() ? expected[i] : 0.0f) << i;
  const auto graph = device->capture(std::span(&launch, 1));
  device->fill_zero(to, 32);
  device->run(*graph, std::span(&launch, 1));
  std::vector<uint16_t> again(16);
  device->copy_out(again.data(), to, 32);
  EXPECT_EQ(again, halves);
  device->release(from);
  device->release(to);
}

TEST(BuiltKernelImages, AreContainersOfTheDriver) {
  const auto built = cuda::built_kernel_images();
  if (built.images.empty()) GTEST_SKIP() << "this build has no CUDA kernels";
  EXPECT_GE(built.toolkit, 12080);
  std::set<std::string> names;
  for (const auto& image : built.images) {
    ASSERT_GT(image.bytes.size(), 1000u);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(image.bytes.data()) % 64, 0u);
    uint32_t magic = 0;
    std::memcpy(&magic, image.bytes.data(), sizeof magic);
    EXPECT_EQ(magic, 0xba55ed50u) << image.name;
    EXPECT_TRUE(names.insert(image.name).second);
  }
}

}  // namespace
}  // namespace salient::test
