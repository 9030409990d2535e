#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <iterator>

#include "base/error.h"
#include "base/json.h"
#include "base/process.h"
#include "cli/commands.h"
#include "cli/terminal.h"
#include "runtime/generate.h"
#include "text/tokenizer.h"

namespace salient::cli {
namespace {

struct GenerateArguments {
  std::string model;
  std::string prompt;
  int64_t max_tokens = 128;
  SamplingOptions sampling;
  bool ignore_eos = false;
  bool no_special_tokens = false;
  bool json = false;
};

std::string read_prompt(const GenerateArguments& arguments) {
  if (arguments.prompt != "-") return arguments.prompt;
  return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
}

/// Text goes to standard output as whole characters; with --json it is collected instead.
class TextSink {
 public:
  TextSink(const Tokenizer& tokenizer, std::span<const int32_t> prompt, bool collect)
      : decoder_(tokenizer, Tokenizer::SkipSpecial::yes), collect_(collect) {
    for (const int32_t id : prompt) decoder_.push(id);  // so that the first new token joins the prompt as it should
  }
  void push(int32_t id) { emit(decoder_.push(id)); }
  void finish() { emit(decoder_.finish()); }
  const std::string& text() const { return text_; }

 private:
  void emit(const std::string& piece) {
    text_ += piece;
    if (collect_) return;
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    std::fflush(stdout);
  }

  StreamDecoder decoder_;
  bool collect_;
  std::string text_;
};

Json to_json(const GenerateResult& result, const std::string& text) {
  return {{"text", text},
          {"tokens", result.tokens},
          {"finish_reason", to_string(result.reason)},
          {"prompt_tokens", result.prompt_tokens},
          {"generated_tokens", result.tokens.size()},
          {"prefill_seconds", result.prefill_seconds},
          {"decode_seconds", result.decode_seconds},
          {"prefill_tokens_per_second", result.prefill_tokens_per_second()},
          {"decode_tokens_per_second", result.decode_tokens_per_second()},
          {"peak_memory", peak_resident_bytes()}};
}

void run_generate(const GenerateArguments& arguments) {
  validate(arguments.sampling);
  const auto backend = make_cpu_backend();
  const Tokenizer tokenizer = Tokenizer::from_directory(arguments.model);
  const Decoder decoder = Decoder::load(arguments.model, *backend);
  const auto special = arguments.no_special_tokens ? Tokenizer::SpecialTokens::omit : Tokenizer::SpecialTokens::add;
  const std::string prompt_text = read_prompt(arguments);
  std::vector<int32_t> prompt = tokenizer.encode(prompt_text, special);
  if (prompt.empty() && decoder.spec().bos_token) prompt.push_back(*decoder.spec().bos_token);
  if (!arguments.json) fmt::print("{}", prompt_text);
  TextSink sink(tokenizer, prompt, arguments.json);
  const std::vector<int32_t> stop = arguments.ignore_eos ? std::vector<int32_t>{} : decoder.spec().eos_tokens;
  const GenerateResult result = generate(decoder,
                                         {.prompt = prompt,
                                          .max_tokens = arguments.max_tokens,
                                          .sampling = arguments.sampling,
                                          .stop_tokens = stop,
                                          .cancelled = &interrupted()},
                                         [&](int32_t id) {
                                           sink.push(id);
                                           return true;
                                         });
  sink.finish();
  if (arguments.json) {
    fmt::print("{}\n", to_json(result, sink.text()).dump(2, ' ', false, Json::error_handler_t::replace));
  } else {
    fmt::print("\n");
    std::fflush(stdout);
    fmt::print(stderr, "[{} tokens, {}; prompt {} tokens at {:.0f}/s, then {:.1f} tokens/s; {}]\n", result.tokens.size(),
               to_string(result.reason), result.prompt_tokens, result.prefill_tokens_per_second(),
               result.decode_tokens_per_second(), backend->description());
  }
  if (result.reason == FinishReason::cancelled) fail(ErrorKind::cancelled, "stopped on request");
}

}  // namespace

void add_generate_command(CLI::App& app) {
  auto arguments = std::make_shared<GenerateArguments>();
  SamplingOptions& sampling = arguments->sampling;
  auto* command = app.add_subcommand("generate", "Continue a prompt");
  command->add_option("model", arguments->model, "Model directory, dense or quantized")->required();
  command->add_option("-p,--prompt", arguments->prompt, "Text to continue; - reads standard input")->required();
  command->add_option("-n,--max-tokens", arguments->max_tokens, "Tokens to generate at most (default 128)")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--temperature", sampling.temperature, "0 (default): always the most likely token");
  command->add_option("--top-k", sampling.top_k, "Only the k most likely tokens");
  command->add_option("--top-p", sampling.top_p, "Only the most likely tokens that together reach this probability");
  command->add_option("--min-p", sampling.min_p, "Only tokens at least this times as likely as the most likely one");
  command->add_option("--repetition-penalty", sampling.repetition_penalty, "Above 1 makes tokens seen before less likely");
  command->add_option("--seed", sampling.seed, "Seed of the draws (default 0)");
  command->add_flag("--ignore-eos", arguments->ignore_eos, "Go on behind the end-of-text token");
  command->add_flag("--no-special-tokens", arguments->no_special_tokens, "Do not put the tokenizer's begin token before the prompt");
  command->add_flag("--json", arguments->json, "Report text and speed as JSON on standard output");
  command->callback([arguments] { run_generate(*arguments); });
}

}  // namespace salient::cli
