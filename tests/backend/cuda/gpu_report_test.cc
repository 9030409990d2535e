// The program that a GPU is judged by (bench/gpu), on the simulated device: what it says of kernels that are
// right, and whether it finds those that are not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>

#include "backend/cuda/forwarding_device.h"
#include "backend/cuda/simulator.h"
#include "base/error.h"
#include "gpu/sections.h"
#include "gpu/supervisor.h"
#include "gpu/timing.h"
#include "support/temporary_directory.h"

namespace salient::gpu {

void PrintTo(const SectionEntry& section, std::ostream* out) { *out << section.name; }

namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Options tiny_options() {
  return {.size = Size::tiny, .demo = std::string(SALIENT_SOURCE_DIR) + "/examples/demo"};
}

class GpuSection : public testing::TestWithParam<SectionEntry> {};

TEST_P(GpuSection, FindsNothingWrong) {
  const SectionEntry section = GetParam();
  test::SimulatedDevice device;
  Report report;
  const Options options = tiny_options();
  SectionRun run(device, options, report, {.section = section.name, .seconds = 1e6});
  section.run(run);
  EXPECT_EQ(run.json()["failures"], Json::array()) << run.json().dump(1);
  EXPECT_GT(run.json()["cases"], 0);
  EXPECT_FALSE(run.json().contains("left_out"));
  EXPECT_TRUE(device.guards_held());
}

std::vector<SectionEntry> all_sections() { return {sections().begin(), sections().end()}; }

INSTANTIATE_TEST_SUITE_P(All, GpuSection, testing::ValuesIn(all_sections()),
                         [](const auto& section) { return std::string(section.param.name); });

TEST(GpuReport, EveryKernelOfTheBackEndIsRun) {
  test::SimulatedDevice device;
  const Options options = tiny_options();
  for (const SectionEntry& section : sections()) {
    Report report;
    SectionRun run(device, options, report, {.section = section.name, .seconds = 1e6});
    if (std::string_view(section.name).find("speed") == std::string_view::npos) section.run(run);
  }
  std::vector<std::string> idle;
  for (const test::SimulatedKernel& kernel : test::simulated_kernels())
    if (!device.launches().contains(kernel.name)) idle.emplace_back(kernel.name);
  EXPECT_THAT(idle, IsEmpty());
}

/// A device of which a kernel is broken.
class BrokenDevice final : public cuda::ForwardingDevice {
 public:
  enum class Fault { none, wrong, error, lost };
  BrokenDevice(std::string kernel, Fault fault)
      : ForwardingDevice(simulated_), kernel_(std::move(kernel)), fault_(fault) {}

  void copy_out(void* to, const void* from, size_t bytes) override {
    synchronize();
    device_.copy_out(to, from, bytes);
    if (std::exchange(spoil_, false)) static_cast<std::byte*>(to)[bytes - 1] ^= std::byte{0x40};
  }
  void launch(const cuda::Launch& launch) override {
    if (launch.kernel.name == kernel_) {
      if (fault_ == Fault::error) fail(ErrorKind::internal, "kernel {}: too large", kernel_);
      spoil_ = fault_ == Fault::wrong;
      lost_ = fault_ == Fault::lost;
    }
    device_.launch(launch);
  }
  void synchronize() override {
    if (lost_) fail(ErrorKind::internal, "an illegal address");
  }
  bool multiplies() const override { return false; }
  std::unique_ptr<cuda::LaunchGraph> capture(std::span<const cuda::Launch>) override { return nullptr; }

