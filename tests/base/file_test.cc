#include "base/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <thread>

#include "base/error.h"
#include "support/error_matcher.h"
#include "support/temporary_directory.h"

namespace salient {
namespace {

namespace fs = std::filesystem;

TEST(OutputDirectory, NothingRemainsWithoutCommit) {
  const TemporaryDirectory scratch;
  {
    const OutputDirectory output((scratch.path() / "model").string(), OutputDirectory::IfExists::refuse);
    std::ofstream(output.path() / "weights") << "half";
  }
  EXPECT_TRUE(fs::is_empty(scratch.path()));
}

TEST(OutputDirectory, CommitShowsEverythingAtOnce) {
  const TemporaryDirectory scratch;
  const auto target = scratch.path() / "model";
  OutputDirectory output(target.string() + "/", OutputDirectory::IfExists::refuse);
  std::ofstream(output.path() / "weights") << "whole";
  EXPECT_FALSE(fs::exists(target));
  output.commit();
  EXPECT_EQ(read_text_file((target / "weights").string()), "whole");
}

TEST(OutputDirectory, ClearsWhatAKilledProcessLeft) {
  const TemporaryDirectory scratch;
  const auto target = scratch.path() / "model";
  const auto left = scratch.path() / ".model.partial";
  fs::create_directory(left);
  std::ofstream(left / "weights") << "half";
  std::ofstream(left.string() + ".lock");
  {
    const OutputDirectory output(target.string(), OutputDirectory::IfExists::refuse);
    EXPECT_TRUE(fs::is_empty(output.path()));
  }
  EXPECT_TRUE(fs::is_empty(scratch.path()));
}

TEST(OutputDirectory, OneWriterAtATime) {
  const TemporaryDirectory scratch;
  const auto target = scratch.path() / "model";
  const auto open = [&] { OutputDirectory(target.string(), OutputDirectory::IfExists::replace); };
  {
    OutputDirectory first(target.string(), OutputDirectory::IfExists::refuse);
    std::ofstream(first.path() / "weights") << "first";
    EXPECT_THAT(open, throws_error(ErrorKind::invalid_argument,
                                   ::testing::HasSubstr("model: another process is writing to this output")));
    first.commit();
  }
  EXPECT_EQ(read_text_file((target / "weights").string()), "first");
  EXPECT_EQ(std::distance(fs::directory_iterator(scratch.path()), {}), 1);
  EXPECT_NO_THROW(open());
}

TEST(OutputDirectory, ALinkStandsForWhatItPointsTo) {
  const TemporaryDirectory scratch;
  fs::create_symlink("model", scratch.path() / "link");
  OutputDirectory output((scratch.path() / "link").string(), OutputDirectory::IfExists::refuse);
  std::ofstream(output.path() / "weights") << "whole";
  output.commit();
  EXPECT_TRUE(fs::is_symlink(scratch.path() / "link"));
  EXPECT_FALSE(fs::is_symlink(scratch.path() / "model"));
  EXPECT_EQ(read_text_file((scratch.path() / "link" / "weights").string()), "whole");
}

TEST(CheckCreatable, LooksAtTheNearestFolderAbove) {
  const TemporaryDirectory scratch;
  std::ofstream(scratch.path() / "file") << "no folder";
  EXPECT_NO_THROW(check_creatable(scratch.path() / "model"));
  EXPECT_NO_THROW(check_creatable(scratch.path() / "some" / "more" / "model"));
  EXPECT_THAT([&] { check_creatable(scratch.path() / "file" / "model"); },
              throws_error(ErrorKind::io, ::testing::HasSubstr("is no folder")));
}

TEST(OutputDirectory, RefusesOrReplacesAnExistingTarget) {
  const TemporaryDirectory scratch;
  const auto target = scratch.path() / "model";
  fs::create_directory(target);
  std::ofstream(target / "old") << "old";
  EXPECT_THROW(OutputDirectory(target.string(), OutputDirectory::IfExists::refuse), Error);
  EXPECT_TRUE(fs::exists(target / "old"));
  OutputDirectory output(target.string(), OutputDirectory::IfExists::replace);
  std::ofstream(output.path() / "new") << "new";
  output.commit();
  EXPECT_FALSE(fs::exists(target / "old"));
  EXPECT_TRUE(fs::exists(target / "new"));
  EXPECT_EQ(std::distance(fs::directory_iterator(scratch.path()), {}), 1);
}

TEST(MappedFile, SaysWhatIsWrong) {
  const TemporaryDirectory scratch;
  try {
    MappedFile((scratch.path() / "absent").string());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::not_found);
    EXPECT_NE(std::string(error.what()).find("absent: cannot open: No such file"), std::string::npos);
  }
  EXPECT_THROW(MappedFile(scratch.path().string()), Error);
}

/// How many pages of a mapping are in memory.
size_t resident_pages(const MappedFile& file) {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> pages((file.bytes().size() + page - 1) / page);
  auto* data = const_cast<std::byte*>(file.bytes().data());
  EXPECT_EQ(::mincore(data, file.bytes().size(), pages.data()), 0);
  return static_cast<size_t>(std::ranges::count_if(pages, [](unsigned char p) { return (p & 1) != 0; }));
}

TEST(MappedFile, ReadsAheadWhatWillBeNeeded) {
  const TemporaryDirectory scratch;
  const std::string path = (scratch.path() / "file").string();
  write_file_atomically(path, std::string(size_t{1} << 20, 'x'));
  const int descriptor = ::open(path.c_str(), O_RDONLY);
  ::fsync(descriptor);
  ::posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
  ::close(descriptor);
  const MappedFile file(path);
  file.read_ahead(size_t{1} << 20, 100);  // beyond the end
  if (resident_pages(file) > 0) GTEST_SKIP() << "a file system that keeps its files in memory";
  const size_t half = size_t{1} << 19;
  file.read_ahead(half - 100, half + 100);
  const size_t wanted = half / static_cast<size_t>(::sysconf(_SC_PAGESIZE)) + 1;
  for (int i = 0; i < 1000 && resident_pages(file) < wanted; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_GE(resident_pages(file), wanted);
}

TEST(MappedFile, AnEmptyFileHasNoBytes) {
  const TemporaryDirectory scratch;
  const auto path = (scratch.path() / "empty").string();
  write_file_atomically(path, "");
  EXPECT_TRUE(MappedFile(path).bytes().empty());
}

TEST(Output, AFileThatCannotTakeItsPlaceLeavesNothing) {
  const TemporaryDirectory directory;
  fs::create_directories(directory.path() / "taken" / "inside");
  EXPECT_THROW(write_file_atomically((directory.path() / "taken").string(), "text"), Error);
  EXPECT_EQ(std::distance(fs::directory_iterator(directory.path()), fs::directory_iterator()), 1);
}

}  // namespace
}  // namespace salient
