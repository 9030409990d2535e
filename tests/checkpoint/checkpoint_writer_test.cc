#include "checkpoint/checkpoint_writer.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdlib>
#include <cstring>

#include "checkpoint/checkpoint.h"
#include "support/error_matcher.h"
#include "support/safetensors_bytes.h"
#include "support/temporary_directory.h"

namespace salient {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Tensor counting(DType dtype, Shape shape) {
  Tensor tensor = Tensor::empty(dtype, std::move(shape));
  for (size_t i = 0; i < tensor.byte_size(); ++i) tensor.mutable_bytes()[i] = static_cast<std::byte>(i * 7);
  return tensor;
}

class CheckpointWriterTest : public ::testing::Test {
 protected:
  std::string target() const { return (scratch_.path() / "model").string(); }
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(target()))
      names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }
  void expect_nothing_remains() const { EXPECT_TRUE(fs::is_empty(scratch_.path())); }

  TemporaryDirectory scratch_;
};

TEST_F(CheckpointWriterTest, WhatIsWrittenIsReadBack) {
  std::map<std::string, Tensor> tensors;
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16, DType::i64, DType::i32,
                            DType::i16, DType::i8, DType::u8, DType::boolean}) {
    tensors["tensor " + std::string(to_string(dtype))] = counting(dtype, {3, 5});
  }
  tensors["scalar \"é\"\n"] = counting(DType::f32, {});
  tensors["empty"] = counting(DType::f32, {0, 7});
  CheckpointWriter writer({.target = target()});
  for (const auto& [name, tensor] : tensors) writer.add(name, tensor);
  writer.add_file("config.json", "{}");
  EXPECT_EQ(writer.bytes_written(), 15u * 33 + 4);
  EXPECT_FALSE(fs::exists(target()));
  writer.finish();
  EXPECT_THAT(files(), ElementsAre("config.json", "model.safetensors"));
  const Checkpoint checkpoint(target());
  EXPECT_EQ(checkpoint.tensor_names().size(), tensors.size());
  for (const auto& [name, tensor] : tensors) {
    const Tensor read = checkpoint.tensor(name);
    EXPECT_EQ(read.dtype(), tensor.dtype()) << name;
    EXPECT_EQ(read.shape(), tensor.shape()) << name;
    EXPECT_EQ(std::memcmp(read.bytes(), tensor.bytes(), tensor.byte_size()), 0) << name;
  }
  EXPECT_EQ(SafetensorsFile(target() + "/model.safetensors").metadata().at("format"), "pt");
  EXPECT_EQ(SafetensorsFile(target() + "/model.safetensors").entry("empty").begin % 64, 0u);
}

TEST_F(CheckpointWriterTest, ThePythonPackageReadsWhatIsWritten) {
  const char* python = std::getenv("SALIENT_TEST_PYTHON");
  if (python == nullptr) GTEST_SKIP() << "SALIENT_TEST_PYTHON names no Python that has torch and safetensors";
  // Two orders and small shards: 15 single bytes leave what follows at odd addresses.
  CheckpointWriter writer({.target = target(), .shard_size = 300});
  for (const std::string order : {"up ", "down "}) {
    for (int i = 0; i < 10; ++i) {
      const auto dtype = static_cast<DType>(order == "up " ? i : 9 - i);
      Tensor tensor = counting(dtype, {3, 5});
      if (dtype == DType::boolean) {
        for (size_t j = 0; j < tensor.byte_size(); ++j) tensor.mutable_bytes()[j] &= std::byte{1};
      }
      writer.add(order + std::string(to_string(dtype)), tensor);
    }
  }
  writer.finish();
  const std::string command =
      std::string(python) + " " + SALIENT_SOURCE_DIR "/tests/golden/checkpoint/check_written.py " + target();
  EXPECT_EQ(std::system(command.c_str()), 0);
}

