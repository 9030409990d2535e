#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "salient/oneshot.h"
#include "support/compare_checkpoints.h"
#include "support/temporary_directory.h"
#include "support/tiny_model.h"
#include "text/dataset.h"

namespace salient {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

const std::string kDemo = SALIENT_SOURCE_DIR "/examples/demo";

class CalibrationSequences : public ::testing::Test {
 protected:
  void write_model(const TinyModel& model) {
    model.write(path("dense"));
    options_.model = path("dense");
    options_.output = path("out");
    options_.recipe.awq.emplace().n_grid = 6;
    options_.recipe.quantization.group_size = 32;
    options_.calibration.max_seq_length = 40;
  }
  std::string path(const std::string& name) const { return (scratch_.path() / name).string(); }

  std::string error() const {
    try {
      oneshot(options_);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::invalid_argument);
      EXPECT_FALSE(fs::exists(path("out")));
      return error.what();
    }
    return "nothing was thrown";
  }

  TemporaryDirectory scratch_;
  OneshotOptions options_;
};

/// The file's windows and the same ids as sequences are one run.
TEST_F(CalibrationSequences, GiveTheBytesOfTheSameWindowsFromAFile) {
  write_model({.extra = {{"vocab_size", 3072}}});
  fs::copy_file(kDemo + "/model/tokenizer.json", path("dense") + "/tokenizer.json");
  options_.calibration.num_samples = 5;
  options_.calibration.datasets = {{.data = kDemo + "/calibration.txt"}};
  const OneshotReport from_file = oneshot(options_);
  options_.calibration.datasets.clear();
  options_.calibration.sequences =
      read_token_windows(Tokenizer::from_directory(path("dense")), {.path = kDemo + "/calibration.txt"},
                         {.window = 40, .maximum = 9});
  options_.output = path("again");
  const OneshotPlan plan = plan_oneshot(options_);
  const OneshotReport from_sequences = oneshot(options_);
  expect_same_checkpoints(path("out"), path("again"));
  EXPECT_EQ(from_file.calibration_tokens, 200);
  EXPECT_EQ(from_sequences.calibration_tokens, 200);
  EXPECT_EQ(plan.calibration_tokens, 200);
}

TEST_F(CalibrationSequences, MayBeOfAnyLengths) {
  for (const char* architecture : {"LlamaForCausalLM", "Qwen2MoeForCausalLM", "Qwen3NextForCausalLM"}) {
    options_.overwrite = true;
    options_.calibration.experts = ExpertCalibration::routed;
    options_.calibration.sequences = {{3}, {}, {95}, {}};
    options_.calibration.sequences[1] = random_windows(1, 40, 96).front();
    options_.calibration.sequences[3] = random_windows(1, 7, 96).front();
    fs::remove_all(path("dense"));
    write_model({.architecture = architecture, .extra = expert_keys()});
    const OneshotReport report = oneshot(options_);
    EXPECT_EQ(report.calibration_tokens, 49);
    for (const LayerReport& layer : report.layers) EXPECT_LT(layer.equivalence_error, 1e-3) << architecture;
    EXPECT_THAT(read_text_file(path("out") + "/recipe.yaml"), HasSubstr("# Calibrated on 49 tokens"));
  }
}

/// Attention of one token is no average: q and k see the same whatever their scales.
TEST_F(CalibrationSequences, MayHaveOneTokenEach) {
  write_model({});
  options_.calibration.sequences = {{1}, {2}, {3}};
  EXPECT_EQ(oneshot(options_).calibration_tokens, 3);
}

