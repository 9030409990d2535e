#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/json.h"
#include "checkpoint/checkpoint_writer.h"
#include "cli/commands.h"
#include "cli/evaluation.h"
#include "cli/flag_errors.h"
#include "cli/plan_report.h"
#include "cli/run_report.h"
#include "cli/terminal.h"
#include "quant/scheme.h"
#include "recipe/calibration_data.h"
#include "recipe/effort.h"
#include "recipe/recipe_fields.h"
#include "recipe/report_json.h"
#include "salient/oneshot.h"

namespace salient::cli {
namespace {

/// What flags say, apart from `options` until it is known what the recipe says: a flag counts more.
struct QuantizeArguments {
  OneshotOptions options;
  std::string recipe;
  std::vector<std::string> ignore;
  std::string method = "awq";
  std::string duo_scaling = "true";
  std::optional<std::string> rounding;
  std::optional<int> sweeps;
  std::optional<std::string> objective;
  std::optional<std::string> effort;
  std::optional<double> target_bits;
  int n_grid = 20;
  bool no_clip = false;
  std::optional<std::string> format;
  std::optional<std::string> propagation;
  std::optional<std::string> precision;
  std::optional<std::string> experts;
  std::vector<std::string> data;
  std::vector<std::string> text_columns;
  std::optional<bool> concatenate_data;
  bool shuffle = false;
  std::optional<int64_t> seed;
  std::optional<int64_t> num_samples;
  std::optional<int64_t> max_seq_length;
  std::string shard_size = "5GB";
  std::optional<std::string> max_memory;
  bool scaled_only = false;
  bool dry_run = false;
  bool json = false;
  std::vector<std::string> reports;
  EvaluationArguments evaluation;
};

/// The value that goes by `name`; `words` are those of all values, in their order.
template <typename Value>
Value value_by_name(std::span<const std::string_view> words, std::string_view name) {
  return static_cast<Value>(std::ranges::find(words, name) - words.begin());
}

CLI::IsMember one_of(std::span<const std::string_view> words) {
  return CLI::IsMember(std::vector<std::string>(words.begin(), words.end()));
}

/// Flags that say what a recipe says.
constexpr const char* kRecipeFlags[] = {"--scheme",      "--group-size", "--ignore",  "--method",
                                        "--duo-scaling", "--n-grid",     "--no-clip", "--rounding",
                                        "--target-bits", "--objective",  "--sweeps"};

constexpr const char* kTextColumn = "--text-column";

/// Flags that say what AWQ does, and how its data is read. --data itself and its sizes may stand beside
/// --method rtn, so that the two methods are compared by a change of one word.
constexpr const char* kAwqFlags[] = {"--effort",  "--rounding",         "--objective",     "--n-grid",
                                     "--no-clip", "--duo-scaling",      "--propagation",   "--precision",
                                     "--shuffle", "--concatenate-data", "--moe-calibrate", "--seed",
                                     "--sweeps",  kTextColumn};

void refuse_awq_flags(const CLI::App& command) {
  for (const char* flag : kAwqFlags) {
    if (command.count(flag) == 0) continue;
    // The text to measure on may have columns all the same.
    if (flag == kTextColumn && command.count("--eval") > 0) continue;
    fail(ErrorKind::invalid_argument,
         "{} is for AWQ, but stands beside --method rtn, which searches nothing and reads no data; leave one "
         "of the two out",
         flag);
  }
}

void take_recipe(const CLI::App& command, QuantizeArguments& arguments) {
  for (const char* flag : kRecipeFlags) {
    if (command.count(flag) > 0) {
      fail(ErrorKind::invalid_argument, "{} stands beside --recipe, which says that; write it there", flag);
    }
  }
  read_recipe_file(arguments.recipe, arguments.options);
}

void take_recipe_flags(const CLI::App& command, QuantizeArguments& arguments) {
  OneshotOptions& options = arguments.options;
  std::vector<std::string>& ignore = options.recipe.quantization.ignore;
  ignore.insert(ignore.end(), arguments.ignore.begin(), arguments.ignore.end());
  options.target_bits = arguments.target_bits;
  if (arguments.method == "rtn") {
    refuse_awq_flags(command);
    options.recipe.awq.reset();
    return;
  }
  AwqModifier& awq = options.recipe.awq.emplace();
  awq.n_grid = arguments.n_grid;
  awq.clip = arguments.no_clip ? ClipSearch::off : ClipSearch::on;
  if (arguments.objective) awq.objective = value_by_name<Objective>(kObjectiveWords, *arguments.objective);
  if (arguments.duo_scaling == "false") awq.duo_scaling = DuoScaling::off;
  if (arguments.duo_scaling == "both") awq.duo_scaling = DuoScaling::both;
}

/// Whether a file has columns: the lines of the one, the elements of the other.
bool has_columns(std::string_view file) { return file.ends_with(".jsonl") || file.ends_with(".json"); }

/// `readers`: all files that one column is for.
void require_columns(const std::string& column, std::span<const std::string> readers) {
  if (std::ranges::any_of(readers, has_columns)) return;
  fail(ErrorKind::invalid_argument, "--text-column {}: there is no .jsonl file to read it from{}{}", column,
       readers.empty() ? "" : ", but ", fmt::join(readers, ", "));
}

/// A column that nothing is read from is a mistake. Beside others each data set must have one; then a file
/// without columns has the one that is the default.
void check_text_columns(const QuantizeArguments& arguments) {
  const std::vector<std::string>& columns = arguments.text_columns;
  const std::string& evaluation = arguments.evaluation.text;
  std::vector<std::string> files;
  for (const CalibrationDataset& dataset : arguments.options.calibration.datasets)
    files.push_back(dataset.data);
  if (columns.size() == 1 && !evaluation.empty()) files.push_back(evaluation);
  if (columns.size() == 1) return require_columns(columns.front(), files);
  for (size_t i = 0; i < columns.size(); ++i) {
    if (columns[i] != CalibrationOptions().text_column) require_columns(columns[i], {&files[i], 1});
  }
}

/// One column for all data sets, or one for each.
void take_text_columns(const std::vector<std::string>& columns, CalibrationOptions& calibration) {
  if (columns.empty()) return;
  if (columns.size() == 1) {
    calibration.text_column = columns.front();
    for (CalibrationDataset& dataset : calibration.datasets) dataset.text_column.clear();
    return;
  }
  if (columns.size() != calibration.datasets.size()) {
    fail(ErrorKind::invalid_argument,
         "--text-column stands there {} times, --data {} times; give one column for all, or one for each",
         columns.size(), calibration.datasets.size());
  }
  for (size_t i = 0; i < columns.size(); ++i) calibration.datasets[i].text_column = columns[i];
}

void take_data_flags(const QuantizeArguments& arguments, CalibrationOptions& calibration) {
  if (!arguments.data.empty()) calibration.datasets.clear();
  for (const std::string& data : arguments.data) calibration.datasets.push_back(parse_dataset(data));
  take_text_columns(arguments.text_columns, calibration);
  check_text_columns(arguments);
  if (arguments.concatenate_data) {
    calibration.documents =
        *arguments.concatenate_data ? DocumentPolicy::concatenate : DocumentPolicy::truncate;
  }
  if (arguments.shuffle) calibration.shuffle = true;
  if (arguments.seed) calibration.seed = *arguments.seed;
}

void take_calibration_flags(const QuantizeArguments& arguments, CalibrationOptions& calibration) {
  take_data_flags(arguments, calibration);
  if (arguments.num_samples) calibration.num_samples = *arguments.num_samples;
  if (arguments.max_seq_length) calibration.max_seq_length = *arguments.max_seq_length;
  if (arguments.propagation) {
    calibration.propagation =
        *arguments.propagation == "original" ? Propagation::original : Propagation::quantized;
  }
  if (arguments.precision) {
    calibration.precision =
        *arguments.precision == "f32" ? CalibrationPrecision::f32 : CalibrationPrecision::automatic;
  }
  if (arguments.experts) {
    calibration.experts = *arguments.experts == "routed" ? ExpertCalibration::routed : ExpertCalibration::all;
  }
}

/// --rounding and --propagation are taken behind it: beside them, other than beside a recipe, an effort says
/// the rest.
void take_effort_flags(QuantizeArguments& arguments) {
  OneshotOptions& options = arguments.options;
  if (arguments.effort) {
    const bool says_sweeps = arguments.sweeps || arguments.rounding == "nearest";
    if (arguments.rounding && arguments.propagation && says_sweeps) {
      fail(ErrorKind::invalid_argument,
           "--effort stands beside --rounding{} --propagation, which leave nothing to it; leave it out",
           arguments.sweeps ? ", --sweeps and" : " and");
    }
    take_effort("--effort", value_by_name<Effort>(kEffortWords, *arguments.effort), options);
  }
  if (arguments.rounding) {
    options.recipe.awq->rounding = value_by_name<Rounding>(kRoundingWords, *arguments.rounding);
  }
  if (arguments.sweeps) options.recipe.awq->sweeps = *arguments.sweeps;
}

void finish_options(const CLI::App& command, QuantizeArguments& arguments) {
  OneshotOptions& options = arguments.options;
  if (arguments.recipe.empty()) {
    take_recipe_flags(command, arguments);
  } else {
    take_recipe(command, arguments);
  }
  if (arguments.format) options.format = format_by_name(*arguments.format);
  if (arguments.scaled_only) options.result = OneshotResult::scaled;
  take_effort_flags(arguments);
  take_calibration_flags(arguments, options.calibration);
  options.shard_size = with_context("--shard-size", [&] { return parse_byte_size(arguments.shard_size); });
  if (arguments.max_memory)
    options.max_memory = with_context("--max-memory", [&] { return parse_byte_size(*arguments.max_memory); });
}

double total_loss(const LayerReport& layer, double MappingReport::*member) {
  double sum = 0;
  for (const auto& mapping : layer.mappings) sum += mapping.*member;
  return sum;
}

void show_progress(StatusLine& status, const Progress& progress) {
  const auto& layer = progress.layer;
  std::string loss = progress.resumed ? "read from the work directory, " : "";
  if (!layer.mappings.empty()) {
    loss += fmt::format("loss {:.3e} -> {:.3e}, ", total_loss(layer, &MappingReport::loss_before),
                        total_loss(layer, &MappingReport::loss_after));
  }
  status.update(fmt::format(
      "{}{}/{} layers: {}{} elapsed{}",
      status.bar(static_cast<double>(progress.layers_done) / static_cast<double>(progress.layers)),
      progress.layers_done, progress.layers, loss, format_duration(progress.elapsed_seconds),
      std::isnan(progress.remaining_seconds)
          ? ""
          : fmt::format(", {} left", format_duration(progress.remaining_seconds))));
}

void show_sampling(StatusLine& status, const SamplingProgress& progress) {
  const double fraction = static_cast<double>(progress.tokens_done) / static_cast<double>(progress.tokens);
  // Elsewhere than on a terminal each update is a line of its own.
  if (!status.is_terminal() && progress.tokens_done < progress.tokens) return;
  status.update(fmt::format("{}sampling: {} of {} tokens, {} elapsed, {} left", status.bar(fraction),
                            progress.tokens_done, progress.tokens, format_duration(progress.elapsed_seconds),
                            format_duration(progress.elapsed_seconds / fraction * (1 - fraction))));
}

/// `options` must not be used when `status` is gone.
void show_measuring(StatusLine& status, OneshotOptions& options) {
  options.on_measured = [&status](int64_t done, int64_t layers) {
    status.update(fmt::format("{}numbers of bits: {}/{} layers measured",
                              status.bar(static_cast<double>(done) / static_cast<double>(layers)), done,
                              layers));
  };
}

void print_report(const OneshotReport& report, const std::string& output) {
  double equivalence = 0;
  int64_t mappings = 0;
  int64_t left_alone = 0;
  size_t pooled = 0;
  for (const auto& layer : report.layers) {
    pooled += layer.pooled_experts.size();
    equivalence = std::max(equivalence, layer.equivalence_error);
    for (const auto& mapping : layer.mappings) {
      ++mappings;
      if (mapping.left_alone) ++left_alone;
    }
  }
  const double ratio = static_cast<double>(report.bytes_before) / static_cast<double>(report.bytes_after);
  const bool scaled = report.result == OneshotResult::scaled;
  std::vector<std::pair<std::string, std::string>> rows{
      {"output", output},
      {"quantized", scaled ? "nothing; the weights are scaled for another program to round"
                           : fmt::format("{} linears", report.quantized_linears)},
      {"size", fmt::format("{} -> {}{}", format_bytes(report.bytes_before), format_bytes(report.bytes_after),
                           scaled ? "" : fmt::format(" ({:.2f}x smaller)", ratio))}};
  if (report.bits) rows.emplace_back("bits", bits_text(*report.bits));
  if (mappings > 0) {
    rows.emplace_back("mappings",
                      fmt::format("{} smoothed, {} left alone", mappings - left_alone, left_alone));
    rows.emplace_back(
        "equivalence",
        fmt::format("{:.1e} largest change of a layer before rounding (limit 1e-3)", equivalence));
  }
  if (pooled > 0) {
    rows.emplace_back(
        "experts",
        fmt::format("{} saw too few tokens and took the statistics of all tokens (--json names them)",
                    pooled));
  }
  if (report.resumed_layers > 0) {
    rows.emplace_back("resumed", fmt::format("{} of {} layers were read from the work directory",
                                             report.resumed_layers, report.layers.size()));
  }
  rows.emplace_back("wall time", format_duration(report.seconds));
  std::string peak = format_bytes(report.peak_memory);
  if (report.gram_block > 0)
    peak += fmt::format(", Gram matrices in blocks of {} columns", report.gram_block);
  rows.emplace_back("peak memory", peak);
  print_table(rows);
  print_losses(report);
  for (const auto& warning : report.warnings) fmt::print("Warning: {}\n", warning);
}

/// A mistake in the text to measure on shows before the work, not after it.
void check_evaluation(QuantizeArguments& arguments) {
  EvaluationArguments& evaluation = arguments.evaluation;
  if (evaluation.text.empty()) return;
  evaluation.model = arguments.options.model;
  evaluation.text_column = arguments.text_columns.empty() ? arguments.options.calibration.text_column
                                                          : arguments.text_columns.front();
  evaluation_windows(evaluation, ModelWeights(evaluation.model));
}

/// `body`, with `what_is_left` behind the message of a stop on request.
template <typename Body>
void tell_when_stopped(const std::string& what_is_left, Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::cancelled) throw;
    fail(ErrorKind::cancelled, "{}; {}", error.what(), what_is_left);
  }
}

