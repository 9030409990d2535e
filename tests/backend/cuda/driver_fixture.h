#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <string_view>
#include <vector>

#include "backend/cuda/driver.h"
#include "backend/cuda/fake_driver/fake_driver.h"
#include "backend/cuda/shared_library.h"

namespace salient::test {

/// to[i] = from[i] + add.
struct ShiftArguments {
  const uint32_t* from;
  uint32_t* to;
  uint32_t add;
  int count;
};

inline constexpr cuda::Kernel kShift{"shift", 64};
inline constexpr cuda::Kernel kShiftMore{"shift_more", 128};

/// The device of the fake driver. Its images have the kernels `shift` and `shift_more`, which do the same.
class DriverTest : public ::testing::Test {
 protected:
  DriverTest() {
    fake =
        reinterpret_cast<FakeDriver* (*)()>(cuda::SharedLibrary(SALIENT_FAKE_DRIVER).get(kFakeDriverState))();
    *fake = {};
    fake->run = [this](const FakeLaunch& launch) { run(launch); };
  }
  ~DriverTest() override {
    EXPECT_TRUE(fake->objects.empty());
    EXPECT_TRUE(fake->memory.empty());
    EXPECT_EQ(fake->retained_contexts, 0);
    EXPECT_EQ(fake->pushed_contexts, 0);
    *fake = {};
  }

  cuda::CudaLibraries libraries() const {
    static const cuda::KernelImage images[] = {{"first", text_bytes("shift 24\nother 8\n")},
                                               {"second", text_bytes("shift_more 24\n")}};
    return {.driver = SALIENT_FAKE_DRIVER, .products = {SALIENT_FAKE_DRIVER}, .kernels = {images, 13000}};
  }
  std::unique_ptr<cuda::Device> open() const { return cuda::open_cuda_device(0, libraries()); }

  cuda::Launch launch(const cuda::Kernel& kernel, const ShiftArguments& arguments) const {
    return {.kernel = kernel, .grid = {2, 3, 4}, .shared_bytes = 0, .arguments = cuda::bytes_of(arguments)};
  }

  FakeDriver* fake;
  std::vector<FakeLaunch> launched;  ///< whose arguments are gone

 private:
  static std::span<const std::byte> text_bytes(std::string_view text) {
    return std::as_bytes(std::span(text));
  }
  void run(const FakeLaunch& launch) {
    ShiftArguments a;
    std::memcpy(&a, launch.arguments, sizeof a);
    for (int i = 0; i < a.count; ++i) a.to[i] = a.from[i] + a.add;
    launched.push_back(launch);
  }
};

}  // namespace salient::test