TEST_F(CalibrationSequences, AreRefusedWithWhatIsWrong) {
  write_model({});
  options_.calibration.sequences = {{1, 2}, {}};
  EXPECT_THAT(error(), HasSubstr("calibration sequence 1: there are no tokens in it"));
  options_.calibration.sequences = {{1, 2}, {4, 96}};
  EXPECT_THAT(error(), HasSubstr("calibration sequence 1: token 1 is 96, but the vocabulary has 96 entries"));
  options_.calibration.sequences = {{-1}};
  EXPECT_THAT(error(), HasSubstr("calibration sequence 0: token 0 is -1"));
  options_.calibration.sequences = {std::vector<int32_t>(41, 1)};
  EXPECT_THAT(error(), HasSubstr("41 tokens are more than max_seq_length allows, 40"));
  options_.calibration.max_seq_length = 500;
  options_.calibration.sequences = {std::vector<int32_t>(129, 1)};
  EXPECT_THAT(error(), HasSubstr("a sequence of 129 tokens is longer than the model's 128 positions"));
  options_.calibration.sequences = {{1, 2}};
  options_.calibration.num_samples = 0;
  EXPECT_THAT(error(), HasSubstr("num_samples is 0, but must be at least 1"));
  options_.calibration.num_samples = 1;
  options_.calibration.max_seq_length = 0;
  EXPECT_THAT(error(), HasSubstr("max_seq_length is 0, but must be at least 1"));
  options_.calibration.max_seq_length = 2;
  options_.calibration.min_tokens_per_expert = -1;
  EXPECT_THAT(error(), HasSubstr("min_tokens_per_expert is -1, but must be at least 0"));
  options_.calibration.min_tokens_per_expert = 0;
  options_.calibration.datasets = {{.data = "text.txt"}};
  EXPECT_THAT(error(), HasSubstr("text.txt: a dataset stands beside 1 calibration sequences"));
}

TEST_F(CalibrationSequences, HaveMasksThatFitThem) {
  write_model({});
  options_.calibration.sequences = {{1, 2, 3}, {4, 5}};
  options_.calibration.masks = {{1, 0, 1}};
  EXPECT_THAT(error(), HasSubstr("1 masks for 2 calibration sequences; give one for each, or none"));
  options_.calibration.masks = {{1, 0, 1}, {1}};
  EXPECT_THAT(error(), HasSubstr("calibration sequence 1: its mask has 1 values for 2 tokens"));
  options_.calibration.masks = {{0, 0, 0}, {0, 0}};
  EXPECT_THAT(error(), HasSubstr("the masks of all 2 calibration sequences leave every token out"));
  options_.calibration.sequences.clear();
  EXPECT_THAT(error(), HasSubstr("2 masks without calibration sequences"));
}

/// A mask of ones is no mask, one with zeros changes what is found.
TEST_F(CalibrationSequences, AreCalibratedOnWhereTheirMasksSaySo) {
  write_model({.architecture = "Qwen2MoeForCausalLM", .extra = expert_keys()});
  options_.calibration.sequences = random_windows(4, 40, 96);
  oneshot(options_);
  const std::string recipe = read_text_file(path("out") + "/recipe.yaml");
  options_.calibration.masks.assign(4, std::vector<uint8_t>(40, 1));
  options_.output = path("ones");
  EXPECT_EQ(oneshot(options_).masked_tokens, 0);
  expect_same_checkpoints(path("out"), path("ones"));
  EXPECT_EQ(recipe, read_text_file(path("ones") + "/recipe.yaml"));
  for (auto& mask : options_.calibration.masks) std::fill_n(mask.begin(), 30, uint8_t{0});
  options_.output = path("answers");
  const OneshotReport report = oneshot(options_);
  EXPECT_EQ(report.calibration_tokens, 160);
  EXPECT_EQ(report.masked_tokens, 120);
  EXPECT_THAT(report.warnings, ::testing::Contains(HasSubstr("calibrated on 40 tokens")));
  const Checkpoint all(path("out"));
  const Checkpoint answers(path("answers"));
  const auto name = "model.layers.0.self_attn.q_proj.weight_scale";
  EXPECT_FALSE(same_bytes(all.tensor(name), answers.tensor(name)));
}

/// What is not used is not looked at.
TEST_F(CalibrationSequences, BehindTheNumberAskedForDoNotCount) {
  write_model({});
  options_.calibration.num_samples = 2;
  options_.calibration.sequences = {{1, 2, 3}, {4}, {}, {1000}};
  EXPECT_EQ(oneshot(options_).calibration_tokens, 4);
}

}  // namespace
}  // namespace salient