std::string left_by(const OneshotOptions& options) {
  if (options.work.empty()) return fmt::format("nothing is left of {}", options.output);
  return fmt::format("finished layers are kept in {}: the same command {} goes on behind them", options.work,
                     options.resume ? "as it is" : "with --resume");
}

void show_plan(QuantizeArguments& arguments) {
  OneshotOptions& options = arguments.options;
  if (!arguments.reports.empty())
    fail(ErrorKind::invalid_argument, "--report stands beside --dry-run, which has no run to report");
  check_output(options);
  OneshotPlan plan;
  {
    StatusLine status;
    show_measuring(status, options);
    plan = plan_oneshot(options);
  }
  if (arguments.json) fmt::print("{}\n", to_json(plan, options).dump(2));
  if (!arguments.json) print_plan(plan, options);
}

OneshotReport quantize_with_progress(OneshotOptions& options) {
  OneshotReport report;
  StatusLine status;
  options.on_progress = [&](const Progress& progress) { show_progress(status, progress); };
  options.on_note = print_note;
  options.on_sampling = [&](const SamplingProgress& progress) { show_sampling(status, progress); };
  show_measuring(status, options);
  tell_when_stopped(left_by(options), [&] { report = oneshot(options); });
  return report;
}

void run_quantize(const CLI::App& command, QuantizeArguments& arguments) {
  finish_options(command, arguments);
  OneshotOptions& options = arguments.options;
  options.cancelled = &interrupted();
  check_evaluation(arguments);
  if (arguments.dry_run) return show_plan(arguments);
  check_report_files(arguments.reports, options);
  const OneshotReport report = quantize_with_progress(options);
  Json json = to_json(report);
  write_report_files(arguments.reports, json);
  if (!arguments.json) print_report(report, options.output);
  if (!arguments.evaluation.text.empty()) {
    arguments.evaluation.model = options.output;
    arguments.evaluation.against = options.model;
    EvaluationResult result;
    tell_when_stopped(fmt::format("{} is complete, but not measured", options.output),
                      [&] { result = evaluate(arguments.evaluation); });
    json["evaluation"] = cli::to_json(result);
    write_report_files(arguments.reports, json);
    if (!arguments.json) print_evaluation(result);
  }
  if (arguments.json) fmt::print("{}\n", json_text(json));
}

