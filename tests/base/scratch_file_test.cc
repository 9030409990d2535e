#include "base/scratch_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "support/error_matcher.h"
#include "support/temporary_directory.h"

namespace salient {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

TEST(ScratchFile, HoldsWhatWasWrittenAndLeavesNothing) {
  const TemporaryDirectory scratch;
  const std::vector<std::string> directories{"", "/no/such/directory", scratch.path().string()};
  ScratchFile file(directories, 1000);
  EXPECT_TRUE(fs::is_empty(scratch.path()));
  std::vector<std::byte> bytes(300);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i);
  file.write(700, bytes);
  file.write(0, bytes);
  std::vector<std::byte> found(300);
  file.read(700, found);
  EXPECT_EQ(found, bytes);
  file.read(150, found);
  EXPECT_EQ(found[0], bytes[150]);
  EXPECT_EQ(found[299], std::byte{0});
}

TEST(ScratchFile, MemoryIsNoDisk) {
  if (!fs::exists("/dev/shm")) GTEST_SKIP() << "no tmpfs at /dev/shm";
  const std::vector<std::string> directories{"/dev/shm"};
  EXPECT_THAT([&] { ScratchFile(directories, 10); },
              throws_error(ErrorKind::io, HasSubstr("none of these directories lies on a disk")));
}

TEST(ScratchFile, AFullDiskIsAnErrorAtOnce) {
  const TemporaryDirectory scratch;
  const std::vector<std::string> directories{scratch.path().string()};
  EXPECT_THAT([&] { ScratchFile(directories, uint64_t{1} << 62); },
              throws_error(ErrorKind::io, HasSubstr("cannot make room for a work file of")));
  EXPECT_TRUE(fs::is_empty(scratch.path()));
}

TEST(ScratchFile, ReadingPastTheEndIsAnError) {
  const TemporaryDirectory scratch;
  const std::vector<std::string> directories{scratch.path().string()};
  const ScratchFile file(directories, 100);
  std::vector<std::byte> bytes(200);
  EXPECT_THAT([&] { file.read(0, bytes); }, throws_error(ErrorKind::io, HasSubstr("cannot read")));
}

}  // namespace
}  // namespace salient
