#include "checkpoint/checkpoint.h"

#include <gtest/gtest.h>

#include "support/error_matcher.h"
#include "support/safetensors_bytes.h"
#include "support/shared_data.h"
#include "support/temporary_directory.h"

namespace salient {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

/// A scratch model directory that starts with a config.json.
class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointTest() { write("config.json", R"({"model_type": "llama"})"); }

  void write(const std::string& name, std::string_view bytes) { write_bytes(scratch_.path() / name, bytes); }
  void write_tensors(const std::string& file, const std::vector<std::string>& names) {
    std::string header = "{";
    for (size_t i = 0; i < names.size(); ++i) {
      header += (i == 0 ? "\"" : ",\"") + names[i] + R"(":{"dtype":"U8","shape":[2],"data_offsets":[)" +
                std::to_string(2 * i) + "," + std::to_string(2 * i + 2) + "]}";
    }
    write(file, safetensors_bytes(header + "}", 2 * names.size()));
  }
  void write_index(std::string_view weight_map) {
    write("model.safetensors.index.json",
          R"({"metadata": {}, "weight_map": )" + std::string(weight_map) + "}");
  }
  Checkpoint open() const { return Checkpoint(scratch_.path().string()); }
  template <typename Matcher>
  void expect_error(ErrorKind kind, Matcher message) const {
    EXPECT_THAT([&] { open(); }, throws_error(kind, message));
  }

  TemporaryDirectory scratch_;
};

TEST_F(CheckpointTest, ReadsShardsOfThePythonPackage) {
  const Checkpoint checkpoint(SALIENT_SOURCE_DIR "/tests/golden/checkpoint/sharded");
  EXPECT_THAT(checkpoint.tensor_names(), ElementsAre("lm_head.weight", "model.embed_tokens.weight",
                                                     "model.layers.0.mlp.up_proj.weight"));
  EXPECT_EQ(checkpoint.tensor("lm_head.weight").shape(), (Shape{5, 6}));
  EXPECT_EQ(to_float(checkpoint.tensor("model.embed_tokens.weight").values<BFloat16>()[0]), -2.5f);
  EXPECT_EQ(checkpoint.byte_size(), 156u);
  EXPECT_EQ(checkpoint.config_view().at("model_type").as_string(), "llama");
  checkpoint.release("lm_head.weight");
  EXPECT_EQ(checkpoint.entry("lm_head.weight").dtype, "BF16");
}

TEST_F(CheckpointTest, ReadsASingleFile) {
  write_tensors("model.safetensors", {"b", "a"});
  write_tensors("other.safetensors", {"c"});
  EXPECT_THAT(open().tensor_names(), ElementsAre("a", "b"));
}

TEST_F(CheckpointTest, ReadsAnyFilesWhenThereIsNoIndex) {
  write_tensors("one.safetensors", {"b"});
  write_tensors("two.safetensors", {"a"});
  EXPECT_THAT(open().tensor_names(), ElementsAre("a", "b"));
  write_tensors("three.safetensors", {"a"});
  expect_error(ErrorKind::bad_format, HasSubstr(R"(tensor "a" stands in another shard)"));
}

TEST_F(CheckpointTest, AMissingTensorComesWithTheNearestName) {
  write_tensors("model.safetensors",
                {"model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.k_proj.weight"});
  const auto checkpoint = open();
  EXPECT_FALSE(checkpoint.contains("model.layers.0.self_atn.k_proj.weight"));
  EXPECT_THAT([&] { checkpoint.tensor("model.layers.0.self_atn.k_proj.weight"); },
              throws_error(ErrorKind::not_found,
                           HasSubstr(R"(did you mean "model.layers.0.self_attn.k_proj.weight"?)")));
  EXPECT_THAT([&] { checkpoint.tensor("x"); },
              throws_error(ErrorKind::not_found, Not(HasSubstr("did you mean"))));
}

TEST_F(CheckpointTest, MissingPartsOfADirectoryAreNamed) {
  expect_error(ErrorKind::not_found, HasSubstr("no .safetensors file"));
  write("pytorch_model.bin", "PK");
  expect_error(ErrorKind::not_found,
               AllOf(HasSubstr("pytorch_model.bin"), HasSubstr("safe_serialization=True")));
  EXPECT_THAT([&] { Checkpoint((scratch_.path() / "none").string()); },
              throws_error(ErrorKind::not_found, HasSubstr("no such directory")));
  std::filesystem::remove(scratch_.path() / "config.json");
  expect_error(ErrorKind::not_found, HasSubstr("no config.json"));
}

TEST_F(CheckpointTest, ConfigMustBeAnObject) {
  write("config.json", "[]");
  expect_error(ErrorKind::bad_format, HasSubstr("config.json: not a JSON object"));
  write("config.json", "{");
  expect_error(ErrorKind::bad_format, HasSubstr("config.json: not valid JSON"));
}

TEST_F(CheckpointTest, LiesOfAnIndexAreNamed) {
  write_tensors("one.safetensors", {"a", "b"});
  write_tensors("two.safetensors", {"b", "c"});
  write_index(R"({"a": "one.safetensors", "z": "one.safetensors"})");
  expect_error(ErrorKind::bad_format, HasSubstr(R"(tensor "z" is not in its shard one.safetensors)"));
  write_index(R"({"a": "three.safetensors"})");
  expect_error(ErrorKind::bad_format, HasSubstr(R"(the shard "three.safetensors" does not exist)"));
  write_index(R"({"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"})");
  expect_error(ErrorKind::bad_format,
               HasSubstr(R"(tensor "b" belongs into shard one.safetensors but stands in two)"));
  write_index(R"({"a": 1})");
  expect_error(ErrorKind::bad_format, HasSubstr("a: expected a string, got 1"));
  write_index("[]");
  expect_error(ErrorKind::bad_format, HasSubstr("weight_map: expected an object"));
  write("model.safetensors.index.json", "{}");
  expect_error(ErrorKind::bad_format, HasSubstr(R"(the key "weight_map" is missing)"));
}

TEST_F(CheckpointTest, AnIndexMayNotPointElsewhere) {
  for (const std::string shard : {"../x.safetensors", "/etc/passwd", "sub/x.safetensors", "..", ".", ""}) {
    write_index(R"({"a": ")" + shard + R"("})");
    expect_error(ErrorKind::bad_format, HasSubstr("is not a plain file name"));
  }
}

TEST_F(CheckpointTest, ReadsATrainedModel) {
  SALIENT_SHARED_OR_SKIP(path, "models/tinystories-656k");
  const Checkpoint checkpoint(path.string());
  EXPECT_EQ(checkpoint.tensor("lm_head.weight").shape(), (Shape{2048, 128}));
}

}  // namespace
}  // namespace salient