void add_data_options(CLI::App& command, QuantizeArguments& arguments) {
  command
      .add_option(
          "--data", arguments.data,
          "Calibration data: .txt, .jsonl (a text column, or input_ids), .json (lists of token ids), or "
          "self: text that the model makes up. Repeated, data sets are mixed; FILE:0.7 gives a weight")
      ->allow_extra_args(false);
  command
      .add_option("--text-column", arguments.text_columns,
                  "Column of .jsonl files (default: text); once for all, or once for each --data")
      ->allow_extra_args(false);
  command.add_option("--concatenate-data", arguments.concatenate_data,
                     "true: documents are joined and cut into windows (default for texts), false: each is a "
                     "sequence, cut to --max-seq-length");
  command.add_flag("--shuffle", arguments.shuffle, "Take windows or documents in random order");
  command.add_option("--seed", arguments.seed, "Of --shuffle and of self (default 42)")
      ->check(CLI::Range(int64_t{0}, std::numeric_limits<int64_t>::max()));
  command
      .add_option("--num-calibration-samples,--max-calib-samples", arguments.num_samples,
                  "Sequences to use at most (default 128)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40));
  command
      .add_option("--max-seq-length,--max-calib-seq-len", arguments.max_seq_length,
                  "Tokens per sequence (default 512)")
      ->check(CLI::Range(1, 1 << 20));
}

void add_search_options(CLI::App& command, QuantizeArguments& arguments) {
  command.add_option("--duo-scaling", arguments.duo_scaling, "true (default), false or both")
      ->check(CLI::IsMember({"true", "false", "both"}));
  command
      .add_option("--effort", arguments.effort,
                  "What is done for accuracy: fast, default or best; stands for --rounding, --sweeps and "
                  "--propagation where they are not given")
      ->check(one_of(kEffortWords));
  command.add_option("--n-grid", arguments.n_grid, "Candidate scales per mapping (default 20)");
  command.add_flag("--no-clip", arguments.no_clip, "Leave out the clip search");
  command
      .add_option(
          "--rounding", arguments.rounding,
          "compensated (default): each weight makes up for the errors of those before it (GPTQ); "
          "nearest (effort fast); or matched (effort best): compensated, and each linear makes up for "
          "what its input lost before it (GPTAQ)")
      ->check(one_of(kRoundingWords));
  command
      .add_option(
          "--sweeps", arguments.sweeps,
          "Behind compensated or matched rounding, so many times fit scales and codes again, one after "
          "another (default 0, with --effort best 2)")
      ->check(CLI::Range(0, kMostSweeps));
  command
      .add_option(
          "--objective", arguments.objective,
          "Error that judges scales: linear_output (default), from statistics, or block_output, with the "
          "tokens run through attention or MLP for each candidate, as the incumbents do (much slower)")
      ->check(one_of(kObjectiveWords));
  command
      .add_option(
          "--propagation", arguments.propagation,
          "What the next layer is calibrated on: quantized (default) or original (effort fast) outputs")
      ->check(CLI::IsMember({"quantized", "original"}));
  command
      .add_option(
          "--precision", arguments.precision,
          "Arithmetic of the calibration pass: auto (default; bf16 where the CPU multiplies it) or f32")
      ->check(CLI::IsMember({"auto", "f32"}));
  command
      .add_option("--device", arguments.options.device,
                  "What runs the model, searches and rounds: cpu (default), cuda (the first GPU), cuda:N, or "
                  "auto: the first GPU that works, else the CPU")
      ->check(not_empty);
  command
      .add_option("--moe-calibrate", arguments.experts,
                  "Tokens that an expert's statistics come from: all (default) or those routed to it")
      ->check(CLI::IsMember({"all", "routed"}));
}

}  // namespace