TEST_F(CheckpointWriterTest, SplitsIntoShardsOfTheLimit) {
  CheckpointWriter writer({.target = target(), .shard_size = 100, .expected_tensors = 5});
  writer.add("e", counting(DType::u8, {60}));
  writer.add("d", counting(DType::u8, {40}));
  writer.add("c", counting(DType::u8, {1}));
  writer.add("b", counting(DType::u8, {500}));
  writer.add("a", counting(DType::u8, {1}));
  writer.add_file("config.json", "{}");
  writer.finish();
  EXPECT_THAT(files(), ElementsAre("config.json", "model-00001-of-00004.safetensors",
                                   "model-00002-of-00004.safetensors", "model-00003-of-00004.safetensors",
                                   "model-00004-of-00004.safetensors", "model.safetensors.index.json"));
  const Json index = read_json_file(target() + "/model.safetensors.index.json");
  EXPECT_EQ(index.at("metadata").at("total_size"), 602);
  const Json expected{{"a", "model-00004-of-00004.safetensors"},
                      {"b", "model-00003-of-00004.safetensors"},
                      {"c", "model-00002-of-00004.safetensors"},
                      {"d", "model-00001-of-00004.safetensors"},
                      {"e", "model-00001-of-00004.safetensors"}};
  EXPECT_EQ(index.at("weight_map"), expected);
  EXPECT_EQ(Checkpoint(target()).byte_size(), 602u);
}

TEST_F(CheckpointWriterTest, AFullHeaderStartsANewShard) {
  CheckpointWriter writer({.target = target(), .expected_tensors = 1});  // the smallest room: 4 KiB
  for (int i = 0; i < 100; ++i)
    writer.add("tensor." + std::to_string(i) + std::string(60, '.'), counting(DType::u8, {2}));
  writer.add_file("config.json", "{}");
  EXPECT_THAT([&] { writer.add(std::string(5000, 'n'), counting(DType::u8, {2})); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("too long")));
  writer.finish();
  EXPECT_GT(files().size(), 3u);
  EXPECT_EQ(Checkpoint(target()).tensor_names().size(), 100u);
}

TEST_F(CheckpointWriterTest, HeadersTakeLittleRoom) {
  CheckpointWriter writer({.target = target(), .expected_tensors = 150});
  for (int i = 0; i < 150; ++i) {
    writer.add("model.layers." + std::to_string(i) + ".self_attn.q_proj.weight_zero_point",
               counting(DType::f16, {16, 16}));
  }
  writer.finish();
  EXPECT_THAT(files(), ElementsAre("model.safetensors"));
  EXPECT_LT(fs::file_size(target() + "/model.safetensors"), 150 * 512 + 32 * 1024);
}

TEST_F(CheckpointWriterTest, NothingRemainsOfAnUnfinishedModel) {
  {
    CheckpointWriter writer({.target = target()});
    writer.add("w", counting(DType::f32, {10}));
    writer.add_file("config.json", "{}");
  }
  expect_nothing_remains();
}

TEST_F(CheckpointWriterTest, BadNamesAreRefused) {
  CheckpointWriter writer({.target = target()});
  writer.add("w", counting(DType::f32, {10}));
  EXPECT_THAT([&] { writer.add("w", counting(DType::f32, {1})); },
              throws_error(ErrorKind::invalid_argument, HasSubstr(R"("w" is written twice)")));
  EXPECT_THAT([&] { writer.add("__metadata__", counting(DType::f32, {1})); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("__metadata__")));
  EXPECT_THAT([&] { writer.add("\xff", counting(DType::f32, {1})); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("not UTF-8")));
  EXPECT_THAT([&] { writer.add("v", Tensor()); }, throws_error(ErrorKind::internal, HasSubstr("undefined")));
  for (const std::string name : {"../config.json", "/tmp/config.json", "a/b", "..", "."}) {
    EXPECT_THAT([&] { writer.add_file(name, ""); },
                throws_error(ErrorKind::invalid_argument, HasSubstr("not a plain file name")));
  }
}

TEST_F(CheckpointWriterTest, AModelWithoutTensorsIsRefused) {
  {
    CheckpointWriter writer({.target = target()});
    EXPECT_THAT([&] { writer.finish(); }, throws_error(ErrorKind::invalid_argument, HasSubstr("no tensor")));
  }
  expect_nothing_remains();
}

