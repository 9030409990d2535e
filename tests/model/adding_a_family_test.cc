#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "awq/awq.h"
#include "awq/scaled_layer.h"
#include "base/file.h"
#include "support/temporary_directory.h"
#include "support/tiny_model.h"

namespace salient {
namespace {

const TensorNames kOwnNames{.embedding = "decoder.tokens.weight",
                            .final_norm = "decoder.last_norm",
                            .head = "decoder.scores",
                            .linears = linear_names({{LinearRole::q, "decoder.blocks.{}.mix.query"},
                                                     {LinearRole::k, "decoder.blocks.{}.mix.key"},
                                                     {LinearRole::v, "decoder.blocks.{}.mix.value"},
                                                     {LinearRole::o, "decoder.blocks.{}.mix.out"},
                                                     {LinearRole::gate, "decoder.blocks.{}.feed.gate_and_up"},
                                                     {LinearRole::up, "decoder.blocks.{}.feed.gate_and_up"},
                                                     {LinearRole::down, "decoder.blocks.{}.feed.out"}}),
                            .norms = norm_names({{NormRole::attention, "decoder.blocks.{}.first_norm"},
                                                 {NormRole::mlp, "decoder.blocks.{}.second_norm"}})};

const Family kOwnFamily{.architecture = "OwnForCausalLM",
                        .model_type = "own",
                        .names = kOwnNames,
                        .norm = {.kind = NormKind::rms, .offset = 1},
                        .default_epsilon = 1e-5};

TEST(AddingAFamilyPage, ShowsTheLinesOfThisTest) {
  const std::string page = read_text_file(SALIENT_SOURCE_DIR "/docs/adding-a-family.md");
  const std::string own = read_text_file(SALIENT_SOURCE_DIR "/tests/model/adding_a_family_test.cc");
  const size_t begin = page.find("```cpp\n");
  ASSERT_NE(begin, std::string::npos);
  const std::string shown = page.substr(begin + 7, page.find("```", begin + 7) - begin - 7);
  EXPECT_GT(shown.size(), 500u);
  EXPECT_THAT(own, ::testing::HasSubstr(shown));
}

/// The family of the page, and a Llama with the same weights under other names.
class AddingAFamily : public ::testing::Test {
 protected:
  AddingAFamily() {
    TinyModel{.architecture = "OwnForCausalLM", .dtype = DType::f32, .more = {&kOwnFamily, 1}}.write(
        path("own"));
    own_ = std::make_unique<ModelWeights>(path("own"), std::span(&kOwnFamily, 1));
    write_twin();
    twin_ = std::make_unique<ModelWeights>(path("twin"));
  }

  std::string path(const std::string& name) const { return (scratch_.path() / name).string(); }

  void write_twin() const {
    const DecoderSpec& from = own_->spec();
    const Json config = TinyModel{.dtype = DType::f32}.config();
    const DecoderSpec to = make_decoder_spec(JsonView(config, "config.json"));
    CheckpointWriter writer({.target = path("twin")});
    writer.add(to.embedding_name, own_->embedding());
    writer.add(to.final_norm_name + ".weight", gain_of(own_->final_norm()));
    for (int64_t layer = 0; layer < from.layers; ++layer) {
      const LayerWeights weights = own_->layer(layer);
      for (const LinearSlot& slot : to.linears(layer))
        writer.add(slot.name + ".weight", weights[slot.id].dense);
      for (const NormRole role : {NormRole::attention, NormRole::mlp}) {
        writer.add(to.norm_name(layer, role) + ".weight", gain_of(weights[role]));
      }
    }
    writer.add_file("config.json", config.dump());
    writer.finish();
  }

  LayerStream stream(const ModelWeights& weights) const {
    return LayerStream({.backend = *backend_, .weights = weights, .windows = windows_});
  }

  TemporaryDirectory scratch_;
  std::unique_ptr<Backend> backend_ = make_cpu_backend();
  std::unique_ptr<ModelWeights> own_;
  std::unique_ptr<ModelWeights> twin_;
  std::vector<std::vector<int32_t>> windows_ = random_windows(3, 30, 96);
};

TEST_F(AddingAFamily, ItRunsLikeItsTwin) {
  EXPECT_EQ(own_->spec().architecture, "OwnForCausalLM");
  LayerStream own = stream(*own_);
  LayerStream twin = stream(*twin_);
  for (int64_t layer = 0; layer < own_->spec().layers; ++layer) {
    own.advance(layer, prepare_layer(*backend_, own_->layer(layer)));
    twin.advance(layer, prepare_layer(*backend_, twin_->layer(layer)));
  }
  const Tensor found = own.probe_input();
  const Tensor expected = twin.probe_input();
  EXPECT_GT(std::fabs(expected.values<float>()[7]), 0.01f);
  EXPECT_TRUE(std::ranges::equal(found.values<float>(), expected.values<float>()));
}

TEST_F(AddingAFamily, ItsMappingsFollowFromTheRolesAndKeepWhatALayerComputes) {
  const DecoderSpec& spec = own_->spec();
  const auto mappings = default_mappings(spec, 0);
  std::vector<std::string> summaries;
  for (const auto& mapping : mappings) summaries.push_back(mapping.describe(spec));
  EXPECT_THAT(summaries, ::testing::ElementsAre("first_norm -> query, key, value", "value -> out",
                                                "second_norm -> gate_and_up", "gate_and_up -> out"));
  PerLinear<LinearRounding> linears;
  for (const auto& slot : spec.linears(0)) linears[slot.id] = {.scheme = {.group_size = 32}};
  LayerStream data = stream(*own_);
  const QuantizedLayer result = quantize_layer({.backend = *backend_,
                                                .exact = *backend_,
                                                .spec = spec,
                                                .layer = 0,
                                                .linears = linears,
                                                .mappings = mappings},
                                               {}, own_->layer(0), data);
  EXPECT_LT(result.report.equivalence_error, 1e-5);
  EXPECT_EQ(result.report.mappings.size(), 4u);
  EXPECT_TRUE(result.weights[LinearRole::up].quantized.has_value());
}

TEST_F(AddingAFamily, WithoutTheRowItIsUnknown) { EXPECT_THROW(ModelWeights weights(path("own")), Error); }

}  // namespace
}  // namespace salient
