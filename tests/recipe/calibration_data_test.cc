#include "recipe/calibration_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/parallel.h"
#include "base/yaml.h"
#include "recipe/resolve.h"
#include "support/compare_checkpoints.h"
#include "support/error_matcher.h"
#include "support/temporary_directory.h"
#include "support/tiny_model.h"

namespace salient {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::string kDemo = SALIENT_SOURCE_DIR "/examples/demo";

class CalibrationDataTest : public ::testing::Test {
 protected:
  CalibrationDataTest() {
    TinyModel{.extra = {{"vocab_size", 3072}}}.write(path("dense"));
    fs::copy_file(kDemo + "/model/tokenizer.json", path("dense") + "/tokenizer.json");
    options_.model = path("dense");
    options_.output = path("out");
    options_.recipe.awq.emplace().n_grid = 3;
    options_.recipe.quantization.group_size = 32;
    options_.calibration.num_samples = 10;
    options_.calibration.max_seq_length = 4;
  }
  std::string path(const std::string& name) const { return (scratch_.path() / name).string(); }

  /// `count` lists of four times the same id, as a .jsonl file.
  std::string ids(const std::string& name, int id, int count) const {
    std::ofstream file(path(name));
    for (int i = 0; i < count; ++i) file << fmt::format("[{0},{0},{0},{0}]\n", id);
    return path(name);
  }

  CalibrationData data(SelfData self = SelfData::draw) const {
    const ModelWeights weights(options_.model);
    return calibration_data(options_, weights.spec(), self);
  }
  /// The first id of each sequence.
  std::vector<int32_t> first_ids() const {
    std::vector<int32_t> result;
    for (const auto& sequence : data().sequences) result.push_back(sequence.front());
    return result;
  }
  auto refuses(const std::string& message) const {
    return throws_error(ErrorKind::invalid_argument, HasSubstr(message));
  }

