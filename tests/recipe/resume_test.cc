#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <random>

#include "base/error.h"
#include "base/file.h"
#include "base/parallel.h"
#include "checkpoint/checkpoint.h"
#include "recipe/layer_record.h"
#include "salient/oneshot.h"
#include "support/error_matcher.h"
#include "support/safetensors_bytes.h"
#include "support/temporary_directory.h"
#include "support/tiny_model.h"

namespace salient {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

constexpr int64_t kLayers = 3;

/// Every file of a directory, by name.
std::map<std::string, std::string> files_of(const fs::path& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(directory))
    files[entry.path().filename().string()] = read_text_file(entry.path().string());
  return files;
}

class Resume : public ::testing::Test {
 protected:
  Resume() { use("LlamaForCausalLM"); }

  void use(const std::string& architecture) {
    fs::remove_all(path("dense"));
    Json extra = expert_keys();
    extra["num_hidden_layers"] = kLayers;
    extra["mlp_layer_types"] = Json::array({"sparse", "dense", "sparse"});
    TinyModel{.architecture = architecture, .extra = extra}.write(path("dense"));
    options_ = {};
    options_.model = path("dense");
    options_.output = path("out");
    options_.work = path("work");
    options_.recipe.awq.emplace().n_grid = 4;
    options_.recipe.quantization.group_size = 32;
    options_.calibration.sequences = random_windows(5, 40, 96);
  }

  std::string path(const std::string& name) const { return (scratch_.path() / name).string(); }

  /// What a run gives that nobody interrupts.
  std::map<std::string, std::string> expected() {
    OneshotOptions options = options_;
    options.output = path("expected");
    options.work.clear();
    options.resume = false;
    options.overwrite = true;
    expected_report_ = oneshot(options);
    return files_of(options.output);
  }

  /// Starts and stops once `layers` layers are done.
  void interrupt_after(int64_t layers) {
    std::atomic<bool> flag = layers == 0;
    OneshotOptions options = options_;
    options.cancelled = &flag;
    options.on_progress = [&](const Progress& progress) { flag = progress.layers_done >= layers; };
    EXPECT_THAT([&] { oneshot(options); }, throws_error(ErrorKind::cancelled, HasSubstr("stopped")));
    EXPECT_FALSE(fs::exists(options_.output));
  }

  OneshotReport resume() {
    OneshotOptions options = options_;
    options.resume = true;
    resumed_.clear();
    options.on_progress = [&](const Progress& progress) { resumed_.push_back(progress.resumed); };
    return oneshot(options);
  }

  std::string refusal() {
    try {
      resume();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::invalid_argument);
      EXPECT_FALSE(fs::exists(options_.output));
      return error.what();
    }
    return "nothing was thrown";
  }

  TemporaryDirectory scratch_;
  OneshotOptions options_;
  OneshotReport expected_report_;
  std::vector<bool> resumed_;
};

struct Variant {
  std::string name;
  std::string architecture;
  std::function<void(OneshotOptions&)> change;
};

void PrintTo(const Variant& variant, std::ostream* stream) { *stream << variant.name; }

class ResumeEverywhere : public Resume, public ::testing::WithParamInterface<Variant> {};

