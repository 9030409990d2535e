#include "quant/config_block.h"

#include <gtest/gtest.h>

#include "support/error_matcher.h"

namespace salient {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Json golden(const std::string& name) {
  return read_json_file(SALIENT_SOURCE_DIR "/tests/golden/quant/config_" + name + ".json");
}

QuantizationConfig read(const Json& block) {
  return read_config_block(JsonView(block, "config.json: quantization_config"));
}

/// One group for all linears, as both packages name it.
std::vector<SchemeGroup> one_group(const QuantizationScheme& scheme) {
  return {{"group_0", {"Linear"}, scheme}};
}

/// The scheme of a config with one group.
QuantizationScheme scheme_of(const QuantizationConfig& config) {
  EXPECT_EQ(config.groups.size(), 1u);
  return config.groups.front().scheme;
}

struct RealBlock {
  std::string name;
  QuantizationConfig config;
};

class ConfigBlockOfPackage : public ::testing::TestWithParam<RealBlock> {};

TEST_P(ConfigBlockOfPackage, IsRead) {
  const auto config = read(golden(GetParam().name));
  EXPECT_EQ(config.format, GetParam().config.format);
  EXPECT_EQ(config.groups, GetParam().config.groups);
  EXPECT_EQ(config.ignore, GetParam().config.ignore);
}

TEST_P(ConfigBlockOfPackage, IsWrittenAlikeToTheLetter) {
  EXPECT_EQ(write_config_block(GetParam().config).dump(2), golden(GetParam().name).dump(2));
}

const std::vector<std::string> kDense{"model.layers.0.mlp.gate_proj", "lm_head"};
INSTANTIATE_TEST_SUITE_P(
    Real, ConfigBlockOfPackage,
    ::testing::Values(
        RealBlock{"w4a16_asym",
                  {Format::pack_quantized, one_group({.symmetric = false, .group_size = 128}), kDense}},
        RealBlock{"group_64",
                  {Format::pack_quantized, one_group({.symmetric = true, .group_size = 64}), kDense}},
        RealBlock{"channel",
                  {Format::pack_quantized, one_group({.symmetric = true, .group_size = -1}), kDense}},
        RealBlock{"autoawq_gemm",
                  {Format::autoawq_gemm, one_group({.symmetric = false, .group_size = 64}), {"lm_head"}}}),
    [](const auto& block) { return block.param.name; });

TEST(ConfigBlock, AutoAwqListsWhatStaysDense) {
  const QuantizationConfig config{.format = Format::autoawq_gemm,
                                  .groups = one_group({.symmetric = true, .group_size = 128}),
                                  .ignore = {"lm_head", "visual"}};
  const Json block = write_config_block(config);
  EXPECT_EQ(block.at("modules_to_not_convert"), Json::array({"visual"}));
  EXPECT_EQ(block.at("zero_point"), true);
  EXPECT_THAT(read(block).ignore, ElementsAre("visual", "lm_head"));
}

TEST(ConfigBlock, ReadsOldAutoAwqKeys) {
  const auto config =
      read(parse_json(R"({"zero_point": true, "q_group_size": 128, "w_bit": 4, "version": "GEMM"})", "x"));
  EXPECT_EQ(config.format, Format::autoawq_gemm);
  EXPECT_EQ(scheme_of(config), (QuantizationScheme{.num_bits = 4, .symmetric = false, .group_size = 128}));
}

TEST(ConfigBlock, ReadsNewAutoAwqKeys) {
  const auto config = read(parse_json(
      R"({"quant_method": "AWQ", "bits": 4, "group_size": -1, "zero_point": false, "format": "gemm", "lm_head": true})",
      "x"));
  EXPECT_EQ(scheme_of(config), (QuantizationScheme{.num_bits = 4, .symmetric = true, .group_size = -1}));
  EXPECT_TRUE(config.ignore.empty());
}

TEST(ConfigBlock, ReadsOldCompressedTensorsBlocks) {
  const auto config = read(parse_json(R"({"config_groups": {"group_0": {"targets": ["Linear"],
      "weights": {"num_bits": 4, "type": "int", "symmetric": true, "group_size": 128}}},
      "sparsity_config": {"format": "dense"}, "ignore": ["re:.*head"]})",
                                      "x"));
  EXPECT_EQ(scheme_of(config), (QuantizationScheme{.num_bits = 4, .symmetric = true, .group_size = 128}));
  EXPECT_THAT(config.ignore, ElementsAre("re:.*head"));
  const auto channel = read(parse_json(R"({"quant_method": "compressed-tensors", "format": null,
      "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": -1, "actorder": "weight"}}}})",
                                       "x"));
  EXPECT_EQ(scheme_of(channel), (QuantizationScheme{.num_bits = 4, .symmetric = true, .group_size = -1}));
}

TEST(ConfigBlock, SeveralGroupsComeBack) {
  Json block = golden("group_64");
  block["format"] = "mixed-precision";
  block["config_groups"]["group_1"] = block["config_groups"]["group_0"];
  block["config_groups"]["group_1"]["targets"] = {"re:.*down_proj$"};
  block["config_groups"]["group_1"]["weights"]["group_size"] = 32;
  const QuantizationConfig config = read(block);
  ASSERT_EQ(config.groups.size(), 2u);
  EXPECT_EQ(config.groups[1].name, "group_1");
  EXPECT_THAT(config.groups[1].targets, ElementsAre("re:.*down_proj$"));
  EXPECT_EQ(config.groups[1].scheme.group_size, 32);
  EXPECT_EQ(read(write_config_block(config)).groups, config.groups);
}

