#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "backend/cuda/kernel_images.h"
#include "base/json.h"
#include "support/command_line.h"

namespace salient {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

/// The program finds its driver in `folder`.
class Devices : public CommandLine {
 protected:
  static ProgramResult devices_with_libraries_of(const std::filesystem::path& folder,
                                                 std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "devices");
    const char* set = std::getenv("LD_LIBRARY_PATH");
    const std::string before = set != nullptr ? set : "";
    ::setenv("LD_LIBRARY_PATH", (folder.string() + ":" + before).c_str(), 1);
    const auto result = run_salient(arguments);
    ::setenv("LD_LIBRARY_PATH", before.c_str(), 1);
    EXPECT_EQ(result.status, 0) << result.errors;
    EXPECT_EQ(result.errors, "");
    return result;
  }
  static bool has_kernels() { return !cuda::built_kernel_images().images.empty(); }
  const std::filesystem::path driver = std::filesystem::path(SALIENT_FAKE_DRIVER).parent_path();
};

TEST_F(Devices, ListsTheProcessorAndGpus) {
  const auto listed = devices_with_libraries_of(driver, {"--threads", "3"});
  EXPECT_THAT(listed.output, StartsWith("  cpu "));
  EXPECT_THAT(listed.output, HasSubstr("3 threads, "));
  EXPECT_THAT(listed.output, HasSubstr("GiB"));
  if (has_kernels()) {
    EXPECT_THAT(listed.output, HasSubstr("cuda:0  NVIDIA Fake 80GB, compute capability 9.0, 132 "
                                         "multiprocessors, 1.00 GiB\n"));
    EXPECT_THAT(listed.output, Not(HasSubstr("none")));
  } else {
    EXPECT_THAT(listed.output, HasSubstr("cuda  none: this build has no CUDA kernels"));
  }
}

TEST_F(Devices, AsJson) {
  const Json json =
      parse_json(devices_with_libraries_of(driver, {"--json", "--threads", "2"}).output, "devices");
  EXPECT_THAT(json["cpu"]["description"].get<std::string>(), StartsWith("cpu: "));
  EXPECT_EQ(json["cpu"]["threads"], 2);
  EXPECT_GT(json["cpu"]["memory_bytes"].get<double>(), 1e8);
  if (!has_kernels()) {
    EXPECT_THAT(json["cuda"]["why_not"].get<std::string>(), HasSubstr("no CUDA kernels"));
    EXPECT_TRUE(json["cuda"]["devices"].empty());
    return;
  }
  EXPECT_TRUE(json["cuda"]["why_not"].is_null());
  ASSERT_EQ(json["cuda"]["devices"].size(), 1u);
  const Json& device = json["cuda"]["devices"][0];
  EXPECT_EQ(device["name"], "NVIDIA Fake 80GB");
  EXPECT_EQ(device["compute_capability"], "9.0");
  EXPECT_EQ(device["multiprocessors"], 132);
  EXPECT_EQ(device["memory_bytes"], 1 << 30);
}

TEST_F(Devices, SaysWhyThereIsNoGpu) {
  if (!has_kernels()) GTEST_SKIP() << "this build has no CUDA kernels";
  write_file_atomically((scratch_.path() / "libcuda.so.1").string(), "no library");
  const Json json = parse_json(devices_with_libraries_of(scratch_.path(), {"--json"}).output, "devices");
  EXPECT_TRUE(json["cuda"]["devices"].empty());
  EXPECT_THAT(json["cuda"]["why_not"].get<std::string>(), StartsWith("no NVIDIA driver: "));
}

}  // namespace
}  // namespace salient
