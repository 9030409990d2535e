#include <fmt/format.h>

#include <chrono>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/evaluation.h"
#include "cli/terminal.h"
#include "evaluate/report_json.h"
#include "runtime/generate.h"
#include "text/dataset.h"
#include "text/tokenizer.h"

namespace salient::cli {
namespace {

/// Shows "evaluating 40 %" where the line is rewritten, and only the start elsewhere.
class EvaluationStatus {
 public:
  explicit EvaluationStatus(const EvaluationArguments& arguments) {
    if (!status_.is_terminal()) status_.update(fmt::format("evaluating on {}", arguments.text));
  }
  void operator()(int64_t step, int64_t steps) {
    if (!status_.is_terminal()) return;
    const double fraction = static_cast<double>(step) / static_cast<double>(steps);
    const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    status_.update(fmt::format("{}evaluating: {:.0f} %, {} left", status_.bar(fraction), 100 * fraction,
                               format_duration(elapsed / fraction * (1 - fraction))));
  }

 private:
  StatusLine status_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

TokenWindows evaluation_windows(const EvaluationArguments& arguments, const ModelWeights& weights) {
  check_window(weights.spec(), static_cast<int64_t>(arguments.window));
  const Tokenizer tokenizer = Tokenizer::from_directory(arguments.model);
  return read_token_windows(
      tokenizer, {.path = arguments.text, .text_column = arguments.text_column},
      {.window = arguments.window, .maximum = arguments.max_windows, .cancelled = &interrupted()});
}

EvaluationResult evaluate(const EvaluationArguments& arguments) {
  const auto start = std::chrono::steady_clock::now();
  const auto backend = make_backend({.device = arguments.device.device,
                                     .activations = arguments.activations,
                                     .kernel = arguments.device.kernel,
                                     .on_note = print_note});
  const ModelWeights weights(arguments.model);
  const TokenWindows windows = evaluation_windows(arguments, weights);
  EvaluationStatus status(arguments);
  const EvaluationOptions options{.on_progress = [&](int64_t step, int64_t steps) { status(step, steps); },
                                  .kv_type = kv_type_by_name(arguments.kv_type),
                                  .cancelled = &interrupted(),
                                  .lm_head = lm_head_by_name(arguments.lm_head)};
  EvaluationResult result{.arguments = arguments,
                          .device = backend->description(),
                          .activations = backend->activations(),
                          .windows = static_cast<int64_t>(windows.size())};
  if (arguments.against.empty()) {
    result.model = measure_perplexity(*backend, weights, windows, options);
  } else {
    const ModelWeights reference(arguments.against);
    result.divergence = measure_divergence(*backend, weights, reference, windows, options);
    result.model = result.divergence->model;
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

Json to_json(const EvaluationResult& result) {
  Json json = {{"model", result.arguments.model},
               {"text", result.arguments.text},
               {"window", result.arguments.window},
               {"windows", result.windows},
               {"device", result.device},
               {"activations", to_string(result.activations)},
               {"kv_cache_dtype", result.arguments.kv_type},
               {"lm_head", result.arguments.lm_head},
               {"seconds", result.seconds}};
  json.update(result.divergence ? salient::to_json(*result.divergence) : salient::to_json(result.model));
  if (result.divergence) json["reference"]["model"] = result.arguments.against;
  return json;
}

void print_evaluation(const EvaluationResult& result) {
  std::vector<std::pair<std::string, std::string>> rows{
      {"text", fmt::format("{}: {} windows of {} tokens", result.arguments.text, result.windows,
                           result.arguments.window)}};
  if (result.divergence) {
    const auto& reference = result.divergence->reference;
    rows.emplace_back("perplexity of " + result.arguments.against,
                      fmt::format("{:.4f}", reference.perplexity));
    rows.emplace_back("perplexity of " + result.arguments.model,
                      fmt::format("{:.4f} ({:+.2f} %)", result.model.perplexity,
                                  100 * (result.model.perplexity / reference.perplexity - 1)));
    rows.emplace_back("mean KL divergence", fmt::format("{:.5f} nats", result.divergence->mean_kl));
    rows.emplace_back("same most likely token",
                      fmt::format("{:.2f} %", 100 * result.divergence->same_top_share));
  } else {
    rows.emplace_back("perplexity of " + result.arguments.model,
                      fmt::format("{:.4f}", result.model.perplexity));
  }
  rows.emplace_back("device", fmt::format("{}; activations {}, keys and values {}", result.device,
                                          to_string(result.activations), result.arguments.kv_type));
  rows.emplace_back("time", format_duration(result.seconds));
  print_table(rows);
}

void add_eval_command(CLI::App& app) {
  struct Arguments : EvaluationArguments {
    bool json = false;
  };
  auto arguments = std::make_shared<Arguments>();
  auto* command = app.add_subcommand("eval", "Measure perplexity, and how far a model is from a reference");
  command->add_option("model", arguments->model, "Model directory, dense or quantized")->required();
  command->add_option("--text", arguments->text, "Text to predict: .txt, or .jsonl with a text column")
      ->required();
  command->add_option("--text-column", arguments->text_column, "Column of a .jsonl file (default: text)");
  command->add_option("--against", arguments->against,
                      "Reference model: adds KL divergence and top-1 agreement");
  command->add_option("--window", arguments->window, "Tokens per window (default 512)")
      ->check(CLI::Range(2, 1 << 20));
  command->add_option("--max-windows", arguments->max_windows, "Use only the first windows (default: all)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40));
  add_device_options(*command, arguments->device);
  add_activations_option(*command, arguments->activations);
  add_kv_cache_option(*command, arguments->kv_type);
  add_lm_head_option(*command, arguments->lm_head);
  command->add_flag("--json", arguments->json, "Report as JSON on standard output");
  command->callback([command, arguments] {
    if (command->count("--text-column") > 0 && !arguments->text.ends_with(".jsonl")) {
      fail(ErrorKind::invalid_argument, "--text-column {}: {} is no .jsonl file, which has columns",
           arguments->text_column, arguments->text);
    }
    const EvaluationResult result = evaluate(*arguments);
    if (arguments->json) fmt::print("{}\n", to_json(result).dump(2));
    if (!arguments->json) print_evaluation(result);
  });
}

}  // namespace salient::cli
