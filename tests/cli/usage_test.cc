#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "support/command_line.h"

namespace salient {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

/// What makes no sense, and how it is refused.
class Usage : public CommandLine {};

/// A flag that would change nothing is refused by its name.
TEST_F(Usage, FlagsWithoutEffectAreRefused) {
  const auto expect_refused = [&](const std::vector<std::string>& flags, const std::string& message) {
    const auto refused = run_salient(quantize(flags));
    EXPECT_EQ(refused.status, 2) << refused.errors;
    EXPECT_THAT(refused.errors, HasSubstr(message));
    EXPECT_FALSE(fs::exists(out()));
  };
  const std::vector<std::pair<std::string, std::string>> flags{
      {"--effort", "default"}, {"--rounding", "nearest"},     {"--objective", "linear_output"},
      {"--n-grid", "20"},      {"--duo-scaling", "true"},     {"--propagation", "original"},
      {"--precision", "f32"},  {"--moe-calibrate", "all"},    {"--seed", "1"},
      {"--sweeps", "2"},       {"--text-column", "text"},     {"--no-clip", ""},
      {"--shuffle", ""},       {"--concatenate-data", "true"}};
  for (const auto& [flag, value] : flags) {
    std::vector<std::string> said{"--method", "rtn", flag};
    if (!value.empty()) said.push_back(value);
    expect_refused(said, flag + " is for AWQ, but stands beside --method rtn");
  }
  expect_refused({"--effort", "fast", "--scaled-only"},
                 "--effort fast is for integers, but the result is scaled");
  expect_refused({"--effort", "best", "--rounding", "nearest", "--propagation", "quantized"},
                 "--effort stands beside --rounding and --propagation, which");
  expect_refused({"--effort", "best", "--rounding", "matched", "--propagation", "quantized", "--sweeps", "1"},
                 "--effort stands beside --rounding, --sweeps and --propagation, which");
  expect_refused({"--rounding", "nearest", "--sweeps", "1"},
                 "1 sweeps are for compensated and matched rounding, but the rounding is nearest");
  expect_refused({"--sweeps", "1", "--scaled-only"}, "sweeps is for integers, but the result is scaled");
  expect_refused({"--text-column", "story"},
                 "--text-column story: there is no .jsonl file to read it from, but " + kDemo);
  expect_refused({"--text-column", "text", "--eval", kDemo + "/evaluation.txt"}, "there is no .jsonl file");
  expect_refused({"--data", "self", "--text-column", "text", "--text-column", "story"},
                 "--text-column story: there is no .jsonl file to read it from, but self");
  const auto evaluated =
      run_salient({"eval", kModel, "--text", kDemo + "/evaluation.txt", "--text-column", "story"});
  EXPECT_EQ(evaluated.status, 2);
  EXPECT_THAT(evaluated.errors, HasSubstr("evaluation.txt is no .jsonl file"));
  const std::string recipe = out("said.yaml");
  write_file_atomically(recipe, "AWQModifier: {scheme: W4A16}\nsalient: {rounding: nearest}\n");
  expect_refused({"--effort", "best", "--recipe", recipe},
                 "--effort best stands beside " + recipe + ", which names rounding itself");
}

TEST_F(Usage, MistakesGetOneLineAndNoOutput) {
  struct Case {
    std::vector<std::string> arguments;
    int status;
    std::string message;
  };
  const std::vector<Case> cases{
      {{"quantize", "/nowhere", "-o", out()}, 1, "/nowhere"},
      {{"quantize", kModel, "-o", out()}, 2, "AWQ needs calibration text"},
      {quantize({"--group-size", "48"}), 2, "--group-size is 48; it must be 16, 32"},
      {quantize({"--group-size", "96", "--method", "rtn"}), 2, "--group-size is 96"},
      {quantize({"--scheme", "W8A16", "--format", "autoawq-gemm"}), 2, "autoawq-gemm holds 4-bit codes"},
      {quantize({"--scheme", "W9A16"}), 2, "salient: --scheme \"W9A16\" is unknown"},
      {quantize({"--target-bits", "4.5", "--format", "autoawq-gemm"}), 2, "--target-bits mixes numbers"},
      {quantize({"--target-bits", "4.5", "--max-memory", "1GiB"}), 2, "--target-bits beside --max-memory"},
      {quantize({"--n-grid", "1"}), 2, "--n-grid: 1 is outside"},
      {quantize({"--resume"}), 2, "salient: --resume needs the work directory"},
      {quantize({"--max-memory", "10MiB"}), 1, "but --max-memory is 10.00MiB"},
      {quantize({"--group-size", "256", "--ignore", "nothing"}), 2, "matches no module"},
      {quantize({"--scheme", "W8A8"}), 1, "W8A8"},
      {quantize({"--format", "gguf"}), 2, "gguf"},
      {quantize({"--effort", "most"}), 2, "most not in {fast,default,best}"},
      {quantize({"--recipe", "/nowhere.yaml"}), 1, "/nowhere.yaml"},
      {quantize({"--recipe", kDemo + "/README.md", "--scheme", "W4A16"}), 2,
       "--scheme stands beside --recipe"},
      {quantize({}, "0"), 2, "num-calibration-samples"},
      {{"eval", kModel, "--text", "/nowhere.txt"}, 1, "salient: /nowhere.txt: cannot open"},
      {{"eval", kModel, "--text", kDemo + "/evaluation.txt", "--window", "100000"}, 2, "512 positions"},
      {quantize({"--eval", "/nowhere.txt"}), 1, "/nowhere.txt"},
      {{"quantize", kModel, "-o", "", "--method", "rtn"}, 2, "no name"},
      {{"generate", kModel, "-p", "x", "--temperature", "-1"}, 2, "temperature"},
      {{"generate", kModel, "-p", "x", "--activations", "int4"},
       2,
       "int4 not in {fp32,int16,int8,fp16,bf16}"},
      {{"generate", kModel, "-p", "x", "--lm-head", "int4"}, 2, "int4 not in {auto,int8,stored}"},
      {{"bench", "/nowhere"}, 1, "/nowhere"},
      {{"bench", kModel, "--prefill-length", "500", "--decode-length", "13"}, 2, "512 positions"},
      {{"bench", kModel, "--batch-size", "0"}, 2, "--batch-size"},
      {{"bench"}, 2, "bench needs a model, or --kernels"},
      {{"bench", kModel, "--kernels"}, 2, "--kernels measures no model: leave " + kModel + " out"},
      {{"bench", "--kernels", "--activations", "int8"}, 2, "--activations excludes --kernels"},
      {{"bench", kModel, "--shape", "64x64"}, 2, "--shape requires --kernels"},
      {{"bench", "--kernels", "--shape", "64"}, 2, "--shape 64: expected OUTxIN"},
      {{"bench", "--kernels", "--shape", "64x96y"}, 2, "--shape 64x96y: expected OUTxIN"},
      {{"bench", "--kernels", "--shape", "64x96"}, 2, "in groups of 128"},
      {{"bench", "--kernels", "--shape", "64x128", "--isa", "avx3"}, 2, "instruction set: avx3: unknown"},
      {{"quantise"}, 2, "quantise"},
      {{}, 2, "subcommand"},
      {quantize({"--grup-size", "64"}), 2, "there is no flag --grup-size; did you mean --group-size?"},
      {quantize({"--n_grid=3"}), 2, "there is no flag --n_grid; did you mean --n-grid?"},
      {quantize({"--bits", "4"}), 2, "there is no flag --bits; did you mean --scheme W4A16"},
      {quantize({"--zzzzzzzz"}), 2, "there is no flag --zzzzzzzz; salient quantize --help lists them"},
      {{"quantize", kModel, "--outptu", out()}, 2, "did you mean --output?"},
      {{"quantize", kModel, out()}, 2, fmt::format("\"{}\" was not expected", out())},
      {{"eval", kModel, "--txt", "x"}, 2, "did you mean --text?"},
      {{"generate", kModel, "--promt", "x"}, 2, "did you mean --prompt?"},
      {{"bench", kModel, "--batch-sizes", "1"}, 2, "did you mean --batch-size?"},
      {{"inspect", kModel, "--bits", "1"}, 2, "there is no flag --bits; salient inspect --help lists them"},
      {{"--thread", "2", "inspect", kModel}, 2, "there is no flag --thread; did you mean --threads?"},
  };
  for (const auto& one : cases) {
    const auto result = run_salient(one.arguments);
    EXPECT_EQ(result.status, one.status) << result.errors;
    EXPECT_THAT(result.errors, HasSubstr(one.message));
    EXPECT_LE(std::count(result.errors.begin(), result.errors.end(), '\n'), 2) << result.errors;
    EXPECT_TRUE(left_behind().empty());
  }
}

TEST_F(Usage, EachCommandTakesThreads) {
  for (const std::string command : {"quantize", "eval", "generate", "bench", "inspect"})
    EXPECT_THAT(run_salient({command, "--help"}).output, HasSubstr("--threads")) << command;
  std::vector<std::string> before = quantize({"--dry-run"});
  before.insert(before.begin(), {"--threads", "3"});
  for (const auto& arguments : {before, quantize({"--dry-run", "--threads", "3"})})
    EXPECT_THAT(run_salient(arguments).output, HasSubstr("3 threads"));
}

TEST_F(Usage, DataThatIsTooShortIsCounted) {
  const std::string file = out("d.jsonl");
  write_file_atomically(file, "{\"text\": \"Once upon a time\"}\n");
  const std::vector<std::string> arguments{"quantize", kModel, "-o", out(), "--data", file};
  EXPECT_THAT(run_salient(arguments).errors,
              HasSubstr("d.jsonl: text: 4 tokens are too few for one window of 512; give more text, or a "
                        "smaller max_seq_length"));
  write_file_atomically(file, "{\"text\": \"O\"}\n{\"text\": \"a\"}\n");
  std::vector<std::string> single = arguments;
  single.insert(single.end(), {"--concatenate-data", "false", "--max-seq-length", "64"});
  EXPECT_THAT(run_salient(single).errors,
              HasSubstr("none of the 2 documents has 2 tokens; all have 2 together"));
}

}  // namespace
}  // namespace salient