 private:
  test::SimulatedDevice simulated_;
  std::string kernel_;
  Fault fault_;
  bool spoil_ = false;
  bool lost_ = false;
};

Json operations_with(cuda::Device& device) {
  Report report;
  const Options options = tiny_options();
  SectionRun run(device, options, report, {.section = "operations", .seconds = 1e6});
  check_operations(run);
  return run.json();
}

TEST(GpuReport, NamesWhatIsWrong) {
  BrokenDevice device("scatter_rows", BrokenDevice::Fault::wrong);
  const Json section = operations_with(device);
  ASSERT_FALSE(section["failures"].empty());
  for (const Json& failure : section["failures"]) {
    EXPECT_EQ(failure["check"], "scatter_add");
    EXPECT_THAT(failure["case"].get<std::string>(), HasSubstr("scatter 5 x "));
    EXPECT_THAT(failure["kernels"].get<std::vector<std::string>>(), Contains("scatter_rows"));
    EXPECT_EQ(failure["wrong"], 1);
    EXPECT_EQ(failure["first"], failure["last"]);
    EXPECT_EQ(failure["first"]["row"], 1008);
  }
  EXPECT_EQ(section["checks"]["scatter_add"]["failed"], section["checks"]["scatter_add"]["cases"]);
  EXPECT_EQ(section["checks"]["embed"]["failed"], 0);
}

TEST(GpuReport, GoesOnBehindAnError) {
  BrokenDevice device("activate", BrokenDevice::Fault::error);
  const Json section = operations_with(device);
  ASSERT_EQ(section["failures"].size(), 10u);
  EXPECT_EQ(section["failures"][0]["check"], "error");
  EXPECT_EQ(section["failures"][0]["case"], "activation silu");
  EXPECT_THAT(section["failures"][0]["text"].get<std::string>(), HasSubstr("kernel activate: too large"));
  EXPECT_EQ(section["checks"]["largest"]["failed"], 0);
  EXPECT_EQ(section["checks"]["row_sums"]["failed"], 0);
}

TEST(GpuReport, StopsWhereTheDeviceIsLostAndGoesOnBehind) {
  Report report;
  const Options options = tiny_options();
  const auto make = [&](cuda::Device& device) {
    SectionRun run(device, options, report, {.section = "operations", .seconds = 1e6});
    check_operations(run);
  };
  BrokenDevice broken("find_not_finite", BrokenDevice::Fault::lost);
  EXPECT_THROW(make(broken), DeviceLost);
  Json& section = report.section("operations");
  ASSERT_EQ(section["failures"].size(), 1u);
  EXPECT_EQ(section["failures"][0]["case"], "all_finite with 1");
  EXPECT_FALSE(section["checks"].contains("embed"));
  const int64_t norms = section["checks"]["rms_norm"]["cases"];
  test::SimulatedDevice whole;
  make(whole);
  EXPECT_EQ(section["failures"].size(), 1u);
  EXPECT_EQ(section["checks"]["rms_norm"]["cases"], norms) << "run again";
  EXPECT_EQ(section["checks"]["all_finite"]["cases"], 2);
  EXPECT_EQ(section["checks"]["embed"]["failed"], 0);
}

TEST(GpuReport, LeavesOutWhatThereIsNoTimeFor) {
  test::SimulatedDevice device;
  Report report;
  const Options options = tiny_options();
  SectionRun run(device, options, report, {.section = "operations", .seconds = 0});
  check_operations(run);
  EXPECT_GT(run.json()["left_out"].size(), 10u);
  EXPECT_EQ(run.json()["left_out"].size(), run.json()["cases"]);
  EXPECT_FALSE(run.json().contains("checks"));
}

TEST(GpuReport, RatesAreOfTheWorkThatWasDone) {
  test::SimulatedDevice device;
  Report report;
  report.section("device")["copy_bytes_per_second"] = 1e9;
  const Options options = tiny_options();
  SectionRun run(device, options, report, {.section = "product_speed", .seconds = 1e6});
  time_products(run);
  const Json& rows = run.json()["rows"];
  ASSERT_EQ(rows.size(), 4u);
  for (const Json& row : rows) {
    const double seconds = row["us"].get<double>() * 1e-6;
    const double out = row["out"];
    const double in = row["in"];
    const double count = row["rows"];
    const double weight = row["bits"] == 4 ? out * in / 2 + out * (in / 128) * 4 : out * in * 2;
    const double bytes = weight + count * (2 * in + 4 * out);
    EXPECT_NEAR(row["gb_per_s"].get<double>(), bytes / seconds * 1e-9, 1e-6 * bytes / seconds * 1e-9);
    EXPECT_NEAR(row["share_of_copy"].get<double>(), bytes / seconds * 1e-9, 1e-6 * bytes / seconds * 1e-9);
    EXPECT_NEAR(row["tflops"].get<double>(), 2 * out * in * count / seconds * 1e-12,
                1e-6 * 2 * out * in * count / seconds * 1e-12);
    EXPECT_TRUE(row["graph"].get<bool>());
    EXPECT_FALSE(row["dense"]["graph"].get<bool>());
  }
}

TEST(GpuReport, CardsAreKnownByTheirNames) {
  const auto rate = [](const char* name) { return peak_of({.name = name}).bytes_per_second * 1e-9; };
  EXPECT_DOUBLE_EQ(rate("NVIDIA H100 80GB HBM3"), 3350);
  EXPECT_DOUBLE_EQ(rate("NVIDIA H100 PCIe"), 2039);
  EXPECT_DOUBLE_EQ(rate("NVIDIA H200"), 4800);
  EXPECT_DOUBLE_EQ(rate("NVIDIA GH200 480GB"), 4000);
  EXPECT_DOUBLE_EQ(rate("NVIDIA A100-SXM4-80GB"), 2039);
  EXPECT_DOUBLE_EQ(rate("NVIDIA A100-SXM4-40GB"), 1555);
  EXPECT_DOUBLE_EQ(rate("NVIDIA L40S"), 864);
  EXPECT_DOUBLE_EQ(rate("NVIDIA A10"), 600);
  EXPECT_DOUBLE_EQ(rate("NVIDIA GeForce RTX 4090"), 1008);
  EXPECT_DOUBLE_EQ(rate("something else"), 0);
}

TEST(GpuChild, ItsEndIsKnown) {
  EXPECT_EQ(run_in_child([] { return 7; }, 10).number, 7);
  const ChildEnd aborted = run_in_child([]() -> int { ::raise(SIGKILL), ::_exit(0); }, 10);
  EXPECT_EQ(aborted.kind, ChildEnd::Kind::killed);
  EXPECT_EQ(aborted.text(), "killed by signal 9");
  const ChildEnd hanging = run_in_child(
      [] {
        ::pause();
        return 0;
      },
      0.05);
  EXPECT_EQ(hanging.kind, ChildEnd::Kind::out_of_time);
}

class Supervised : public testing::Test {
 protected:
  Json run(void (*body)(SectionRun&)) {
    const std::string path = (folder.path() / "gpu.json").string();
    Report fresh(path);
    fresh.save();
    const SectionEntry section{"some", body, 100, 1};
    const Report report =
        supervise({.path = path,
                   .sections = {&section, 1},
                   .make = [](const SectionEntry& entry, Report& into, double left) {
                     test::SimulatedDevice device;
                     const Options options = tiny_options();
                     SectionRun inner(device, options, into, {entry.name, left, entry.case_seconds});
                     entry.run(inner);
                   }});
    return report.root()["sections"]["some"];
  }
  TemporaryDirectory folder;
};

TEST_F(Supervised, ASectionGoesOnBehindWhatKilledIt) {
  const Json section = run([](SectionRun& run) {
    run.attempt("good", [&] { run.check("sum", 0.5, 1); });
    run.attempt("deadly", [] { ::raise(SIGKILL); });
    run.attempt("lost", [] { throw DeviceLost("gone"); });
    run.attempt("endless", [] { ::pause(); });
    run.attempt("wrong", [&] { run.check("sum", 2, 1); });
  });
  EXPECT_EQ(section["complete"], true);
  EXPECT_EQ(section["cases"], 5);
  EXPECT_EQ(section["processes"], 4);
  EXPECT_EQ(section["checks"]["sum"]["cases"], 2);
  ASSERT_EQ(section["failures"].size(), 4u);
  EXPECT_EQ(section["failures"][0]["case"], "deadly");
  EXPECT_EQ(section["failures"][0]["text"], "killed by signal 9");
  EXPECT_EQ(section["failures"][1]["case"], "lost");
  EXPECT_EQ(section["failures"][2]["case"], "endless");
  EXPECT_EQ(section["failures"][2]["text"], "the case did not end in time");
  EXPECT_EQ(section["failures"][3]["case"], "wrong");
}

TEST_F(Supervised, WhatASectionCannotBeginWithIsSaid) {
  const Json section = run([](SectionRun&) { fail(ErrorKind::unsupported, "there is no such device"); });
  EXPECT_FALSE(section.contains("complete"));
  EXPECT_EQ(section["processes"], 1);
  ASSERT_EQ(section["failures"].size(), 1u);
  EXPECT_THAT(section["failures"][0]["text"].get<std::string>(), HasSubstr("no such device"));
}

TEST_F(Supervised, ASectionThatAlwaysDiesEnds) {
  const Json section = run([](SectionRun&) { ::raise(SIGKILL); });
  EXPECT_GT(section["processes"], 1);
  EXPECT_EQ(section["failures"].size(), section["processes"]);
  EXPECT_EQ(section["failures"][0]["case"], "between cases");
}

}  // namespace
}  // namespace salient::gpu