  TemporaryDirectory scratch_;
  OneshotOptions options_;
};

TEST(SharesOf, AreInProportionAndAddUp) {
  EXPECT_THAT(shares_of(10, {0.7, 0.3}), ElementsAre(7, 3));
  EXPECT_THAT(shares_of(10, {1, 1, 1}), ElementsAre(4, 3, 3));
  EXPECT_THAT(shares_of(7, {1, 2, 4}), ElementsAre(1, 2, 4));
  EXPECT_THAT(shares_of(3, {0.1, 1, 1}), ElementsAre(0, 2, 1));
  EXPECT_THAT(shares_of(5, {1e308, 1e308}), ElementsAre(3, 2));
  EXPECT_THAT(shares_of(9, {5e-324}), ElementsAre(9));
  for (const double weight : {0.0, -1.0, std::nan(""), HUGE_VAL}) {
    EXPECT_THAT(
        [&] {
          shares_of(4, {1, weight});
        },
        throws_error(ErrorKind::invalid_argument, HasSubstr("is no number above 0")));
  }
}

TEST(ParseDataset, TakesANumberBehindTheLastColonForAWeight) {
  EXPECT_EQ(parse_dataset("a.txt"), (CalibrationDataset{.data = "a.txt"}));
  EXPECT_EQ(parse_dataset("a.txt:0.7"), (CalibrationDataset{.data = "a.txt", .weight = 0.7}));
  EXPECT_EQ(parse_dataset("self:3"), (CalibrationDataset{.data = "self", .weight = 3}));
  EXPECT_EQ(parse_dataset("C:x.txt"), (CalibrationDataset{.data = "C:x.txt"}));
  EXPECT_EQ(parse_dataset("a:1b"), (CalibrationDataset{.data = "a:1b"}));
  EXPECT_EQ(parse_dataset("a:"), (CalibrationDataset{.data = "a:"}));
}

TEST(ReadDatasets, AreNamesOrObjects) {
  const auto read = [](const std::string& yaml) {
    const Json json = parse_yaml(yaml, "r.yaml");
    return read_datasets(JsonView(json, "r.yaml"));
  };
  EXPECT_THAT(read("self"), ElementsAre(CalibrationDataset{.data = "self"}));
  EXPECT_THAT(read("[a.txt, {data: b.jsonl, weight: 0.5, text_column: q}]"),
              ElementsAre(CalibrationDataset{.data = "a.txt"},
                          CalibrationDataset{.data = "b.jsonl", .weight = 0.5, .text_column = "q"}));
  EXPECT_THAT([&] { read("[{data: a, weight: 0}]"); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("weight: 0 is no number above 0")));
  EXPECT_THAT([&] { read("[{data: a, wait: 1}]"); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("[0]: wait: unknown key")));
  EXPECT_THAT([&] { read("['']"); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("names a data set \"\"")));
  EXPECT_THAT([&] { read("[5]"); },
              throws_error(ErrorKind::bad_format, HasSubstr("expected a string, got 5")));
}

TEST_F(CalibrationDataTest, IsMixedByWeightAndEvenly) {
  options_.calibration.datasets = {{.data = ids("a.jsonl", 1, 20), .weight = 0.7},
                                   {.data = ids("b.jsonl", 2, 20), .weight = 0.3}};
  EXPECT_THAT(first_ids(), ElementsAre(1, 2, 1, 1, 1, 2, 1, 1, 2, 1));
  EXPECT_TRUE(data().warnings.empty());
}

TEST_F(CalibrationDataTest, TellsWhatAMixtureLacks) {
  options_.calibration.datasets = {{.data = ids("a.jsonl", 1, 2)}, {.data = ids("b.jsonl", 2, 20)}};
  EXPECT_THAT(first_ids(), ElementsAre(2, 1, 2, 2, 2, 1, 2));
  EXPECT_THAT(data().warnings,
              ElementsAre(HasSubstr("a.jsonl: 2 sequences, where its weight asks for 5: it has no more")));
  options_.calibration.datasets[0].weight = 1e-3;
  EXPECT_THAT([&] { data(); }, refuses("a.jsonl: its weight 0.001 is no whole one of 10 sequences"));
  options_.calibration.datasets[0].weight = -1;
  EXPECT_THAT([&] { data(); }, refuses("a.jsonl: its weight -1 is no number above 0"));
}

TEST_F(CalibrationDataTest, CutsTextsAsAsked) {
  std::ofstream(path("t.jsonl"))
      << "{\"text\": \"One day in spring a fox came.\"}\n{\"q\": \"x\", \"text\": \"Yes\"}\n"
         "{\"text\": \"\"}\n";
  options_.calibration.datasets = {{.data = path("t.jsonl")}};
  for (const auto& sequence : data().sequences) EXPECT_EQ(sequence.size(), 4u);
  options_.calibration.documents = DocumentPolicy::truncate;
  options_.calibration.max_seq_length = 1;
  ASSERT_FALSE(data().sequences.empty());
  for (const auto& sequence : data().sequences) EXPECT_EQ(sequence.size(), 1u);
  EXPECT_THAT(data().warnings, ElementsAre(HasSubstr("documents of fewer than 2 tokens are left out")));
  options_.calibration.datasets[0].text_column = "q";
  EXPECT_THAT([&] { data(); },
              throws_error(ErrorKind::bad_format, HasSubstr("line 1: the key \"q\" is missing")));
  options_.calibration.documents = DocumentPolicy::automatic;
  EXPECT_THAT([&] { data(); }, refuses("t.jsonl: max_seq_length is 1, but must be at least 2"));
}

TEST_F(CalibrationDataTest, IsShuffledBySeed) {
  std::ofstream file(path("n.jsonl"));
  for (int i = 0; i < 100; ++i) file << fmt::format("[{0},{0}]\n", i);
  file.close();
  options_.calibration.datasets = {{.data = path("n.jsonl")}};
  EXPECT_THAT(first_ids(), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
  options_.calibration.shuffle = true;
  const auto drawn = first_ids();
  EXPECT_EQ(drawn, first_ids());
  options_.calibration.seed = 43;
  EXPECT_NE(drawn, first_ids());
}

/// Token ids need no tokenizer.
TEST_F(CalibrationDataTest, OfIdsIsReadWithoutATokenizer) {
  fs::remove(path("dense") + "/tokenizer.json");
  options_.calibration.datasets = {{.data = ids("a.jsonl", 1, 20)}};
  EXPECT_EQ(first_ids().size(), 10u);
  options_.calibration.datasets = {{.data = kDemo + "/calibration.txt"}};
  EXPECT_THAT([&] { data(); }, throws_error(ErrorKind::not_found, HasSubstr("tokenizer.json")));
}

TEST_F(CalibrationDataTest, OfTheModelItselfIsOnlyPlannedInAPlan) {
  options_.calibration.datasets = {{.data = "self"}};
  options_.calibration.max_seq_length = 12;
  std::vector<SamplingProgress> told;
  options_.on_sampling = [&](const SamplingProgress& progress) { told.push_back(progress); };
  const OneshotPlan plan = plan_oneshot(options_);
  EXPECT_EQ(plan.calibration_tokens, 120);
  EXPECT_GT(plan.memory.sampling, Checkpoint(path("dense")).byte_size());
  EXPECT_GE(plan.memory.peak, plan.memory.sampling);
  EXPECT_TRUE(told.empty());
  EXPECT_EQ(oneshot(options_).calibration_tokens, 120);
  ASSERT_FALSE(told.empty());
  EXPECT_EQ(told.back().tokens_done, 120);
  EXPECT_EQ(told.back().tokens, 120);
}

/// The record says all that is needed for the same bytes again.
TEST_F(CalibrationDataTest, OfTheModelItselfIsRepeatedFromTheRecord) {
  options_.calibration.datasets = {{.data = "self", .weight = 2}};
  options_.calibration.max_seq_length = 12;
  options_.calibration.seed = INT64_MAX;
  options_.calibration.shuffle = true;
  oneshot(options_);
  OneshotOptions again;
  again.model = options_.model;
  again.output = path("again");
  read_recipe_file(path("out") + "/recipe.yaml", again);
  EXPECT_EQ(again.calibration.datasets, options_.calibration.datasets);
  const size_t threads = thread_count();
  set_thread_count(5);
  oneshot(again);
  set_thread_count(threads);
  expect_same_checkpoints(path("out"), path("again"));
  EXPECT_EQ(read_text_file(path("out") + "/recipe.yaml"), read_text_file(path("again") + "/recipe.yaml"));
}

TEST_F(CalibrationDataTest, TheRecordTellsNoPaths) {
  options_.calibration.datasets = {{.data = kDemo + "/calibration.txt"}, {.data = "self"}};
  options_.calibration.max_seq_length = 12;
  oneshot(options_);
  EXPECT_THAT(read_text_file(path("out") + "/recipe.yaml"), ::testing::Not(::testing::HasSubstr("dataset")));
}

TEST_F(CalibrationDataTest, RecipesSayItInTheNamesOfBothIncumbents) {
  parse_recipe(
      "AWQModifier: {}\nQuantizationModifier: {scheme: W4A16}\nsalient: {max_calib_samples: 9, "
      "max_calib_seq_len: 7, "
      "dataset: self, text_column: q, concatenate_data: false, shuffle_calibration_samples: true, seed: 5}",
      "r.yaml", options_);
  const CalibrationOptions& calibration = options_.calibration;
  EXPECT_EQ(calibration.num_samples, 9);
  EXPECT_EQ(calibration.max_seq_length, 7);
  EXPECT_THAT(calibration.datasets, ElementsAre(CalibrationDataset{.data = "self"}));
  EXPECT_EQ(calibration.text_column, "q");
  EXPECT_EQ(calibration.documents, DocumentPolicy::truncate);
  EXPECT_TRUE(calibration.shuffle);
  EXPECT_EQ(calibration.seed, 5);
  OneshotOptions back;
  parse_recipe(recipe_to_yaml(options_, ModelWeights(path("dense")).spec(), 1), "recipe.yaml", back);
  EXPECT_EQ(back.calibration.datasets, calibration.datasets);
  EXPECT_EQ(back.calibration.text_column, "q");
  EXPECT_EQ(back.calibration.documents, DocumentPolicy::truncate);
  EXPECT_TRUE(back.calibration.shuffle);
  EXPECT_EQ(back.calibration.seed, 5);
  EXPECT_THAT(
      [&] {
        parse_recipe(
            "AWQModifier: {}\nQuantizationModifier: {scheme: W4A16}\nsalient: {max_calib_samples: 9, "
            "num_calibration_samples: 8}",
            "r.yaml", options_);
      },
      refuses("9 contradicts r.yaml: salient: num_calibration_samples"));
  EXPECT_THAT(
      [&] {
        parse_recipe("QuantizationModifier: {scheme: W4A16}\nsalient: {dataset: a.txt}", "r.yaml", options_);
      },
      refuses("is for AWQ"));
}

}  // namespace
}  // namespace salient