TEST_P(ResumeEverywhere, GivesTheSameBytes) {
  use(GetParam().architecture);
  GetParam().change(options_);
  const auto files = expected();
  for (int64_t layers = 1; layers < kLayers; ++layers) {
    interrupt_after(layers);
    ASSERT_TRUE(fs::exists(options_.work));
    const OneshotReport report = resume();
    EXPECT_EQ(report.resumed_layers, layers);
    EXPECT_THAT(report.warnings, ::testing::ElementsAreArray(expected_report_.warnings));
    EXPECT_EQ(files_of(options_.output), files) << layers;
    EXPECT_FALSE(fs::exists(options_.work));
    ASSERT_THAT(report.layers, SizeIs(kLayers));
    for (size_t i = 0; i < kLayers; ++i) {
      EXPECT_EQ(resumed_[i], static_cast<int64_t>(i) < layers);
      Json found = layer_record(report.layers[i]);
      Json wanted = layer_record(expected_report_.layers[i]);
      EXPECT_GT(found["seconds"]["total"].get<double>(), 0);
      found.erase("seconds");
      wanted.erase("seconds");
      EXPECT_EQ(found, wanted);
    }
    fs::remove_all(options_.output);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Variants, ResumeEverywhere,
    ::testing::Values(
        Variant{"Default", "LlamaForCausalLM", [](OneshotOptions&) {}},
        Variant{"Original", "Qwen2ForCausalLM",
                [](OneshotOptions& o) { o.calibration.propagation = Propagation::original; }},
        Variant{"Matched", "LlamaForCausalLM",
                [](OneshotOptions& o) { o.recipe.awq->rounding = Rounding::matched; }},
        Variant{"Fast", "LlamaForCausalLM", [](OneshotOptions& o) { o.effort = Effort::fast; }},
        Variant{"BlockOutput", "LlamaForCausalLM",
                [](OneshotOptions& o) {
                  o.effort = Effort::fast;
                  o.recipe.awq->objective = Objective::block_output;
                }},
        Variant{"Scaled", "LlamaForCausalLM", [](OneshotOptions& o) { o.result = OneshotResult::scaled; }},
        Variant{"AutoAwq", "LlamaForCausalLM", [](OneshotOptions& o) { o.format = Format::autoawq_gemm; }},
        Variant{"Nearest", "LlamaForCausalLM", [](OneshotOptions& o) { o.recipe.awq.reset(); }},
        Variant{"Fused", "Phi3ForCausalLM", [](OneshotOptions&) {}},
        Variant{"Biased", "OPTForCausalLM", [](OneshotOptions&) {}},
        Variant{"Transposed", "GPT2LMHeadModel", [](OneshotOptions&) {}},
        Variant{"Experts", "Qwen3MoeForCausalLM",
                [](OneshotOptions& o) {
                  o.calibration.experts = ExpertCalibration::routed;
                  o.calibration.min_tokens_per_expert = 20;
                }},
        Variant{"State", "Qwen3NextForCausalLM", [](OneshotOptions&) {}},
        Variant{"DenseInPart", "LlamaForCausalLM",
                [](OneshotOptions& o) {
                  o.recipe.quantization.ignore = {"re:.*layers.1.*", "re:.*up_proj$"};
                }}),
    [](const auto& variant) { return variant.param.name; });

/// Killed after the last layer, nothing of the calibration is needed any more.
TEST_F(Resume, AllLayersMayBeFinished) {
  const auto files = expected();
  interrupt_after(kLayers);
  EXPECT_EQ(resume().resumed_layers, kLayers);
  EXPECT_EQ(files_of(options_.output), files);
}

/// A name that only looks like a layer's is somebody else's.
TEST_F(Resume, AFileOfAnotherNameIsNotTaken) {
  fs::create_directory(options_.work);
  const std::string other = options_.work + "/layer-final.safetensors";
  std::ofstream(other) << "mine";
  EXPECT_THAT(refusal(),
              ::testing::HasSubstr("there is no job of Salient's in this directory, but other files"));
  EXPECT_TRUE(fs::exists(other));
}

TEST_F(Resume, WithoutAJobItStarts) {
  const auto files = expected();
  EXPECT_EQ(resume().resumed_layers, 0);
  EXPECT_EQ(files_of(options_.output), files);
  fs::remove_all(options_.output);
  fs::create_directory(options_.work);
  EXPECT_EQ(resume().resumed_layers, 0);
}

TEST_F(Resume, AnotherNumberOfThreadsGoesOn) {
  const auto files = expected();
  set_thread_count(3);
  interrupt_after(1);
  set_thread_count(1);
  resume();
  set_thread_count(2);
  EXPECT_EQ(files_of(options_.output), files);
}

TEST_F(Resume, SaysWhatChanged) {
  interrupt_after(2);
  const OneshotOptions before = options_;
  const std::string other = path("work") + ": the work directory holds another job: the ";
  options_.recipe.awq->n_grid = 5;
  EXPECT_EQ(refusal(), other + "recipe changed");
  options_ = before;
  options_.recipe.quantization.ignore.push_back("re:.*up_proj$");
  EXPECT_EQ(refusal(), other + "recipe changed");
  options_ = before;
  options_.calibration.sequences[2][3] ^= 1;
  EXPECT_EQ(refusal(), other + "calibration data changed");
  options_ = before;
  options_.calibration.sequences.pop_back();
  EXPECT_EQ(refusal(), other + "calibration data changed");
  options_ = before;
  write_file_atomically(path("dense") + "/tokenizer.json", "{}");
  EXPECT_EQ(refusal(), other + "tokenizer changed");
  fs::remove(path("dense") + "/tokenizer.json");
  Json job = read_json_file(path("work") + "/job.json");
  job["version of Salient"] = "0.0.9";
  write_file_atomically(path("work") + "/job.json", job.dump());
  EXPECT_THAT(refusal(), HasSubstr("version of Salient changed (\"0.0.9\", now \""));
  job["version of Salient"] = SALIENT_VERSION;
  const std::string arithmetic = job["arithmetic"];
  job["arithmetic"] = "cpu: abacus, f32";
  write_file_atomically(path("work") + "/job.json", job.dump());
  EXPECT_THAT(refusal(), HasSubstr("arithmetic changed (\"cpu: abacus, f32\", now \"" + arithmetic));
  job["arithmetic"] = arithmetic;
  write_file_atomically(path("work") + "/job.json", job.dump());
  EXPECT_EQ(resume().resumed_layers, 2);
}

/// Blocks change what is rounded to what.
TEST_F(Resume, GramMatricesInBlocksArePartOfTheJob) {
  fs::remove_all(path("dense"));
  TinyModel{.extra = {{"intermediate_size", 1024}, {"num_hidden_layers", kLayers}}}.write(path("dense"));
  options_.max_memory = 1 << 20;
  try {
    plan_oneshot(options_);
  } catch (const Error& error) {
    const std::string message = error.what();
    options_.max_memory = parse_byte_size(message.substr(message.rfind(' ') + 1));
  }
  const int64_t block = plan_oneshot(options_).memory.gram_block;
  ASSERT_GT(block, 0);
  const auto files = expected();
  EXPECT_EQ(expected_report_.gram_block, block);
  interrupt_after(1);
  const uint64_t cap = options_.max_memory;
  options_.max_memory = 0;
  EXPECT_THAT(refusal(),
              AllOf(HasSubstr("the memory plan changed"),
                    HasSubstr(fmt::format("batches of 128, Gram matrices in blocks of {}\", now", block))));
  options_.max_memory = cap;
  EXPECT_EQ(resume().resumed_layers, 1);
  EXPECT_EQ(files_of(options_.output), files);
}

/// The model with one value of one tensor changed.
void change_model(const std::string& directory, const std::string& tensor) {
  CheckpointWriter writer({.target = directory, .if_exists = OutputDirectory::IfExists::replace});
  {
    const Checkpoint before(directory);
    for (const auto& name : before.tensor_names()) {
      Tensor copy = before.tensor(name).to(DType::bf16);
      if (name == tensor) copy.mutable_values<BFloat16>()[5] = to_bfloat16(0.25f);
      writer.add(name, copy);
    }
    writer.add_file("config.json", before.config().dump(2));
  }
  writer.finish();
}

TEST_F(Resume, AChangedModelIsRefused) {
  for (const auto& [tensor, message] : std::map<std::string, std::string>{
           {"model.embed_tokens.weight", "the model changed"},
           {"model.layers.0.mlp.up_proj.weight", "layer 0 of the model changed"},
           {"model.layers.1.input_layernorm.weight", "layer 1 of the model changed"}}) {
    use("LlamaForCausalLM");
    interrupt_after(2);
    change_model(path("dense"), tensor);
    EXPECT_THAT(refusal(), HasSubstr(message)) << tensor;
    fs::remove_all(options_.work);
    fs::remove_all(options_.model);
  }
  use("LlamaForCausalLM");
  interrupt_after(2);
  change_model(path("dense"), "model.layers.2.mlp.up_proj.weight");  // not yet looked at
  resume();
  const auto found = files_of(options_.output);
  EXPECT_EQ(found, expected());
}

TEST_F(Resume, AWorkDirectoryIsNotTakenUnasked) {
  interrupt_after(1);
  const auto message = [&] {
    try {
      oneshot(options_);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("nothing was thrown");
  };
  EXPECT_EQ(
      message(),
      path("work") + ": the work directory is not empty: resume the job in it, or name another directory");
  options_.work = path("strange");
  fs::create_directory(options_.work);
  write_file_atomically(path("strange") + "/thesis.txt", "years of work");
  EXPECT_THAT(message(), HasSubstr("is not empty"));
  EXPECT_THAT(refusal(), HasSubstr("there is no job of Salient's in this directory"));
  EXPECT_THAT(files_of(path("strange")), ElementsAre(testing::Key("thesis.txt")));
  options_.work = path("out") + "/work";
  EXPECT_THAT(message(), HasSubstr("must lie apart from the output"));
  options_.work = scratch_.path().string();
  EXPECT_THAT(message(), HasSubstr("must lie apart from the output"));
  options_.work = path("dense") + "/config.json";
  EXPECT_THAT(message(), HasSubstr("not a directory"));
  options_.work.clear();
  const std::string unnamed =
      "resume needs the work directory of the run to go on with, but none is named; give work (--work DIR) "
      "beside it";
  EXPECT_EQ(refusal(), unnamed);
  options_.resume = true;
  EXPECT_THAT([&] { plan_oneshot(options_); }, throws_error(ErrorKind::invalid_argument, unnamed));
}

TEST_F(Resume, ForeignFilesStay) {
  interrupt_after(1);
  for (const std::string name : {"notes.txt", "layer-notes.txt", "job.json.bak"})
    write_file_atomically(path("work") + "/" + name, "mine");
  write_file_atomically(path("work") + "/layer-00001.safetensors.partial", "half a layer");
  resume();
  EXPECT_THAT(
      files_of(path("work")),
      ElementsAre(testing::Key("job.json.bak"), testing::Key("layer-notes.txt"), testing::Key("notes.txt")));
}

TEST_F(Resume, OneProcessAtATime) {
  OneshotOptions second = options_;
  second.output = path("second");
  second.resume = true;
  std::string message;
  options_.on_progress = [&](const Progress& progress) {
    if (progress.layers_done != 2) return;
    try {
      oneshot(second);
    } catch (const Error& error) {
      message = error.what();
    }
  };
  oneshot(options_);
  EXPECT_EQ(message, path("work") + ": another process works here");
  EXPECT_FALSE(fs::exists(second.output));
}

/// Layers that were read say nothing about the others.
TEST_F(Resume, WhatIsLeftIsJudgedByLayersOfThisRun) {
  interrupt_after(2);
  std::vector<double> left;
  OneshotOptions options = options_;
  options.resume = true;
  options.on_progress = [&](const Progress& progress) { left.push_back(progress.remaining_seconds); };
  oneshot(options);
  ASSERT_THAT(left, SizeIs(kLayers));
  EXPECT_TRUE(std::isnan(left[0]) && std::isnan(left[1]));
  EXPECT_EQ(left[2], 0);
  fs::remove_all(options_.output);
  options.work.clear();
  options.resume = false;
  left.clear();
  oneshot(options);
  EXPECT_GT(left[0], 0);
  EXPECT_EQ(left[2], 0);
}

/// Whatever became of the files of finished layers: the output is the same, because what is not as it was
/// written is done again.
TEST_F(Resume, DamagedLayersAreDoneAgain) {
  const auto files = expected();
  interrupt_after(kLayers);
  const fs::path kept = path("kept");
  fs::copy(options_.work, kept);
  const auto damage = [&](int64_t layer, const std::function<void(std::string&)>& change) {
    fs::remove_all(options_.work);
    fs::remove_all(options_.output);
    fs::copy(kept, options_.work);
    const fs::path file = fs::path(options_.work) / fmt::format("layer-{:05}.safetensors", layer);
    std::string bytes = read_text_file(file.string());
    change(bytes);
    write_bytes(file, bytes);
    const OneshotReport report = resume();
    EXPECT_EQ(files_of(options_.output), files);
    return report;
  };
  const OneshotReport report = damage(1, [](std::string& bytes) { bytes[bytes.size() / 2] ^= 1; });
  EXPECT_EQ(report.resumed_layers, 1);
  EXPECT_THAT(report.warnings,
              ::testing::Contains(AllOf(HasSubstr("layer-00001.safetensors: the checksum is wrong"),
                                        HasSubstr("layer 1 and those behind it were worked on again"))));
  const OneshotReport halved = damage(0, [](std::string& bytes) { bytes.resize(100); });
  const std::string file = path("work") + "/layer-00000.safetensors";
  EXPECT_THAT(halved.warnings,
              ::testing::Contains(AllOf(::testing::StartsWith(file + ": "), HasSubstr("worked on again"),
                                        Not(HasSubstr(file + ": " + file)))));
  std::mt19937 random(3);
  for (int i = 0; i < 60; ++i) {
    const auto layer = static_cast<int64_t>(random() % kLayers);
    const bool cut = i % 3 == 0;
    const OneshotReport found = damage(layer, [&](std::string& bytes) {
      // Half of the changes where they do most, in the header.
      const size_t at = random() % (i % 2 == 0 ? std::min<size_t>(3000, bytes.size()) : bytes.size());
      if (cut) bytes.resize(at);
      if (!cut) bytes[at] = static_cast<char>(bytes[at] ^ (1 << random() % 8));
    });
    EXPECT_TRUE(found.resumed_layers == layer || found.resumed_layers == kLayers) << i;
  }
  // Layers may not change places, nor come from elsewhere.
  const std::string first = read_text_file((kept / "layer-00000.safetensors").string());
  EXPECT_EQ(damage(1, [&](std::string& bytes) { bytes = first; }).resumed_layers, 1);
}

TEST_F(Resume, ALayerOfAnotherJobIsDoneAgain) {
  const auto files = expected();
  interrupt_after(2);
  const std::string kept = read_text_file(path("work") + "/layer-00000.safetensors");
  fs::remove_all(options_.work);
  const OneshotOptions before = options_;
  options_.calibration.sequences.pop_back();
  interrupt_after(2);
  const std::string strange = read_text_file(path("work") + "/layer-00000.safetensors");
  EXPECT_NE(strange, kept);
  fs::remove_all(options_.work);
  options_ = before;
  interrupt_after(2);
  write_bytes(path("work") + "/layer-00000.safetensors", strange);
  const OneshotReport report = resume();
  EXPECT_EQ(report.resumed_layers, 0);
  EXPECT_THAT(report.warnings, ::testing::Contains(HasSubstr("it belongs to another job")));
  EXPECT_EQ(files_of(options_.output), files);
}

TEST_F(Resume, ADamagedJobIsRefused) {
  interrupt_after(1);
  write_bytes(path("work") + "/job.json", "{\"version of Salient\": ");
  EXPECT_THAT([&] { resume(); }, throws_error(ErrorKind::bad_format, HasSubstr("job.json")));
  write_bytes(path("work") + "/job.json", "{}");
  EXPECT_THAT([&] { resume(); }, throws_error(ErrorKind::bad_format, HasSubstr("missing")));
}

/// A run that was killed before it had said what it does leaves a lock and perhaps half a file.
TEST_F(Resume, AnEmptyJobStarts) {
  fs::create_directory(options_.work);
  write_bytes(path("work") + "/job.lock", "");
  write_bytes(path("work") + "/job.json.partial-77-1", "{");
  EXPECT_EQ(resume().resumed_layers, 0);
  EXPECT_FALSE(fs::exists(options_.work));
}

TEST_F(Resume, TheSameBytesForAnyNumberOfThreads) {
  options_.work.clear();
  const auto files = expected();
  for (const size_t threads : {1u, 2u, 3u, 5u}) {
    set_thread_count(threads);
    fs::remove_all(options_.output);
    oneshot(options_);
    EXPECT_EQ(files_of(options_.output), files) << threads;
  }
  set_thread_count(2);
}

}  // namespace
}  // namespace salient