TEST_F(CheckpointWriterTest, AnExistingTargetIsRefusedOrReplaced) {
  fs::create_directory(target());
  write_bytes(fs::path(target()) / "old", "old");
  EXPECT_THAT([&] { CheckpointWriter({.target = target()}); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("exists already")));
  CheckpointWriter writer({.target = target(), .if_exists = OutputDirectory::IfExists::replace});
  writer.add("w", counting(DType::f32, {10}));
  writer.finish();
  EXPECT_THAT(files(), ElementsAre("model.safetensors"));
}

/// Makes writes beyond `bytes` fail like those to a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &old_);
    const rlimit limit{bytes, old_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit old_{};
  void (*handler_)(int);
};

TEST_F(CheckpointWriterTest, AFullDiskIsReportedAndNothingRemains) {
  {
    CheckpointWriter writer({.target = target(), .shard_size = 200'000});
    writer.add("small", counting(DType::u8, {1000}));
    const FileSizeLimit limit(100'000);
    EXPECT_THAT(
        [&] { writer.add("large", counting(DType::u8, {150'000})); },
        throws_error(ErrorKind::io, AllOf(HasSubstr("shard-0"), HasSubstr("cannot write: File too large"))));
    EXPECT_THAT([&] { writer.finish(); }, throws_error(ErrorKind::internal, HasSubstr("had failed")));
  }
  expect_nothing_remains();
}

TEST_F(CheckpointWriterTest, CompanionsTravelAndWeightsDoNot) {
  const auto source = scratch_.path() / "source";
  fs::create_directory(source);
  const std::vector<std::string> companions{"LICENSE",
                                            "NOTICE.txt",
                                            "USE_POLICY.md",
                                            "chat_template.jinja",
                                            "generation_config.json",
                                            "merges.txt",
                                            "special_tokens_map.json",
                                            "tokenizer.json",
                                            "tokenizer.model",
                                            "tokenizer_config.json",
                                            "vocab.json"};
  for (const auto& name : companions) write_bytes(source / name, "of " + name);
  for (const std::string name : {"config.json", "model.safetensors", "model.safetensors.index.json",
                                 "pytorch_model.bin", "tokenizer.bin", "README.md", "training_args.bin"}) {
    write_bytes(source / name, "x");
  }
  fs::create_directory(source / "tokenizer_old");
  fs::create_symlink("tokenizer.json", source / "added_tokens.json");
  CheckpointWriter writer({.target = target()});
  writer.add("w", counting(DType::f32, {10}));
  writer.add_file("generation_config.json", "own");
  writer.copy_companions(source);
  writer.finish();
  std::vector<std::string> expected = companions;
  expected.insert(expected.end(), {"added_tokens.json", "model.safetensors"});
  EXPECT_THAT(files(), ::testing::UnorderedElementsAreArray(expected));
  EXPECT_EQ(read_text_file(target() + "/generation_config.json"), "own");
  EXPECT_EQ(read_text_file(target() + "/added_tokens.json"), "of tokenizer.json");
  EXPECT_FALSE(fs::is_symlink(target() + "/added_tokens.json"));
}

TEST_F(CheckpointWriterTest, MissingCompanionFolderIsNamed) {
  CheckpointWriter writer({.target = target()});
  EXPECT_THAT([&] { writer.copy_companions(scratch_.path() / "none"); },
              throws_error(ErrorKind::not_found, HasSubstr("none")));
}

TEST(ParseByteSize, KnowsDecimalAndBinaryUnits) {
  EXPECT_EQ(parse_byte_size("5GB"), 5'000'000'000u);
  EXPECT_EQ(parse_byte_size("5 gb"), 5'000'000'000u);
  EXPECT_EQ(parse_byte_size("512MiB"), size_t{512} << 20);
  EXPECT_EQ(parse_byte_size("1500000"), 1'500'000u);
  EXPECT_EQ(parse_byte_size("3kib"), 3072u);
  for (const std::string bad :
       {"", "GB", "5XB", "-5GB", "0", "1.5GB", "99999999999TB", "99999999999999999999999"}) {
    EXPECT_THAT([&] { parse_byte_size(bad); }, throws_error(ErrorKind::invalid_argument, HasSubstr(bad)))
        << bad;
  }
}

}  // namespace
}  // namespace salient
