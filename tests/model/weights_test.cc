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
  EXPECT_EQ(weights.quantization()->groups.front().scheme, (QuantizationScheme{4, false, 32}));
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

/// transformers keeps the experts of a layer in two tensors; its older files have three for each expert.
TEST(ModelWeights, StackedExpertsAreTheSameAsSeparateOnes) {
  const GoldenModel golden("mixtral");
  const Checkpoint original(golden.directory().string());
  const TemporaryDirectory scratch;
  CheckpointWriter writer({.target = (scratch.path() / "model").string()});
  const auto bytes_of = [&](const std::string& name) {
    const Tensor tensor = original.tensor(name);
    return std::span(tensor.bytes(), tensor.byte_size());
  };
  for (const std::string& name : original.tensor_names()) {
    if (name.find(".experts.") == std::string::npos) writer.add(name, original.tensor(name));
  }
  for (const std::string layer : {"0", "1"}) {
    const std::string folder = "model.layers." + layer + ".block_sparse_moe.experts.";
    const DType dtype = original.tensor(folder + "0.w1.weight").dtype();
    Tensor gate_up = Tensor::empty(dtype, {4, 128, 32});
    Tensor down = Tensor::empty(dtype, {4, 32, 64});
    std::byte* to_gate_up = gate_up.mutable_bytes();
    std::byte* to_down = down.mutable_bytes();
    for (const std::string expert : {"0", "1", "2", "3"}) {
      for (const std::string part : {".w1.weight", ".w3.weight"}) {
        to_gate_up = std::ranges::copy(bytes_of(folder + expert + part), to_gate_up).out;
      }
      to_down = std::ranges::copy(bytes_of(folder + expert + ".w2.weight"), to_down).out;
    }
    writer.add(folder + "gate_up_proj", gate_up);
    writer.add(folder + "down_proj", down);
  }
  writer.add_file("config.json", original.config().dump());
  writer.finish();
  const ModelWeights separate(golden.directory().string());
  const ModelWeights stacked((scratch.path() / "model").string());
  for (const LinearSlot& slot : separate.spec().linears(1)) {
    const Tensor a = separate.layer(1)[slot.id].dense.to(DType::f32);
    const Tensor b = stacked.layer(1)[slot.id].dense.to(DType::f32);
    EXPECT_TRUE(std::ranges::equal(a.values<float>(), b.values<float>())) << slot.name;
  }
  EXPECT_EQ(stacked.spec().linear_name(1, {LinearRole::expert_up, 2}),
            "model.layers.1.block_sparse_moe.experts.2.w3");
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