/// A change to a real block and the answer to it.
struct Refusal {
  std::string block;
  std::string patch;  ///< JSON merge patch, RFC 7396
  ErrorKind kind;
  std::string message;
};

class ConfigBlockRefusal : public ::testing::TestWithParam<Refusal> {};

TEST_P(ConfigBlockRefusal, NamesPathAndValue) {
  Json block = golden(GetParam().block);
  block.merge_patch(Json::parse(GetParam().patch));
  EXPECT_THAT([&] { read(block); },
              throws_error(GetParam().kind, AllOf(HasSubstr("config.json: quantization_config"),
                                                  HasSubstr(GetParam().message))));
}

std::string weights_patch(const std::string& members) {
  return R"({"config_groups": {"group_0": {"weights": {)" + members + "}}}}";
}

// merge_patch removes members that are null, so a patch cannot set a null; absent is read alike.
INSTANTIATE_TEST_SUITE_P(
    CompressedTensors, ConfigBlockRefusal,
    ::testing::Values(
        Refusal{"group_64", R"({"quant_method": "gptq"})", ErrorKind::unsupported,
                R"(quant_method: the method "gptq")"},
        Refusal{"group_64", R"({"quant_method": 3})", ErrorKind::bad_format, "expected a string, got 3"},
        Refusal{"group_64", R"({"format": "float-quantized"})", ErrorKind::unsupported,
                R"(format: the format "float-quantized")"},
        Refusal{"group_64", R"({"config_groups": null})", ErrorKind::bad_format,
                R"("config_groups" is missing)"},
        Refusal{"group_64", R"({"config_groups": {"group_0": null}})", ErrorKind::bad_format,
                "config_groups is empty"},
        Refusal{"group_64", R"({"config_groups": {"group_0": {"weights": null}}})", ErrorKind::unsupported,
                "group_0: a group that"},
        Refusal{"group_64", R"({"config_groups": {"group_0": {"format": "int-quantized"}}})",
                ErrorKind::unsupported, "int-quantized"},
        Refusal{"group_64", R"({"config_groups": {"group_0": {"input_activations": {"num_bits": 8}}}})",
                ErrorKind::unsupported, "input_activations: quantized activations"},
        Refusal{"group_64", R"({"sparsity_config": {"format": "sparse-24-bitmask"}})", ErrorKind::unsupported,
                "sparse-24-bitmask"},
        Refusal{"group_64", R"({"kv_cache_scheme": {"num_bits": 8}})", ErrorKind::unsupported,
                "kv_cache_scheme: is not supported"},
        Refusal{"group_64", R"({"transform_config": {"config_groups": {}}})", ErrorKind::unsupported,
                "transform_config"},
        Refusal{"group_64", R"({"ignore": "lm_head"})", ErrorKind::bad_format, "expected an array"},
        Refusal{"group_64", weights_patch(R"("num_bits": 1)"), ErrorKind::unsupported, "num_bits is 1"},
        Refusal{"group_64", weights_patch(R"("num_bits": null)"), ErrorKind::bad_format,
                R"("num_bits" is missing)"},
        Refusal{"group_64", weights_patch(R"("type": "float")"), ErrorKind::unsupported, R"(type "float")"},
        Refusal{"group_64", weights_patch(R"("strategy": "block")"), ErrorKind::unsupported,
                R"(strategy "block")"},
        Refusal{"group_64", weights_patch(R"("group_size": 48)"), ErrorKind::unsupported, "group_size is 48"},
        Refusal{"group_64", weights_patch(R"("group_size": 0)"), ErrorKind::bad_format, "group_size is 0"},
        Refusal{"group_64", weights_patch(R"("group_size": null)"), ErrorKind::bad_format,
                "there is no group_size"},
        Refusal{"group_64", weights_patch(R"("dynamic": true)"), ErrorKind::unsupported, "dynamic"},
        Refusal{"group_64", weights_patch(R"("actorder": "group")"), ErrorKind::unsupported,
                "actorder: columns in activation order"},
        Refusal{"group_64", weights_patch(R"("symmetric": "yes")"), ErrorKind::bad_format,
                "expected true or false"}));

INSTANTIATE_TEST_SUITE_P(
    AutoAwq, ConfigBlockRefusal,
    ::testing::Values(
        Refusal{"autoawq_gemm", R"({"version": "GEMV"})", ErrorKind::unsupported,
                R"(version: the layout "GEMV")"},
        Refusal{"autoawq_gemm", R"({"version": null, "format": "gemv_fast"})", ErrorKind::unsupported,
                "gemv_fast"},
        Refusal{"autoawq_gemm", R"({"version": "marlin"})", ErrorKind::unsupported, "marlin"},
        Refusal{"autoawq_gemm", R"({"bits": 8})", ErrorKind::unsupported,
                "bits: is 8; the gemm layout holds 4-bit"},
        Refusal{"autoawq_gemm", R"({"bits": null})", ErrorKind::bad_format, R"("bits" is missing)"},
        Refusal{"autoawq_gemm", R"({"group_size": null})", ErrorKind::bad_format,
                R"("group_size" is missing)"},
        Refusal{"autoawq_gemm", R"({"group_size": "128"})", ErrorKind::bad_format, "expected an integer"},
        Refusal{"autoawq_gemm", R"({"zero_point": 1})", ErrorKind::bad_format, "expected true or false"},
        Refusal{"autoawq_gemm", R"({"modules_to_not_convert": [1]})", ErrorKind::bad_format,
                "modules_to_not_convert[0]"},
        Refusal{"autoawq_gemm", R"({"quant_method": null})", ErrorKind::bad_format,
                "names no quant_method"}));

}  // namespace
}  // namespace salient
