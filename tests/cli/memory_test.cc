#if defined(__GNUC__) && !defined(__clang__)
// With sanitizers GCC 12 believes parts of std::regex used before they are set.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>

#include "base/json.h"
#include "support/program.h"
#include "support/tiny_model.h"

namespace salient {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

const std::string kDemo = SALIENT_SOURCE_DIR "/examples/demo";

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

class Memory : public ::testing::Test {
 protected:
  std::string path(const std::string& name) const { return (scratch_.path() / name).string(); }

  ProgramResult quantize(const std::string& model, std::vector<std::string> more) const {
    std::vector<std::string> arguments{
        "quantize", model, "-o", path("out"), "--data", kDemo + "/calibration.txt", "--overwrite", "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_salient(arguments);
  }

  Json plan(const std::string& model, std::vector<std::string> more) const {
    more.emplace_back("--dry-run");
    const ProgramResult result = quantize(model, more);
    EXPECT_EQ(result.status, 0) << result.errors;
    return parse_json(result.output, "plan")["memory"];
  }

  /// The kernel's count of what was resident is what was planned, or less, but not by much: what is counted
  /// for the code that the library of products generates is not all used where Salient has its own. Pages of
  /// the program itself come in runs of their own choosing, other ones in every process, and perhaps half of
  /// them. Returns the plan.
  Json expect_kept(const std::string& model, const std::vector<std::string>& more) const {
    Json planned = plan(model, more);
    const ProgramResult result = quantize(model, more);
    EXPECT_EQ(result.status, 0) << result.errors;
    const auto measured = parse_json(result.output, "report")["peak_memory"].get<double>();
    const auto peak = planned["peak"].get<double>();
    constexpr double kProgramPages = 1e6;
    EXPECT_LE(measured, peak + kProgramPages) << planned.dump(2);
    EXPECT_GE(measured, (peak - planned["program"].get<double>() / 2) / 2.2) << planned.dump(2);
    return planned;
  }

  /// The cap that a refusal names.
  std::string smallest_cap(const std::string& model, std::vector<std::string> more) const {
    more.insert(more.end(), {"--max-memory", "10MB", "--dry-run"});
    const ProgramResult refused = quantize(model, more);
    EXPECT_EQ(refused.status, 1);
    const std::string mark = "the smallest cap that would do is ";
    const size_t at = refused.errors.find(mark);
    EXPECT_NE(at, std::string::npos) << refused.errors;
    const std::string cap = refused.errors.substr(at + mark.size());
    return cap.substr(0, cap.find('\n'));
  }

  /// Under which the plan would just fit: the program then counts as 128 MiB.
  static int64_t cap_of(const Json& plan) {
    return plan["peak"].get<int64_t>() - plan["program"].get<int64_t>() + (int64_t{128} << 20);
  }

  TemporaryDirectory scratch_;
};

/// With the tokenizer of the demo model.
std::string wide_model(const std::string& directory, const std::string& architecture, const Json& more) {
  Json extra = {{"vocab_size", 3072}, {"hidden_size", 768}, {"intermediate_size", 3072}};
  extra.update(more);
  TinyModel{.architecture = architecture, .extra = extra}.write(directory);
  fs::copy_file(kDemo + "/model/tokenizer.json", directory + "/tokenizer.json");
  return directory;
}

TEST_F(Memory, OfTheDemoModelIsAsPlanned) {
  if (kSanitized) GTEST_SKIP() << "sanitizers keep memory for themselves";
  const std::string model = kDemo + "/model";
  // As many threads as a choice has room for, so that the caps below are what they are meant to be.
  const std::vector<std::string> many{"--n-grid", "3", "--num-calibration-samples", "90", "--threads", "4"};
  const auto with = [&](const std::string& flag, const std::string& value) {
    std::vector<std::string> flags = many;
    flags.insert(flags.end(), {flag, value});
    return flags;
  };
  const int64_t needed = cap_of(expect_kept(model, many));
  expect_kept(model, {"--n-grid", "3", "--num-calibration-samples", "8"});
  expect_kept(model, {"--method", "rtn"});
  expect_kept(model, with("--format", "autoawq-gemm"));
  EXPECT_EQ(expect_kept(model, with("--max-memory", std::to_string(needed - 30'000'000)))["storage"], "bf16");
  const Json least = expect_kept(model, with("--max-memory", std::to_string(needed - 58'000'000)));
  EXPECT_EQ(least["storage"], "spilled");
  EXPECT_LE(least["peak"], least["cap"]);
}

TEST_F(Memory, OfWiderModelsIsAsPlanned) {
  if (kSanitized) GTEST_SKIP() << "sanitizers keep memory for themselves";
  const std::string plain = wide_model(path("plain"), "LlamaForCausalLM", Json::object());
  const std::vector<std::string> flags{"--n-grid",         "2",  "--num-calibration-samples", "16",
                                       "--max-seq-length", "128"};
  expect_kept(plain, flags);
  for (const auto& more : {std::pair{"--objective", "block_output"}, {"--effort", "best"}}) {
    std::vector<std::string> own = flags;
    own.insert(own.end(), {more.first, more.second});
    expect_kept(plain, own);
  }
  std::vector<std::string> scaled = flags;
  scaled.emplace_back("--scaled-only");
  expect_kept(plain, scaled);
  expect_kept(wide_model(path("experts"), "Qwen3MoeForCausalLM",
                         {{"num_experts", 6}, {"num_experts_per_tok", 2}, {"moe_intermediate_size", 768}}),
              flags);
  expect_kept(wide_model(path("fused"), "Phi3ForCausalLM", {{"num_key_value_heads", 4}}), flags);
}

/// The Gram matrix of what down_proj reads alone is 38 MB, its factor as much.
TEST_F(Memory, OfGramMatricesInBlocksIsAsPlanned) {
  const std::string model = wide_model(path("plain"), "LlamaForCausalLM", Json::object());
  const auto flags = [](const std::string& threads, const std::string& cap) {
    std::vector<std::string> all{
        "--n-grid", "2", "--num-calibration-samples", "4", "--max-seq-length", "128", "--threads", threads};
    if (!cap.empty()) all.insert(all.end(), {"--max-memory", cap});
    return all;
  };
  const std::string cap = smallest_cap(model, flags("2", ""));
  const Json planned = plan(model, flags("2", cap));
  EXPECT_EQ(planned["gram_block"], 768);
  EXPECT_LE(planned["peak"], planned["cap"]);
  EXPECT_LT(cap_of(planned), cap_of(plan(model, flags("2", ""))) - 50'000'000);
  if (!kSanitized) expect_kept(model, flags("2", cap));
  const auto written = [&](const std::string& threads) {
    const ProgramResult result = quantize(model, flags(threads, cap));
    EXPECT_EQ(result.status, 0) << result.errors;
    EXPECT_EQ(parse_json(result.output, "report")["gram_block"], 768);
    return read_text_file(path("out") + "/model.safetensors");
  };
  EXPECT_EQ(written("1"), written("2"));
  // More threads than there is room for: some of them wait, and nothing else is chosen.
  EXPECT_LT(plan(model, flags("32", cap))["threads"], 32);
  EXPECT_EQ(written("1"), written("32"));
  const ProgramResult text = run_salient({"quantize", model, "-o", path("other"), "--data",
                                          kDemo + "/calibration.txt", "--num-calibration-samples", "4",
                                          "--max-seq-length", "128", "--dry-run", "--max-memory", cap});
  EXPECT_THAT(text.output, HasSubstr("Gram matrices in blocks of 768 columns"));
}

TEST_F(Memory, OfExpertsInBlocksIsAsPlanned) {
  if (kSanitized) GTEST_SKIP() << "sanitizers keep memory for themselves";
  const std::string model =
      wide_model(path("experts"), "Qwen3MoeForCausalLM",
                 {{"num_experts", 4}, {"num_experts_per_tok", 2}, {"moe_intermediate_size", 2048}});
  std::vector<std::string> flags{"--n-grid",         "2",   "--num-calibration-samples", "4",
                                 "--max-seq-length", "128", "--moe-calibrate",           "routed"};
  flags.insert(flags.end(), {"--max-memory", smallest_cap(model, flags)});
  EXPECT_EQ(expect_kept(model, flags)["gram_block"], 768);
}

TEST_F(Memory, ACapThatNothingFitsUnderNamesOneThatDoes) {
  const std::string model = kDemo + "/model";
  const auto with_cap = [&](const std::string& cap) {
    return quantize(model, {"--num-calibration-samples", "90", "--dry-run", "--max-memory", cap});
  };
  const ProgramResult kept = with_cap(smallest_cap(model, {"--num-calibration-samples", "90"}));
  ASSERT_EQ(kept.status, 0) << kept.errors;
  EXPECT_EQ(parse_json(kept.output, "plan")["memory"]["storage"], "spilled");
  for (const std::string text : {"0", "much", "1.5GB", "4 bananas", ""}) {
    const ProgramResult bad = with_cap(text);
    EXPECT_EQ(bad.status, 2) << text;
    EXPECT_THAT(bad.errors, HasSubstr("is no size")) << text;
  }
}

/// What is done to keep a cap shapes the last digits of the result, so the record of a run names it.
TEST_F(Memory, ACapIsPartOfTheRecord) {
  const std::string model = kDemo + "/model";
  const std::string cap =
      std::to_string(cap_of(plan(model, {"--num-calibration-samples", "90"})) - 52'000'000);
  const ProgramResult result =
      quantize(model, {"--n-grid", "2", "--num-calibration-samples", "90", "--max-memory", cap});
  ASSERT_EQ(result.status, 0) << result.errors;
  const std::string spilled = read_text_file(path("out") + "/model.safetensors");
  const std::string record = read_text_file(path("out") + "/recipe.yaml");
  EXPECT_THAT(record, HasSubstr("max_memory: " + cap));
  write_file_atomically(path("recipe.yaml"), record);
  const ProgramResult again = quantize(model, {"--recipe", path("recipe.yaml")});
  ASSERT_EQ(again.status, 0) << again.errors;
  EXPECT_EQ(read_text_file(path("out") + "/model.safetensors"), spilled);
  EXPECT_EQ(read_text_file(path("out") + "/recipe.yaml"), record);
}

TEST_F(Memory, ThePlanIsPrinted) {
  const std::string model = kDemo + "/model";
  const ProgramResult text = run_salient({"quantize", model, "-o", path("out"), "--data",
                                          kDemo + "/calibration.txt", "--dry-run", "--max-memory", "4GiB"});
  EXPECT_THAT(text.output, AllOf(HasSubstr("memory"), HasSubstr("program"), HasSubstr("capped at 4.00 GiB"),
                                 HasSubstr("batches of 2048 tokens")));
}

/// The total that a plan prints is a cap under which the same is done, without one and with a smaller one.
TEST_F(Memory, ThePrintedTotalIsACapThatFits) {
  const std::string model = kDemo + "/model";
  const auto flags = [](const std::string& cap) {
    std::vector<std::string> all{"--num-calibration-samples", "90", "--n-grid", "2", "--threads", "2"};
    if (!cap.empty()) all.insert(all.end(), {"--max-memory", cap});
    return all;
  };
  const auto printed = [&](const std::string& cap) {
    std::vector<std::string> arguments{"quantize",  model,        "-o",
                                       path("out"), "--data",     kDemo + "/calibration.txt",
                                       "--dry-run", "--overwrite"};
    const auto more = flags(cap);
    arguments.insert(arguments.end(), more.begin(), more.end());
    const ProgramResult result = run_salient(arguments);
    std::smatch found;
    EXPECT_TRUE(std::regex_search(result.output, found,
                                  std::regex("memory +up to ([0-9]+)\\.00 MiB .*; fits under --max-memory "
                                             "([0-9]+MiB)")))
        << result.output << result.errors;
    EXPECT_EQ(fmt::format("{}MiB", found.str(1)), found.str(2));
    return found.str(2);
  };
  for (const std::string cap : {"", "200MiB", "170MiB"}) {
    const Json wanted = plan(model, flags(cap));
    const Json got = plan(model, flags(printed(cap)));
    EXPECT_EQ(wanted["sufficient_cap"], got["cap"]);
    for (const std::string part : {"storage", "rows_per_batch", "gram_block", "sufficient_cap"})
      EXPECT_EQ(wanted[part], got[part]) << part << ", " << cap;
    EXPECT_EQ(printed(printed(cap)), printed(cap));
  }
  const ProgramResult run = quantize(model, flags(printed("")));
  EXPECT_EQ(run.status, 0) << run.errors;
}

TEST_F(Memory, ARefusalNamesSampling) {
  const ProgramResult refused = run_salient(
      {"quantize", kDemo + "/model", "-o", path("out"), "--data", "self", "--max-memory", "100MiB"});
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(
      refused.errors,
      AllOf(HasSubstr("but --max-memory is 100.00MiB; sampling (the data set \"self\") runs the whole "
                      "model and takes "),
            HasSubstr("the smallest cap that would do is ")));
}

}  // namespace
}  // namespace salient
