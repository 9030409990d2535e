#include <fmt/format.h>

#include <cstdio>
#include <iostream>
#include <iterator>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "base/process.h"
#include "cli/commands.h"
#include "cli/terminal.h"
#include "salient/model.h"

namespace salient::cli {
namespace {

struct GenerateArguments {
  std::string model;
  std::string prompt;
  GenerateOptions options{.max_tokens = 128};
  std::string activations = "fp32";
  std::string packed_weights;
  bool json = false;
};

std::string read_prompt(const GenerateArguments& arguments) {
  if (arguments.prompt != "-") return arguments.prompt;
  return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
}

Json to_json(const Generation& result) {
  return {{"text", result.text},
          {"finish_reason", to_string(result.reason)},
          {"prompt_tokens", result.prompt_tokens},
          {"generated_tokens", result.tokens},
          {"prefill_tokens_per_second", result.prefill_tokens_per_second},
          {"decode_tokens_per_second", result.decode_tokens_per_second},
          {"peak_memory", peak_resident_bytes()}};
}

bool print_piece(std::string_view piece) {
  std::fwrite(piece.data(), 1, piece.size(), stdout);
  std::fflush(stdout);
  return true;
}

void run_generate(GenerateArguments& arguments) {
  arguments.options.cancelled = &interrupted();
  const std::string prompt = read_prompt(arguments);
  const Model model = Model::load(arguments.model, {.activations = arguments.activations,
                                                    .packed_weights = arguments.packed_weights,
                                                    .cancelled = &interrupted()});
  Generation result;
  if (arguments.json) {
    result = model.generate(prompt, arguments.options);
    fmt::print("{}\n", to_json(result).dump(2));
  } else {
    // The prompt is shown once it has been found to be valid: with the first piece of its continuation.
    bool started = false;
    result = model.generate(prompt, arguments.options, [&](std::string_view piece) {
      if (!std::exchange(started, true)) print_piece(prompt);
      return print_piece(piece);
    });
    if (!started) print_piece(prompt);
    print_piece("\n");
    fmt::print(stderr, "[{} tokens, {}; prompt {} tokens at {:.0f}/s, then {:.1f} tokens/s]\n", result.tokens,
               to_string(result.reason), result.prompt_tokens, result.prefill_tokens_per_second,
               result.decode_tokens_per_second);
  }
  if (result.reason == FinishReason::cancelled) fail(ErrorKind::cancelled, "stopped on request");
}

}  // namespace

void add_generate_command(CLI::App& app) {
  auto arguments = std::make_shared<GenerateArguments>();
  GenerateOptions& options = arguments->options;
  auto* command = app.add_subcommand("generate", "Continue a prompt");
  command->add_option("model", arguments->model, "Model directory, dense or quantized")->required();
  command->add_option("-p,--prompt", arguments->prompt, "Text to continue; - reads standard input")
      ->required();
  command->add_option("-n,--max-tokens", options.max_tokens, "Tokens to generate at most (default 128)")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40));
  command->add_option("--temperature", options.temperature, "0 (default): always the most likely token");
  command->add_option("--top-k", options.top_k, "Only the k most likely tokens");
  command->add_option("--top-p", options.top_p,
                      "Only the most likely tokens that together reach this probability");
  command->add_option("--min-p", options.min_p,
                      "Only tokens at least this times as likely as the most likely one");
  command->add_option("--repetition-penalty", options.repetition_penalty,
                      "Above 1 makes tokens seen before less likely");
  command->add_option("--seed", options.seed, "Seed of the draws (default 0)");
  command->add_option("--stop", options.stop, "End the text before this string; may be repeated")
      ->allow_extra_args(false);
  add_activations_option(*command, arguments->activations);
  add_packed_weights_option(*command, arguments->packed_weights);
  command->add_flag("--json", arguments->json, "Report text and speed as JSON on standard output");
  command->callback([arguments] { run_generate(*arguments); });
}

}  // namespace salient::cli
