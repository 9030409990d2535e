#include "model/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/checkpoint_writer.h"
#include "support/golden_model.h"

namespace salient {
namespace {

using testing::HasSubstr;

/// The directory of a golden model written again with some tensors changed (undefined: left out).
void rewrite(const GoldenModel& golden, const std::map<std::string, Tensor>& changes,
             const std::string& target) {
  const Checkpoint original(golden.directory().string());
  CheckpointWriter writer({.target = target});
  for (const std::string& name : original.tensor_names()) {
    const auto change = changes.find(name);
    const Tensor tensor = change == changes.end() ? original.tensor(name) : change->second;
    if (tensor.defined()) writer.add(name, tensor);
  }
  writer.add_file("config.json", original.config().dump());
  writer.finish();
}

std::string refusal(const std::string& model, const std::map<std::string, Tensor>& changes) {
  const GoldenModel golden(model);
  const TemporaryDirectory scratch;
  const std::string target = (scratch.path() / "model").string();
  rewrite(golden, changes, target);
  try {
    ModelWeights weights(target);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(ModelWeights, AWrongShapeNamesTensorExpectedAndFound) {
  const std::string name = "model.layers.1.self_attn.k_proj.weight";
  EXPECT_THAT(refusal("llama_gqa", {{name, Tensor::zeros(DType::f32, {32, 32})}}),
              HasSubstr("tensor \"" + name + "\": expected the shape [16, 32], found [32, 32]"));
  EXPECT_THAT(refusal("qwen3", {{"model.layers.0.self_attn.q_norm.weight", Tensor::zeros(DType::f32, {8})}}),
              HasSubstr("q_norm.weight\": expected the shape [16], found [8]"));
}

TEST(ModelWeights, AWrongTypeAndAMissingTensorAreNamed) {
  EXPECT_THAT(refusal("llama_gqa", {{"model.norm.weight", Tensor::zeros(DType::i32, {32})}}),
              HasSubstr("tensor \"model.norm.weight\": expected F32, F16 or BF16, found I32"));
  EXPECT_THAT(refusal("llama_gqa", {{"lm_head.weight", Tensor()}}), HasSubstr("lm_head.weight"));
  EXPECT_THAT(refusal("qwen2", {{"model.layers.0.self_attn.v_proj.bias", Tensor()}}),
              HasSubstr("v_proj.bias"));
}

TEST(ModelWeights, PackedTensorsAreCheckedBeforeAnyIsUsed) {
  const std::string name = "model.layers.0.mlp.up_proj";
  EXPECT_THAT(refusal("ct_asym_32", {{name + ".weight_packed", Tensor::zeros(DType::i32, {96, 7})}}),
              HasSubstr("tensor \"" + name + ".weight_packed\": expected I32 [96, 8], found I32 [96, 7]"));
  EXPECT_THAT(refusal("ct_asym_32", {{name + ".weight_scale", Tensor()}}), HasSubstr("up_proj.weight_scale"));
  EXPECT_THAT(refusal("autoawq_32", {{name + ".qzeros", Tensor::zeros(DType::i32, {1, 12})}}),
              HasSubstr("tensor \"" + name + ".qzeros\": expected I32 [2, 12], found I32 [1, 12]"));
}

TEST(ModelWeights, IgnoredLinearsOfAQuantizedModelAreDense) {
  const GoldenModel golden("ct_asym_32");
  const ModelWeights weights(golden.directory().string());
  ASSERT_TRUE(weights.quantization());
  EXPECT_EQ(weights.quantization()->scheme, (QuantizationScheme{4, false, 32}));
  EXPECT_TRUE(weights.layer(0)[LinearRole::down].quantized);
  EXPECT_FALSE(weights.layer(1)[LinearRole::down].quantized);
  EXPECT_TRUE(weights.layer(1)[LinearRole::down].dense.defined());
  EXPECT_FALSE(weights.head().quantized);
}

TEST(ModelWeights, ReadsTheBlockFromTheFileOfOldAutoAwq) {
  const GoldenModel golden("autoawq_whole_row_old_config");
  const ModelWeights weights(golden.directory().string());
  ASSERT_TRUE(weights.quantization());
  EXPECT_EQ(weights.quantization()->format, Format::autoawq_gemm);
  const LayerWeights layer = weights.layer(1);
  EXPECT_EQ(layer[LinearRole::q].quantized->scales.shape(), (Shape{64, 1}));
  EXPECT_TRUE(layer[LinearRole::q].bias.defined());
}

TEST(ModelWeights, TiedModelsNeedOneOfTheTwoTensors) {
  for (const std::string name : {"llama_tied", "llama_tied_by_head"}) {
    const GoldenModel golden(name);
    const ModelWeights weights(golden.directory().string());
    EXPECT_EQ(weights.embedding().bytes(), weights.head().dense.bytes());
    weights.release_layer(0);
    EXPECT_EQ(weights.embedding().shape(), (Shape{96, 32}));
  }
}

}  // namespace
}  // namespace salient
