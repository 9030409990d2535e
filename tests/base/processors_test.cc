#include "base/processors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "support/temporary_directory.h"

namespace salient {
namespace {

using ::testing::ElementsAre;

constexpr size_t kNone = SIZE_MAX;

TEST(Processors, AQuotaOfV2IsRoundedUp) {
  EXPECT_EQ(processors_of_quota("200000 100000\n"), 2u);
  EXPECT_EQ(processors_of_quota("150000 100000"), 2u);
  EXPECT_EQ(processors_of_quota("1000 100000"), 1u);
  EXPECT_EQ(processors_of_quota("max 100000\n"), kNone);
}

TEST(Processors, AQuotaOfV1MayBeNegativeForNone) {
  EXPECT_EQ(processors_of_quota("250000\n", "100000\n"), 3u);
  EXPECT_EQ(processors_of_quota("-1\n", "100000\n"), kNone);
}

TEST(Processors, WhatIsNoQuotaBindsNobody) {
  for (const char* text :
       {"", " ", "max", "100000", "0 100000", "100000 0", "nan 1", "inf 1", "1e300 1e-300"})
    EXPECT_EQ(processors_of_quota(text), kNone) << text;
  EXPECT_EQ(processors_of_quota("", ""), kNone);
}

TEST(Processors, DirectoriesAreThoseOfTheProcessAndAllAbove) {
  const auto directories = cgroup_directories("0::/system.slice/a:b.service/worker\n");
  EXPECT_THAT(directories.unified, ElementsAre("/system.slice/a:b.service/worker",
                                               "/system.slice/a:b.service", "/system.slice", ""));
  EXPECT_THAT(directories.cpu, ElementsAre(""));
}

TEST(Processors, V1NamesItsControllersInAnyOrder) {
  const auto directories =
      cgroup_directories("12:cpuset:/x\n4:cpuacct,cpu:/docker/123\n1:name=systemd:/y\n0::/\n");
  EXPECT_THAT(directories.cpu, ElementsAre("/docker/123", "/docker", ""));
  EXPECT_THAT(directories.unified, ElementsAre(""));
}

TEST(Processors, APathThatLeadsOutOfViewLeavesTheRoot) {
  EXPECT_THAT(cgroup_directories("0::/../sibling\n").unified, ElementsAre(""));
  EXPECT_THAT(cgroup_directories("0::relative\n").unified, ElementsAre(""));
}

TEST(Processors, RandomTextIsSurvived) {
  std::mt19937 generator(1);
  for (int i = 0; i < 2000; ++i) {
    std::string text(generator() % 40, ' ');
    for (char& c : text) c = "0:/,cpu.\n-9 a"[generator() % 13];
    const auto directories = cgroup_directories(text);
    EXPECT_EQ(directories.unified.back(), "") << text;
    EXPECT_EQ(directories.cpu.back(), "") << text;
    EXPECT_GE(processors_of_quota(text), 1u) << text;
  }
}

void write(const std::filesystem::path& path, const char* text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

TEST(Processors, TheTightestQuotaOfTheCgroupsAboveCounts) {
  const TemporaryDirectory mount;
  const std::filesystem::path root(mount.path());
  write(root / "cpu.max", "max 100000");
  write(root / "a/cpu.max", "300000 100000");
  write(root / "a/b/cpu.max", "800000 100000");
  write(root / "other/cpu.max", "100000 100000");
  EXPECT_EQ(processors_by_cgroup(root, "0::/a/b\n"), 3u);
  EXPECT_EQ(processors_by_cgroup(root, "0::/a/b/c\n"), 3u);
  EXPECT_EQ(processors_by_cgroup(root, "0::/\n"), kNone);
  EXPECT_EQ(processors_by_cgroup(root / "nowhere", "0::/a/b\n"), kNone);
}

TEST(Processors, QuotasOfV1AreFoundUnderEitherNameOfTheMount) {
  const TemporaryDirectory mount;
  const std::filesystem::path root(mount.path());
  write(root / "cpu,cpuacct/docker/1/cpu.cfs_quota_us", "400000\n");
  write(root / "cpu,cpuacct/docker/1/cpu.cfs_period_us", "100000\n");
  write(root / "cpu/cpu.cfs_quota_us", "600000\n");
  write(root / "cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(processors_by_cgroup(root, "4:cpu,cpuacct:/docker/1\n"), 4u);
  EXPECT_EQ(processors_by_cgroup(root, "4:cpu,cpuacct:/elsewhere\n"), 6u);
}

}  // namespace
}  // namespace salient
