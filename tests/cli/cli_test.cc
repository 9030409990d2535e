#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <thread>

#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "support/command_line.h"
#include "support/tiny_model.h"

namespace salient {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

TEST_F(CommandLine, MixesDataSetsAndTextOfTheModelsOwn) {
  const auto mixed = [&](const std::string& name, std::vector<std::string> more) {
    std::vector<std::string> arguments{"quantize",
                                       kModel,
                                       "-o",
                                       out(name),
                                       "--data",
                                       kDemo + "/calibration.txt:3",
                                       "--data",
                                       "self:1",
                                       "--max-calib-samples",
                                       "8",
                                       "--max-calib-seq-len",
                                       "40",
                                       "--shuffle",
                                       "--seed",
                                       "7"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_salient(arguments);
  };
  const auto planned = mixed("a", {"--dry-run"});
  EXPECT_EQ(planned.status, 0) << planned.errors;
  EXPECT_THAT(planned.output, HasSubstr("320 tokens of " + kDemo + "/calibration.txt, self"));
  EXPECT_THAT(planned.errors, ::testing::Not(HasSubstr("sampling")));
  const auto made = mixed("a", {});
  EXPECT_EQ(made.status, 0) << made.errors;
  EXPECT_THAT(made.errors, HasSubstr("sampling: 80 of 80 tokens"));
  EXPECT_THAT(read_text_file(out("a") + "/recipe.yaml"),
              AllOf(HasSubstr("seed: 7"), ::testing::Not(HasSubstr("calibration.txt"))));
  const auto again = run_salient({"quantize", kModel, "-o", out("b"), "--recipe", out("a") + "/recipe.yaml",
                                  "--data", kDemo + "/calibration.txt:3", "--data", "self:1"});
  EXPECT_EQ(again.status, 0) << again.errors;
  EXPECT_EQ(read_text_file(out("a") + "/model.safetensors"), read_text_file(out("b") + "/model.safetensors"));
  const auto columns = mixed("c", {"--text-column", "a", "--text-column", "b", "--text-column", "c"});
  EXPECT_EQ(columns.status, 2);
  EXPECT_THAT(columns.errors, HasSubstr("--text-column stands there 3 times, --data 2 times"));
}

TEST_F(CommandLine, QuantizesEvaluatesAndGenerates) {
  for (const std::string format : {"pack-quantized", "autoawq-gemm"}) {
    const auto quantized = run_salient(quantize({"--format", format, "--overwrite", "--json"}));
    ASSERT_EQ(quantized.status, 0) << quantized.errors;
    const Json report = parse_json(quantized.output, "report");
    EXPECT_GT(report["bytes_before"].get<double>(), 1.5 * report["bytes_after"].get<double>());
    EXPECT_FALSE(report["layers"].empty());
    EXPECT_THAT(quantized.errors, AllOf(HasSubstr("1/4 layers"), HasSubstr("loss"), HasSubstr("left")));
    EXPECT_THAT(read_text_file(out() + "/recipe.yaml"),
                HasSubstr("# Calibrated on " + report["calibration_tokens"].dump() + " tokens"));
    EXPECT_GT(report["calibration_tokens"].get<int64_t>(), 0);
    EXPECT_TRUE(fs::exists(out() + "/tokenizer.json"));

    const auto evaluated = run_salient({"eval", out(), "--text", kDemo + "/evaluation.txt", "--against",
                                        kModel, "--window", "128", "--max-windows", "8", "--json"});
    ASSERT_EQ(evaluated.status, 0) << evaluated.errors;
    const Json result = parse_json(evaluated.output, "result");
    const auto dense = result["reference"]["perplexity"].get<double>();
    EXPECT_LT(result["perplexity"].get<double>(), 1.25 * dense);
    EXPECT_GT(result["mean_kl"].get<double>(), 0.0);
    EXPECT_GT(result["same_top"].get<double>(), 0.8);

    const auto generated = run_salient({"generate", out(), "-p", "Once upon a time", "--max-tokens", "16"});
    ASSERT_EQ(generated.status, 0) << generated.errors;
    EXPECT_GT(generated.output.size(), 20u);
    EXPECT_EQ(generated.output,
              run_salient({"generate", out(), "-p", "Once upon a time", "--max-tokens", "16"}).output);
  }
}

class EveryWidth : public CommandLine, public testing::WithParamInterface<const char*> {};
INSTANTIATE_TEST_SUITE_P(Scheme, EveryWidth, testing::Values("W4A16_ASYM", "W6A16", "W8A16"),
                         [](const auto& each) { return std::string(each.param); });

/// The bounds that the modes promise, on models of 4, 6 and 8 bits; with int8 the head is rounded too.
TEST_P(EveryWidth, ActivationsAsIntegersPredictAlmostTheSame) {
  const auto quantized =
      run_salient({"quantize", kModel, "-o", out(), "--method", "rtn", "--scheme", GetParam()});
  ASSERT_EQ(quantized.status, 0) << quantized.errors;
  const auto perplexity = [&](const std::string& activations) {
    const auto result = run_salient({"eval", out(), "--text", kDemo + "/evaluation.txt", "--window", "128",
                                     "--max-windows", "8", "--activations", activations, "--json"});
    EXPECT_EQ(result.status, 0) << result.errors;
    const Json json = parse_json(result.output, "result");
    EXPECT_EQ(json["activations"], activations);
    EXPECT_THAT(json["device"].get<std::string>(), HasSubstr("cpu: "));
    return json["perplexity"].get<double>();
  };
  const double exact = perplexity("fp32");
  EXPECT_NE(perplexity("int16"), exact);
  EXPECT_NEAR(perplexity("int16") / exact, 1, 2e-4);
  EXPECT_NEAR(perplexity("int8") / exact, 1, 5e-3);
  const auto written =
      run_salient({"generate", out(), "-p", "Once upon a time", "-n", "8", "--activations", "int8"});
  EXPECT_EQ(written.status, 0) << written.errors;
  EXPECT_GT(written.output.size(), 20u);
}

TEST_F(CommandLine, BenchMeasuresEveryRow) {
  const std::vector<std::string> command{
      "bench",           kModel, "--batch-size", "1,3", "--prefill-length", "8,16",
      "--decode-length", "4",    "--repeat",     "1"};
  const auto table = run_salient(command);
  ASSERT_EQ(table.status, 0) << table.errors;
  EXPECT_THAT(table.output,
              AllOf(HasSubstr("Prefill tokens/s"), HasSubstr("memory bandwidth"), HasSubstr("lm_head")));
  auto with_json = command;
  with_json.push_back("--json");
  const auto measured = run_salient(with_json);
  ASSERT_EQ(measured.status, 0) << measured.errors;
  const Json result = parse_json(measured.output, "result");
  EXPECT_GT(result["bandwidth"].get<double>(), 1e8);
  EXPECT_EQ(result["fuse_layers"], true);
  EXPECT_EQ(result["lm_head"], "bf16") << "of a dense model, unless it is asked for";
  EXPECT_GT(result["lm_head_bytes"].get<double>(), 0);
  ASSERT_EQ(result["rows"].size(), 4u);
  for (const Json& row : result["rows"]) {
    EXPECT_GT(row["prefill_tokens_per_second"].get<double>(), 0.0);
    const double steps = row["decode_tokens_per_second"].get<double>() / row["batch_size"].get<double>();
    EXPECT_NEAR(row["weight_bytes_per_second"].get<double>() / row["weight_bytes_per_step"].get<double>(),
                steps, 1e-6 * steps);
    EXPECT_GT(row["memory"].get<uint64_t>(), row["weight_bytes_per_step"].get<uint64_t>() / 2);
  }
  const auto usual =
      run_salient({"bench", kModel, "--decode-length", "450", "--repeat", "1", "--no-fuse-layers", "--json"});
  ASSERT_EQ(usual.status, 0) << usual.errors;
  EXPECT_EQ(parse_json(usual.output, "usual")["fuse_layers"], false);
  EXPECT_EQ(parse_json(usual.output, "result")["rows"][1]["prefill_length"], 512 - 450);
  EXPECT_EQ(result["rows"][3]["batch_size"], 3);
  EXPECT_EQ(result["rows"][3]["prefill_length"], 16);
}

/// The weights of so small a shape stay in a cache, of which the share of the bandwidth is then one.
TEST_F(CommandLine, BenchMeasuresAndChecksKernels) {
  std::vector<std::string> command{"bench",  "--kernels", "--shape",      "48x256", "--shape",  "20x64",
                                   "--rows", "1,3,9",     "--group-size", "32",     "--repeat", "1"};
  const auto table = run_salient(command);
  ASSERT_EQ(table.status, 0) << table.errors;
  EXPECT_THAT(table.output, AllOf(HasSubstr("48x256"), HasSubstr("20x64"), HasSubstr("same bytes")));
  EXPECT_THAT(table.output, Not(HasSubstr("WRONG")));
  command.insert(command.end(), {"--json", "--isa", "portable"});
  const auto measured = run_salient(command);
  ASSERT_EQ(measured.status, 0) << measured.errors;
  const Json result = parse_json(measured.output, "result");
  EXPECT_EQ(result["group_size"], 32);
  ASSERT_EQ(result["rows"].size(), 2u * 3 * 3) << "shapes, modes, rows";
  for (const Json& row : result["rows"]) {
    EXPECT_EQ(row["correct"], true);
    EXPECT_EQ(row["isa"], "portable");
    const double operations =
        2.0 * row["rows"].get<double>() * row["outputs"].get<double>() * row["inputs"].get<double>();
    EXPECT_NEAR(row["operations_per_second"].get<double>() * row["seconds"].get<double>(), operations, 1e-3);
    EXPECT_GT(row["times_portable"].get<double>(), 0.0);
  }
  EXPECT_GT(result["rows"][0]["weight_bytes"].get<double>(), 48 * 256 / 2);
}

/// The formats differ only in the type of the scales, bf16 against f16.
TEST_F(CommandLine, BothFormatsPredictAlmostTheSame) {
  std::vector<double> perplexities;
  for (const std::string format : {"pack-quantized", "autoawq-gemm"}) {
    ASSERT_EQ(run_salient(quantize({"--method", "rtn", "--format", format, "--overwrite"})).status, 0);
    const auto evaluated = run_salient({"eval", out(), "--text", kDemo + "/evaluation.txt", "--window", "128",
                                        "--max-windows", "16", "--json"});
    ASSERT_EQ(evaluated.status, 0) << evaluated.errors;
    perplexities.push_back(parse_json(evaluated.output, "result")["perplexity"].get<double>());
  }
  EXPECT_NEAR(perplexities[0] / perplexities[1], 1.0, 0.01);
}

TEST_F(CommandLine, InspectDescribesDenseAndQuantizedModels) {
  const auto dense = run_salient({"inspect", kModel, "--json"});
  ASSERT_EQ(dense.status, 0) << dense.errors;
  const Json json = parse_json(dense.output, "inspect");
  EXPECT_EQ(json["architecture"], "LlamaForCausalLM");
  EXPECT_TRUE(json["quantization"].is_null());
  ASSERT_EQ(run_salient(quantize({"--method", "rtn"})).status, 0);
  const auto text = run_salient({"inspect", out(), "--tensors"});
  EXPECT_THAT(text.output,
              AllOf(HasSubstr("pack-quantized: int4 asymmetric, group 128"), HasSubstr("weight_packed")));
}

TEST_F(CommandLine, DryRunPrintsThePlanAndWritesNothing) {
  const auto plan = run_salient(quantize({"--dry-run", "--ignore", "lm_head", "--ignore", "re:.*v_proj$"}));
  ASSERT_EQ(plan.status, 0) << plan.errors;
  EXPECT_THAT(plan.output, AllOf(HasSubstr("input_layernorm -> q_proj, k_proj, v_proj"), HasSubstr("memory"),
                                 HasSubstr("model.layers.0.self_attn.v_proj"), HasSubstr("512 tokens")));
  EXPECT_TRUE(left_behind().empty());
  const auto json = run_salient(quantize({"--dry-run", "--json"}));
  EXPECT_EQ(parse_json(json.output, "plan")["calibration_tokens"], 512);
  // What the run itself would refuse.
  fs::create_directory(out());
  const auto refused = run_salient(quantize({"--dry-run"}));
  EXPECT_EQ(refused.status, 2);
  EXPECT_EQ(refused.errors, run_salient(quantize({})).errors);
  EXPECT_EQ(run_salient(quantize({"--dry-run", "--overwrite"})).status, 0);
  fs::create_directories(out("work") + "/other");
  EXPECT_THAT(run_salient(quantize({"--dry-run", "--overwrite", "--work", out("work")})).errors,
              HasSubstr("the work directory is not empty"));
}

TEST_F(CommandLine, EffortStandsForWhatIsNotSaid) {
  const auto method = [&](const std::vector<std::string>& flags) {
    std::vector<std::string> arguments{"--dry-run", "--json"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    const auto plan = run_salient(quantize(arguments));
    EXPECT_EQ(plan.status, 0) << plan.errors;
    return parse_json(plan.output, "plan")["method"].get<std::string>();
  };
  EXPECT_THAT(method({"--effort", "fast"}), AllOf(HasSubstr("nearest"), HasSubstr("sees original")));
  EXPECT_THAT(method({}), AllOf(HasSubstr("compensated"), HasSubstr("sees quantized")));
  EXPECT_THAT(method({"--effort", "best"}), HasSubstr("rounding matched, 2 sweeps"));
  EXPECT_THAT(method({"--sweeps", "5"}), HasSubstr("rounding compensated, 5 sweeps"));
  EXPECT_THAT(method({"--sweeps", "0"}), HasSubstr("rounding compensated, next layer"));
  EXPECT_THAT(method({"--effort", "best", "--rounding", "nearest"}),
              HasSubstr("rounding nearest, next layer"));
  EXPECT_THAT(method({"--objective", "block_output"}), HasSubstr("by block_output"));
}

TEST_F(CommandLine, ScaledOnlyLeavesTheWeightsDense) {
  const auto plan = run_salient(quantize({"--scaled-only", "--dry-run", "--json"}));
  ASSERT_EQ(plan.status, 0) << plan.errors;
  const Json planned = parse_json(plan.output, "plan");
  EXPECT_EQ(planned["result"], "scaled");
  EXPECT_TRUE(planned["format"].is_null());
  EXPECT_EQ(planned["bytes_after"], planned["bytes_before"]);
  const auto scaled = run_salient(quantize({"--scaled-only", "--json"}));
  ASSERT_EQ(scaled.status, 0) << scaled.errors;
  const Json report = parse_json(scaled.output, "report");
  EXPECT_EQ(report["result"], "scaled");
  EXPECT_EQ(report["quantized_linears"], 0);
  EXPECT_EQ(report["bytes_after"], report["bytes_before"]);
  EXPECT_EQ(Checkpoint(out()).config(), Checkpoint(kModel).config());
  EXPECT_THAT(run_salient(quantize({"--scaled-only", "--format", "autoawq-gemm", "--overwrite"})).errors,
              HasSubstr("the format autoawq-gemm is for integers, but the result is scaled"));
  EXPECT_THAT(run_salient(quantize({"--scaled-only", "--rounding", "compensated", "--overwrite"})).errors,
              HasSubstr("the rounding compensated is for integers, but the result is scaled"));
  EXPECT_THAT(run_salient(quantize({"--scaled-only", "--method", "rtn", "--overwrite"})).errors,
              HasSubstr("scaled weights come from AWQ"));
}

TEST_F(CommandLine, ARecipeSaysWhatFlagsSayAndItsRecordGivesTheSameWeights) {
  const std::string recipe = out("awq.yaml");
  write_file_atomically(recipe, R"(
default_stage:
  default_modifiers:
    AWQModifier:
      duo_scaling: both
      n_grid: 6
      mappings:
      - {smooth_layer: 're:.*input_layernorm$', balance_layers: ['re:.*q_proj$', 're:.*k_proj$', 're:.*v_proj$']}
    QuantizationModifier:
      ignore: [lm_head]
      config_groups:
        group_0: {targets: [Linear], weights: {num_bits: 4, symmetric: false, group_size: 64}}
        group_1: {targets: ['re:.*down_proj$'], weights: {num_bits: 8, group_size: 128}}
)");
  const auto plan = run_salient(quantize({"--recipe", recipe, "--dry-run"}));
  ASSERT_EQ(plan.status, 0) << plan.errors;
  EXPECT_THAT(plan.output,
              AllOf(HasSubstr("layers 0-3"), HasSubstr("duo_scaling both, 6 candidates by linear_output"),
                    HasSubstr("smooth  input_layernorm -> q_proj, k_proj, v_proj"),
                    HasSubstr("int8 symmetric, group 128, strongest columns first (group_1: "
                              "\"re:.*down_proj$\")  mlp.down_proj"),
                    HasSubstr("lm_head  (ignore: \"lm_head\")")));
  EXPECT_THAT(plan.output, ::testing::Not(HasSubstr("v_proj -> o_proj")));
  ASSERT_EQ(run_salient(quantize({"--recipe", recipe})).status, 0);
  const auto again = run_salient({"quantize", kModel, "-o", out("again"), "--data",
                                  kDemo + "/calibration.txt", "--recipe", out() + "/recipe.yaml"});
  ASSERT_EQ(again.status, 0) << again.errors;
  EXPECT_EQ(read_text_file(out() + "/model.safetensors"),
            read_text_file(out("again") + "/model.safetensors"));
  EXPECT_EQ(read_text_file(out() + "/recipe.yaml"), read_text_file(out("again") + "/recipe.yaml"));
  const auto inspected = run_salient({"inspect", out()});
  EXPECT_THAT(inspected.output, HasSubstr("int8 symmetric, group 128 (group_1: re:.*down_proj$)"));
  const auto evaluated = run_salient({"eval", out(), "--text", kDemo + "/evaluation.txt", "--window", "128",
                                      "--max-windows", "8", "--json"});
  ASSERT_EQ(evaluated.status, 0) << evaluated.errors;
  EXPECT_LT(parse_json(evaluated.output, "result")["perplexity"].get<double>(), 4.0);
}

/// A model with experts, the tokenizer of the demo model, and one layer.
double peak_memory_with_experts(const std::string& model, const std::string& output, int64_t experts) {
  TinyModel{.architecture = "Qwen3MoeForCausalLM",
            .extra = {{"vocab_size", 3072},
                      {"hidden_size", 256},
                      {"num_hidden_layers", 1},
                      {"num_experts", experts},
                      {"num_experts_per_tok", 2},
                      {"moe_intermediate_size", 512}}}
      .write(model);
  fs::copy_file(kModel + "/tokenizer.json", model + "/tokenizer.json");
  const auto run = run_salient({"quantize", model, "-o", output, "--data", kDemo + "/calibration.txt",
                                "--num-calibration-samples", "2", "--max-seq-length", "64", "--json"});
  EXPECT_EQ(run.status, 0) << run.errors;
  return parse_json(run.output, "report")["peak_memory"].get<double>();
}

/// Every expert adds its stored weights, which are mapped, and its codes; as f32 there is never more than
/// one.
TEST_F(CommandLine, ExpertsAreWorkedOnOneByOne) {
  if (kSanitized) GTEST_SKIP() << "sanitizers keep memory for themselves";
  const double few = peak_memory_with_experts(out("few"), out("few-quantized"), 8);
  const double many = peak_memory_with_experts(out("many"), out("many-quantized"), 56);
  const double elements = 3.0 * 256 * 512;
  EXPECT_LT((many - few) / 48, elements * (2 + 0.6) * 1.3);  // bf16 and codes; f32 would be 4 more
}

TEST_F(CommandLine, InspectListsTheMappings) {
  const auto text = run_salient({"inspect", kModel, "--mappings"});
  ASSERT_EQ(text.status, 0) << text.errors;
  EXPECT_THAT(text.output, AllOf(HasSubstr("layers 0-3"), HasSubstr("smooth  up_proj -> down_proj")));
  const auto json = run_salient({"inspect", kModel, "--mappings", "--json"});
  const Json mappings = parse_json(json.output, "inspect")["mappings"];
  ASSERT_EQ(mappings.size(), 4u);
  EXPECT_EQ(mappings[3][3]["smooth_layer"], "model.layers.3.mlp.up_proj");
  EXPECT_EQ(mappings[3][3]["balance_layers"], Json::array({"model.layers.3.mlp.down_proj"}));
}

TEST_F(CommandLine, AnExistingOutputIsKeptUnlessAskedOtherwise) {
  fs::create_directory(out());
  const auto refused = run_salient(quantize({"--method", "rtn"}));
  EXPECT_EQ(refused.status, 2);
  EXPECT_THAT(refused.errors, HasSubstr("exists already"));
  EXPECT_EQ(run_salient(quantize({"--method", "rtn", "--overwrite"})).status, 0);
}

TEST_F(CommandLine, AQuantizedModelIsNotQuantizedAgain) {
  ASSERT_EQ(run_salient(quantize({"--method", "rtn"})).status, 0);
  const auto again = run_salient({"quantize", out(), "-o", out("twice"), "--method", "rtn"});
  EXPECT_EQ(again.status, 2);
  EXPECT_THAT(again.errors, HasSubstr("already quantized"));
}

/// Waits until a running quantization has reported its first layer.
void wait_for_first_layer(const Program& program) {
  for (int i = 0; i < 3000 && program.errors_so_far().find("1/4 layers") == std::string::npos; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  ASSERT_THAT(program.errors_so_far(), HasSubstr("1/4 layers"));
}

TEST_F(CommandLine, CtrlCAndTermLeaveNothingBehind) {
  for (const int signal : {SIGINT, SIGTERM}) {
    const Program program(quantize({"--n-grid", "1000"}, "64"));
    ASSERT_NO_FATAL_FAILURE(wait_for_first_layer(program));
    program.send(signal);
    const auto result = program.wait();
    EXPECT_EQ(result.status, 130);
    EXPECT_THAT(result.errors, HasSubstr("stopped on request; nothing is left of " + out()));
    EXPECT_TRUE(left_behind().empty());
  }
}

/// Two runs to one output: the second is refused, the first does not notice. What a killed one leaves is in
/// nobody's way.
TEST_F(CommandLine, OneRunWritesToAnOutput) {
  const Program first(quantize({"--n-grid", "1000"}, "64"));
  ASSERT_NO_FATAL_FAILURE(wait_for_first_layer(first));
  for (const std::string flag : {"--shuffle", "--overwrite"}) {
    const auto second = run_salient(quantize({flag}));
    EXPECT_EQ(second.status, 2);
    EXPECT_THAT(second.errors, HasSubstr(out() + ": another process is writing to this output"));
  }
  EXPECT_EQ(left_behind().size(), 2u);  // the directory of the first, and its lock
  first.send(SIGKILL);
  first.wait();
  EXPECT_EQ(left_behind().size(), 2u);
  const auto third = run_salient(quantize({}));
  EXPECT_EQ(third.status, 0) << third.errors;
  EXPECT_EQ(left_behind(), std::vector<std::string>{"quantized"});
}

TEST_F(CommandLine, ABurstOfSignalsIsOneRequest) {
  const Program program(quantize({"--n-grid", "1000"}, "64"));
  ASSERT_NO_FATAL_FAILURE(wait_for_first_layer(program));
  for (int i = 0; i < 5; ++i) program.send(i % 2 == 0 ? SIGINT : SIGTERM);
  EXPECT_EQ(program.wait().status, 130);
  EXPECT_TRUE(left_behind().empty());
}

TEST_F(CommandLine, OverwriteRemovesNothingButAModel) {
  fs::copy(kModel, out("model"), fs::copy_options::recursive);
  const auto overwrite = [&](const std::string& target) {
    return run_salient({"quantize", out("model"), "-o", target, "--overwrite", "--method", "rtn"});
  };
  EXPECT_THAT(overwrite(out("model")).errors, HasSubstr("would remove the input"));
  EXPECT_THAT(overwrite(scratch_.path().string()).errors, HasSubstr("would remove the input"));
  fs::create_directory(out("other"));
  write_file_atomically(out("other") + "/thesis.txt", "years of work");
  EXPECT_THAT(overwrite(out("other")).errors, HasSubstr("neither empty nor a model directory"));
  EXPECT_TRUE(fs::exists(out("other") + "/thesis.txt"));
  write_file_atomically(out("file"), "");
  EXPECT_THAT(overwrite(out("file")).errors, HasSubstr("neither empty nor a model directory"));
  EXPECT_TRUE(fs::exists(out("model") + "/config.json"));
}

/// kill -9 at any moment, again and again: what comes out in the end is what an undisturbed run writes.
TEST_F(CommandLine, AKilledJobGoesOnToTheSameBytes) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  ASSERT_EQ(run_salient(quantize({"--n-grid", "200"}, "16")).status, 0);
  const auto duration = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start);
  fs::rename(out(), out("undisturbed"));
  const std::vector<std::string> arguments =
      quantize({"--n-grid", "200", "--work", out("work"), "--resume", "--json"}, "16");
  std::mt19937 random(11);
  int killed = 0;
  for (int i = 0; i < 8; ++i) {
    const Program program(arguments);
    std::this_thread::sleep_for(duration * (10 + random() % 70) / 100);
    program.send(SIGKILL);
    const auto result = program.wait();
    if (result.status == 0) break;
    ++killed;
    EXPECT_EQ(result.status, 128 + SIGKILL) << result.errors;
    EXPECT_FALSE(fs::exists(out()));
  }
  EXPECT_GE(killed, 1);
  if (!fs::exists(out())) {
    const auto result = run_salient(arguments);
    ASSERT_EQ(result.status, 0) << result.errors;
    const Json report = parse_json(result.output, "report");
    EXPECT_EQ(report["layers"].size(), 4u);
    if (report["resumed_layers"] > 0) {
      EXPECT_THAT(result.errors, HasSubstr("read from the work directory"));
    }
  }
  for (const std::string name : {"model.safetensors", "config.json", "recipe.yaml"})
    EXPECT_EQ(read_text_file(out() + "/" + name), read_text_file(out("undisturbed") + "/" + name)) << name;
  EXPECT_FALSE(fs::exists(out("work")));
}

TEST_F(CommandLine, AnInterruptedJobTellsWhatItGoesOnWith) {
  const std::vector<std::string> arguments = quantize({"--n-grid", "1000", "--work", out("work")}, "64");
  const Program program(arguments);
  ASSERT_NO_FATAL_FAILURE(wait_for_first_layer(program));
  program.send(SIGINT);
  const auto stopped = program.wait();
  EXPECT_EQ(stopped.status, 130);
  EXPECT_THAT(stopped.errors, HasSubstr("stopped on request; finished layers are kept in " + out("work") +
                                        ": the same command with --resume goes on"));
  const auto again = run_salient(arguments);
  EXPECT_EQ(again.status, 2);
  EXPECT_THAT(again.errors, HasSubstr("the work directory is not empty"));
  const auto other = run_salient(quantize({"--n-grid", "2", "--work", out("work"), "--resume"}, "64"));
  EXPECT_EQ(other.status, 2);
  EXPECT_THAT(other.errors, HasSubstr("the work directory holds another job: the recipe changed"));
  // Layers that were read say nothing about how long the others take.
  std::vector<std::string> going_on = arguments;
  going_on.emplace_back("--resume");
  const auto resumed = run_salient(going_on);
  EXPECT_EQ(resumed.status, 0) << resumed.errors;
  EXPECT_THAT(resumed.errors,
              testing::ContainsRegex("1/4 layers: read from the work directory, [^\n]* elapsed\n"));
  EXPECT_THAT(resumed.errors, testing::ContainsRegex("4/4 layers: [^\n]*, 0.0 s left\n"));
}

TEST_F(CommandLine, AKilledJobLeavesNoDirectoryThatLooksFinished) {
  const Program program(quantize({"--n-grid", "1000"}, "64"));
  ASSERT_NO_FATAL_FAILURE(wait_for_first_layer(program));
  program.send(SIGKILL);
  EXPECT_EQ(program.wait().status, 128 + SIGKILL);
  EXPECT_FALSE(fs::exists(out()));
  for (const auto& name : left_behind()) {
    EXPECT_THAT(name, AllOf(::testing::StartsWith("."), HasSubstr("partial")));
    if (name.ends_with(".lock")) continue;
    EXPECT_FALSE(fs::exists(scratch_.path() / name / "config.json"));
  }
}

}  // namespace
}  // namespace salient