void add_quantize_command(CLI::App& app) {
  auto arguments = std::make_shared<QuantizeArguments>();
  OneshotOptions& options = arguments->options;
  auto* command = app.add_subcommand("quantize", "Quantize a Hugging Face model directory to 2 to 8 bits");
  command->add_option("model", options.model, "Model directory (config.json, *.safetensors, tokenizer.json)")
      ->required();
  command->add_option("-o,--output", options.output, "Directory to write; it appears complete or not at all")
      ->required();
  command->add_option(
      "--recipe", arguments->recipe,
      "Recipe in YAML or JSON: llm-compressor's, AutoAWQ's quant_config, or a recipe.yaml of Salient's");
  command->add_option("--scheme", options.recipe.quantization.scheme,
                      "W4A16_ASYM (default), or W2A16 to W8A16, which are symmetric");
  command->add_option(
      "--target-bits", arguments->target_bits,
      "Bits per weight in the mean, at most, scales and zeros counted: each linear gets 2 to 8, "
      "whatever measured errors ask for; the scheme says the rest");
  command->add_option(
      "--group-size", options.recipe.quantization.group_size,
      "Columns that share a scale: 16, 32, 64, 128, 256, or -1 for a whole row (default: the scheme's, 128)");
  command->add_option("--format", arguments->format,
                      "pack-quantized (compressed-tensors, default) or autoawq-gemm");
  command->add_option("--method", arguments->method, "awq (default) or rtn: round to nearest, no data needed")
      ->check(CLI::IsMember({"awq", "rtn"}));
  add_data_options(*command, *arguments);
  command
      ->add_option(
          "--ignore", arguments->ignore,
          "A linear that stays dense beside lm_head, by full name, re:pattern or class; may be repeated")
      ->allow_extra_args(false);
  add_search_options(*command, *arguments);
  command->add_flag("--scaled-only", arguments->scaled_only,
                    "Smooth and clip, but leave the weights dense, for other quantizers");
  command->add_option("--shard-size", arguments->shard_size, "Largest file to write (default 5GB)");
  command->add_option("--eval", arguments->evaluation.text,
                      "Text to measure perplexity on afterwards, before against after");
  command->add_option("--max-memory", arguments->max_memory,
                      "Most memory to have resident, such as 4GiB: hidden states wait in bf16 or on disk and "
                      "Gram matrices are cut into blocks if they must (default: no cap)");
  command->add_option("--work", options.work,
                      "Directory that keeps each finished layer, so that --resume can go on after a crash");
  command->add_flag("--resume", options.resume,
                    "Go on with the job in the --work directory, if there is one");
  command
      ->add_option("--report", arguments->reports,
                   "File for the report of the run: .json, or .html with plots; may be repeated")
      ->allow_extra_args(false);
  command->add_flag("--overwrite", options.overwrite, "Replace an existing output directory and reports");
  command->add_flag("--dry-run", arguments->dry_run, "Print the plan and stop");
  command->add_flag("--json", arguments->json, "Report as JSON on standard output");
  command->callback([command, arguments] {
    try {
      run_quantize(*command, *arguments);
    } catch (const Error& error) {
      throw Error(error.kind(), with_flag_names(*command, error.what()));
    }
  });
}

}  // namespace salient::cli
