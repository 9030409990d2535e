#include "backend/cuda/kernel_choice.h"

#include <gtest/gtest.h>

#include <map>

#include "backend/backend.h"
#include "backend/backend_fixture.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/driver.h"
#include "backend/cuda/forwarding_device.h"
#include "backend/cuda/self_check.h"
#include "backend/cuda/simulator.h"

namespace salient::test {
namespace {

using cuda::ProductFamily;

TEST(KernelChoice, NamesOfOtherToolsStandForFamilies) {
  EXPECT_EQ(cuda::kernel_by_name("auto").family, std::nullopt);
  for (const char* name : {"gemm", "GEMM", "marlin", "Marlin"})
    EXPECT_EQ(cuda::kernel_by_name(name).family, ProductFamily::gemm) << name;
  for (const char* name : {"gemv", "GEMV", "gemv_fast", "GEMV_fast"})
    EXPECT_EQ(cuda::kernel_by_name(name).family, ProductFamily::gemv) << name;
  for (const char* name : {"exllama", "exllamav2"})
    EXPECT_EQ(cuda::kernel_by_name(name).family, std::nullopt) << name;
  EXPECT_EQ(cuda::kernel_by_name("GEMV").note,
            "kernel gemv -> gemv: weights streamed once for up to 8 rows; more rows as with auto");
}

TEST(KernelChoice, OthersAreRefusedWithTheNames) {
  const std::string message = error_of([] { cuda::kernel_by_name("triton"); }, ErrorKind::invalid_argument);
  EXPECT_TRUE(message.starts_with("kernel \"triton\" is not known (auto, gemm, marlin,")) << message;
  error_of([] { make_backend({.device = "cpu", .kernel = "triton"}); }, ErrorKind::invalid_argument);
}

TEST(BackendChoice, DevicesThatAreNotKnownAreRefused) {
  for (const char* device : {"tpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", ""}) {
    const std::string message =
        error_of([&] { make_backend({.device = device}); }, ErrorKind::invalid_argument);
    EXPECT_NE(message.find("is not known (auto, cpu, cuda, cuda:N)"), std::string::npos) << message;
  }
}

TEST(BackendChoice, TheCpuTakesNoHalves) {
  const std::string message =
      error_of([] { make_backend({.device = "cpu", .activations = "fp16"}); }, ErrorKind::invalid_argument);
  EXPECT_EQ(message, "activations \"fp16\" are for a GPU; the CPU takes fp32, int16 or int8");
}

TEST(BackendChoice, TheCpuSaysThatKernelsAreAGpus) {
  std::string said;
  make_backend(
      {.device = "cpu", .kernel = "marlin", .on_note = [&](const std::string& text) { said = text; }});
  EXPECT_EQ(said, "kernel marlin: of no effect, the CPU has its own");
}

TEST(BackendChoice, WithoutAGpuAutoIsTheCpuAndCudaSaysWhy) {
  const auto status = cuda::query_cuda();
  if (status.why_not.empty()) GTEST_SKIP() << "there is a GPU";
  EXPECT_TRUE(make_backend({})->description().starts_with("cpu: "));
  const std::string message = error_of([] { make_backend({.device = "cuda"}); }, ErrorKind::unsupported);
  EXPECT_NE(message.find(status.why_not), std::string::npos) << message;
}

/// A device that leaves a kernel out.
class WrongDevice final : public cuda::ForwardingDevice {
 public:
  WrongDevice() : ForwardingDevice(simulated_) {}
  void launch(const cuda::Launch& launch) override {
    if (std::string_view(launch.kernel.name) != skipped) device_.launch(launch);
  }
  bool multiplies() const override { return false; }

  std::string_view skipped;

 private:
  SimulatedDevice simulated_;
};

TEST(SelfCheck, ADeviceThatWorksPasses) {
  const auto backend = cuda::make_cuda_backend(std::make_unique<SimulatedDevice>(), {});
  EXPECT_EQ(cuda::self_check(*backend), "");
}

TEST(SelfCheck, KernelsThatDoNotAreFound) {
  const auto found = [](std::string_view skipped) {
    auto device = std::make_unique<WrongDevice>();
    device->skipped = skipped;
    return cuda::self_check(*cuda::make_cuda_backend(std::move(device), {}));
  };
  for (const auto& [kernel, what] : std::map<std::string_view, std::string>{
           {"w4_gemv_f16", "a product of 1 rows and codes"},
           {"w4_gemm_f16_32", "a product of 20 rows and codes"},
           {"w16_gemv_f16", "a product of 1 rows and halves"},
           {"w16_gemm_f16_32", "a product of 20 rows and halves"},
           {"norm_of_warp", "a norm"},
           {"kv_rows", "a rotation"},
           {"split_attention4_fp16", "attention of 1 queries and 4 heads to 2 cached in fp16"},
           {"split_attention4_int8", "attention of 1 queries and 4 heads to 2 cached in int8"},
           {"split_attention4_bf16", "attention of 1 queries and 4 heads to 2 cached in bf16"},
           {"row_attention_64", "attention of 1 queries and 4 heads to 1 cached in fp16"},
           {"row_attention_64_bf16", "attention of 1 queries and 4 heads to 1 cached in bf16"},
           {"tile_attention_64_bf16", "attention of 20 queries and 4 heads to 2 cached in bf16"}})
    EXPECT_TRUE(found(kernel).starts_with(what + " is off by")) << kernel << ": " << found(kernel);
  EXPECT_EQ(found("largest_of_rows"), "the largest values of rows are others");
  EXPECT_EQ(found("sums_of_rows"), "the largest values of rows are others");
}

}  // namespace
}  // namespace salient::test
