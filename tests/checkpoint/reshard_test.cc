#include "checkpoint/reshard.h"

#include <gtest/gtest.h>

#include "support/compare_checkpoints.h"
#include "support/error_matcher.h"
#include "support/temporary_directory.h"
#include "support/tiny_model.h"

namespace salient {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

class Reshard : public ::testing::Test {
 protected:
  Reshard() {
    TinyModel{}.write(path("source"));
    for (const auto* name : {"recipe.yaml", "generation_config.json", "tokenizer.json",
                             "quantize_config.json", "modeling_tiny.py", "notes.md", "pytorch_model.bin"}) {
      write_file_atomically((fs::path(path("source")) / name).string(), std::string("content of ") + name);
    }
  }
  std::string path(const std::string& name) const { return (scratch_.path() / name).string(); }
  std::vector<std::string> files(const std::string& directory) const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(path(directory)))
      names.push_back(entry.path().filename().string());
    return names;
  }

  TemporaryDirectory scratch_;
};

TEST_F(Reshard, CopiesTheModelIntoOtherShards) {
  reshard_checkpoint(path("source"), {.target = path("many"), .shard_size = 60'000});
  EXPECT_GT(files("many").size(), 9u);
  EXPECT_TRUE(fs::exists(path("many") + "/model.safetensors.index.json"));
  expect_same_checkpoints(path("source"), path("many"));
  reshard_checkpoint(path("many"), {.target = path("one")});
  EXPECT_THAT(files("one"), UnorderedElementsAre("config.json", "model.safetensors", "recipe.yaml",
                                                 "generation_config.json", "tokenizer.json",
                                                 "quantize_config.json", "modeling_tiny.py"));
  expect_same_checkpoints(path("source"), path("one"));
  EXPECT_EQ(read_text_file(path("one") + "/recipe.yaml"), "content of recipe.yaml");
  EXPECT_EQ(read_text_file(path("one") + "/generation_config.json"), "content of generation_config.json");
}

TEST_F(Reshard, KeepsTheOrderOfTheTensors) {
  const std::vector<std::string> order = Checkpoint(path("source")).stored_tensor_names();
  EXPECT_FALSE(std::is_sorted(order.begin(), order.end()));
  reshard_checkpoint(path("source"), {.target = path("many"), .shard_size = 60'000});
  EXPECT_EQ(Checkpoint(path("many")).stored_tensor_names(), order);
  reshard_checkpoint(path("many"), {.target = path("one")});
  EXPECT_EQ(Checkpoint(path("one")).stored_tensor_names(), order);
}

TEST_F(Reshard, ReplacesAModelOnlyWhenTold) {
  using IfExists = OutputDirectory::IfExists;
  TinyModel{.architecture = "Qwen2ForCausalLM"}.write(path("other"));
  EXPECT_THAT([&] { reshard_checkpoint(path("source"), {.target = path("other")}); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("exists already")));
  reshard_checkpoint(path("source"), {.target = path("other"), .if_exists = IfExists::replace});
  expect_same_checkpoints(path("source"), path("other"));
  for (const std::string& target : {path("source"), scratch_.path().string()}) {
    EXPECT_THAT(
        [&] { reshard_checkpoint(path("source"), {.target = target, .if_exists = IfExists::replace}); },
        throws_error(ErrorKind::invalid_argument, HasSubstr("would remove the input")));
  }
  fs::create_directory(path("mine"));
  write_file_atomically(path("mine") + "/letter.txt", "dear");
  EXPECT_THAT(
      [&] { reshard_checkpoint(path("source"), {.target = path("mine"), .if_exists = IfExists::replace}); },
      throws_error(ErrorKind::invalid_argument, HasSubstr("neither empty nor a model directory")));
}

TEST_F(Reshard, RefusesTargetsInsideTheSourceAndEmptyShards) {
  fs::create_directory_symlink(path("source"), path("link"));
  const size_t before = files("source").size();
  for (const char* target : {"source/inner", "source/a/../b/", "link/inner"}) {
    EXPECT_THAT([&] { reshard_checkpoint(path("source"), {.target = path(target)}); },
                throws_error(ErrorKind::invalid_argument, HasSubstr("lies inside the source")));
  }
  EXPECT_THAT([&] { reshard_checkpoint(path("source"), {.target = path("target"), .shard_size = 0}); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("a shard size of 0 bytes")));
  EXPECT_EQ(files("source").size(), before);
  EXPECT_FALSE(fs::exists(path("target")));
}

/// Errors of the file system are Errors, too.
TEST_F(Reshard, ALinkToItselfIsReported) {
  fs::remove(path("source") + "/recipe.yaml");
  fs::create_symlink("recipe.yaml", path("source") + "/recipe.yaml");
  EXPECT_THAT([&] { reshard_checkpoint(path("source"), {.target = path("target")}); },
              throws_error(ErrorKind::io, HasSubstr("recipe.yaml: cannot look")));
  fs::create_symlink("loop", path("loop"));
  EXPECT_THAT([&] { reshard_checkpoint(path("source"), {.target = path("loop") + "/target"}); },
              throws_error(ErrorKind::io, HasSubstr("cannot follow")));
  EXPECT_FALSE(fs::exists(path("target")));
}

TEST_F(Reshard, LeavesNothingWhenStopped) {
  const CancellationFlag stop{true};
  EXPECT_THAT([&] { reshard_checkpoint(path("source"), {.target = path("target")}, &stop); },
              throws_error(ErrorKind::cancelled, HasSubstr("stopped on request")));
  EXPECT_THAT([&] { reshard_checkpoint(path("nowhere"), {.target = path("target")}); },
              throws_error(ErrorKind::not_found, HasSubstr("nowhere")));
  EXPECT_EQ(std::distance(fs::directory_iterator(scratch_.path()), {}), 1);
}

}  // namespace
}  // namespace salient
