#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <optional>
#include <sstream>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "base/process.h"
#include "checkpoint/checkpoint_writer.h"
#include "cli/commands.h"
#include "cli/terminal.h"
#include "salient/model.h"
#include "text/dataset.h"

namespace salient::cli {
namespace {

constexpr int64_t kDraftTokens = 5;  // proposed by a draft at a time

struct GenerateArguments {
  std::string model;
  std::string prompt;
  std::string prompts;  // a file of them
  GenerateOptions options{.max_tokens = 128};
  DeviceOptions device;
  std::string activations = kActivationsToRun;
  std::string lm_head = "auto";
  std::string packed_weights;
  std::string kv_type = kKvTypeToRun;
  BatchOptions batch;
  std::optional<std::string> kv_cache_memory;
  std::vector<std::string> logit_bias;
  std::string response_format = "text";
  int64_t texts = 1;
  std::string draft;
  bool json = false;
};

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty()) lines.push_back(line);
  }
  return lines;
}

/// One, unless there is a file of them.
std::vector<std::string> read_prompts(const GenerateArguments& arguments) {
  if (arguments.prompts.empty()) {
    if (arguments.prompt != "-") return {arguments.prompt};
    return {{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()}};
  }
  std::vector<std::string> prompts =
      read_documents({.path = arguments.prompts, .text_column = "prompt"}, &interrupted());
  if (!arguments.prompts.ends_with(".jsonl") && !prompts.empty()) prompts = lines_of(prompts[0]);
  if (prompts.empty()) fail(ErrorKind::invalid_argument, "{}: no prompts", arguments.prompts);
  return prompts;
}

/// The whole text as a number.
template <typename Number>
bool parse_number(std::string_view text, Number& number) {
  if (text.starts_with('+')) text.remove_prefix(1);
  const char* const end = text.data() + text.size();
  const auto [stopped, code] = std::from_chars(text.data(), end, number);
  return code == std::errc() && stopped == end;
}

/// The parser itself takes a number too large for the largest there is, and a leading zero for octal.
std::string seed_error(const std::string& text) {
  int64_t seed = 0;
  const bool plain = text == "0" || (!text.starts_with('0') && !text.starts_with('-'));
  return plain && parse_number(text, seed) ? ""
                                           : fmt::format("{} is no seed from 0 to 9223372036854775807", text);
}

/// "ID=BIAS".
void add_logit_bias(std::string_view text, std::map<int32_t, double>& biases) {
  const size_t sign = std::min(text.find('='), text.size());
  int32_t token = 0;
  double bias = 0;
  if (!parse_number(text.substr(0, sign), token) ||
      !parse_number(text.substr(std::min(sign + 1, text.size())), bias)) {
    fail(ErrorKind::invalid_argument, "--logit-bias \"{}\" is not of the form ID=BIAS, as 50256=-inf", text);
  }
  biases[token] = bias;
}

/// Minus infinity has no JSON: null.
Json logprob_json(double logprob) { return std::isfinite(logprob) ? Json(logprob) : Json(); }

Json to_json(const Model& model, const TokenLogprob& entry) {
  return {{"id", entry.token},
          {"token", model.token_text(entry.token)},
          {"logprob", logprob_json(entry.logprob)}};
}

Json to_json(const Model& model, const TokenLogprobs& drawn) {
  Json json = to_json(model, drawn.chosen);
  json["top_logprobs"] = Json::array();
  for (const TokenLogprob& entry : drawn.top) json["top_logprobs"].push_back(to_json(model, entry));
  return json;
}

/// What each of several texts has of its own.
Json text_json(const Model& model, const Generation& result) {
  Json json{{"text", result.text},
            {"finish_reason", to_string(result.reason)},
            {"seed", result.seed},
            {"generated_tokens", result.tokens.size()},
            {"token_ids", result.tokens}};
  if (!result.logprobs.empty()) {
    double sum = 0;
    json["logprobs"] = Json::array();
    for (const TokenLogprobs& drawn : result.logprobs) {
      sum += drawn.chosen.logprob;
      json["logprobs"].push_back(to_json(model, drawn));
    }
    json["cumulative_logprob"] = logprob_json(sum);
  }
  if (!result.error.empty()) json["error"] = result.error;
  json["proposed_tokens"] = result.proposed_tokens;
  json["accepted_tokens"] = result.accepted_tokens;
  json["decode_tokens_per_second"] = result.decode_tokens_per_second;
  return json;
}

Json to_json(const Model& model, const std::vector<Generation>& results) {
  const Generation& first = results.front();
  Json json = results.size() == 1 ? text_json(model, first) : Json::object();
  for (size_t i = 0; results.size() > 1 && i < results.size(); ++i)
    json["texts"].push_back(text_json(model, results[i]));
  json["prompt_tokens"] = first.prompt_tokens;
  json["cached_tokens"] = first.cached_tokens;
  json["prefill_tokens_per_second"] = first.prefill_tokens_per_second;
  json["peak_memory"] = peak_resident_bytes();
  json["device"] = model.device();
  return json;
}

bool print_piece(std::string_view piece) {
  std::fwrite(piece.data(), 1, piece.size(), stdout);
  std::fflush(stdout);
  return true;
}

void print_summary(const Generation& result) {
  const std::string cached =
      result.cached_tokens > 0 ? fmt::format(", {} of them cached,", result.cached_tokens) : "";
  const std::string speculation =
      result.proposed_tokens > 0
          ? fmt::format("; {} of {} proposals accepted", result.accepted_tokens, result.proposed_tokens)
          : "";
  fmt::print(stderr, "[{} tokens, {}; prompt {} tokens{} at {:.0f}/s, then {:.1f} tokens/s{}]\n",
             result.tokens.size(), to_string(result.reason), result.prompt_tokens, cached,
             result.prefill_tokens_per_second, result.decode_tokens_per_second, speculation);
}

/// Text by text, each behind the prompt.
void print_texts(const std::string& prompt, const std::vector<Generation>& results) {
  for (const Generation& result : results) {
    print_piece(prompt + result.text + "\n");
    print_summary(result);
  }
}

/// Each behind its prompt; a line before it says where one ends and the next begins.
void print_texts(const std::vector<std::string>& prompts, const std::vector<Generation>& results) {
  for (size_t i = 0; i < results.size(); ++i) {
    const Generation& result = results[i];
    const std::string reason = result.error.empty() ? std::string(to_string(result.reason)) : result.error;
    print_piece(fmt::format("=== {}: {} tokens, {} ===\n", i, result.tokens.size(), reason));
    print_piece(prompts[i] + result.text + "\n");
  }
}

/// A line of JSON for each, as it ends; or all texts, in order, behind the last.
std::vector<Generation> write_batch(const Model& model, const std::vector<std::string>& prompts,
                                    const GenerateArguments& arguments) {
  StatusLine status;
  const auto start = std::chrono::steady_clock::now();
  size_t done = 0;
  size_t tokens = 0;
  const auto results = model.generate_batch(
      prompts, arguments.options, arguments.batch, [&](size_t index, const Generation& result) {
        tokens += result.tokens.size();
        ++done;
        if (status.is_terminal()) status.update(fmt::format("{} of {} texts", done, prompts.size()));
        if (!arguments.json) return;
        Json line{{"index", index}, {"prompt", prompts[index]}};
        line.update(text_json(model, result));
        line["prompt_tokens"] = result.prompt_tokens;
        line["cached_tokens"] = result.cached_tokens;
        print_piece(line.dump() + "\n");
      });
  status.finish();
  if (!arguments.json) print_texts(prompts, results);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  fmt::print(stderr, "[{} texts, {} tokens in {}: {:.1f} tokens/s]\n", results.size(), tokens,
             format_duration(seconds), static_cast<double>(tokens) / seconds);
  return results;
}

/// As it comes.
Generation print_text(const Model& model, const std::string& prompt, const GenerateOptions& options) {
  // The prompt is shown once it has been found to be valid: with the first piece of its continuation.
  bool started = false;
  Generation result = model.generate(prompt, options, [&](std::string_view piece) {
    if (!std::exchange(started, true)) print_piece(prompt);
    return print_piece(piece);
  });
  if (!started) print_piece(prompt);
  print_piece("\n");
  print_summary(result);
  return result;
}

void run_generate(GenerateArguments& arguments) {
  GenerateOptions& options = arguments.options;
  options.cancelled = &interrupted();
  for (const std::string& text : arguments.logit_bias) add_logit_bias(text, options.logit_bias);
  options.response_format = response_format_by_name(arguments.response_format);
  if (arguments.kv_cache_memory)
    arguments.batch.kv_cache_memory_bytes =
        with_context("--kv-cache-memory-bytes", [&] { return parse_byte_size(*arguments.kv_cache_memory); });
  const std::vector<std::string> prompts = read_prompts(arguments);
  const LoadOptions loading{.device = arguments.device.device,
                            .activations = arguments.activations,
                            .lm_head = arguments.lm_head,
                            .packed_weights = arguments.packed_weights,
                            .kv_cache_dtype = arguments.kv_type,
                            .cancelled = &interrupted(),
                            .kernel = arguments.device.kernel,
                            .on_note = print_note};
  const Model model = Model::load(arguments.model, loading);
  std::optional<Model> draft;
  if (!arguments.draft.empty()) {
    draft = Model::load(arguments.draft, loading);
    options.draft = &*draft;
    if (options.speculate == 0) options.speculate = kDraftTokens;
  }
  std::vector<Generation> results;
  if (!arguments.prompts.empty()) {
    results = write_batch(model, prompts, arguments);
  } else if (arguments.json || arguments.texts > 1) {
    results = model.generate_several(prompts[0], arguments.texts, options);
    arguments.json ? fmt::print("{}\n", to_json(model, results).dump(2)) : print_texts(prompts[0], results);
  } else {
    results.push_back(print_text(model, prompts[0], options));
  }
  const bool cancelled = std::ranges::any_of(
      results, [](const Generation& result) { return result.reason == FinishReason::cancelled; });
  if (cancelled) fail(ErrorKind::cancelled, "stopped on request");
  const auto failed = [](const Generation& result) { return !result.error.empty(); };
  if (const auto first = std::ranges::find_if(results, failed); first != results.end()) {
    fail(ErrorKind::invalid_argument, "{} of {} texts failed, the first at index {}: {}",
         std::ranges::count_if(results, failed), results.size(), first - results.begin(), first->error);
  }
}

void add_sampling_options(CLI::App& command, GenerateArguments& arguments) {
  GenerateOptions& options = arguments.options;
  command.add_option("--temperature", options.temperature, "0 (default): always the most likely token");
  command.add_option("--top-k", options.top_k, "Only the k most likely tokens");
  command.add_option("--top-p", options.top_p,
                     "Only the most likely tokens that together reach this probability");
  command.add_option("--min-p", options.min_p,
                     "Only tokens at least this times as likely as the most likely one");
  command.add_option("--repetition-penalty", options.repetition_penalty,
                     "Above 1 makes tokens seen before less likely");
  command
      .add_option("--logit-bias", arguments.logit_bias,
                  "ID=BIAS: add BIAS to the logit of a token; -inf: never draw it; may be repeated")
      ->allow_extra_args(false);
  command.add_option("--seed", options.seed, "Seed of the draws (default 0)")
      ->check(CLI::Validator(seed_error, "INT in [0 - 9223372036854775807]"));
  command
      .add_option("--num-return-sequences", arguments.texts,
                  "Texts to draw, with this seed and the ones that follow; the prompt is run once")
      ->check(CLI::Range(int64_t{1}, int64_t{1024}));
}

/// Of --prompts; those that make no sense without it need it.
void add_batch_options(CLI::App& command, GenerateArguments& arguments, CLI::Option* prompt) {
  auto* prompts =
      command
          .add_option("--prompts", arguments.prompts,
                      "A file of prompts to continue side by side: .jsonl with a \"prompt\" in each line, or "
                      "text with one in each line; with --json a line of JSON for each text, as it ends")
          ->check(not_empty)
          ->excludes(prompt);
  command
      .add_option("--max-num-seqs", arguments.batch.max_num_seqs,
                  "Texts of --prompts that are in the making at a time (default 16)")
      ->check(CLI::Range(int64_t{1}, int64_t{4096}))
      ->needs(prompts);
  command
      .add_option("--max-num-batched-tokens", arguments.batch.max_num_batched_tokens,
                  "Tokens of a pass with --prompts: one of each text, and of prompts what there is room for, "
                  "128 at least (default 512)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->needs(prompts);
  command
      .add_option(
          "--kv-cache-memory-bytes", arguments.kv_cache_memory,
          "Most memory for keys and values of --prompts, such as 4GiB (default 1GiB): a text waits until "
          "there is room for all that it may come to")
      ->needs(prompts);
  command
      .add_flag(
          "--batch-invariant", arguments.batch.batch_invariant,
          "Each text of --prompts is bit by bit the one that its prompt gets alone, also on a GPU and with "
          "activations in floating point, for smaller passes")
      ->needs(prompts);
}

void add_state_options(CLI::App& command, GenerateOptions& options) {
  command
      .add_option("--load-state", options.load_state,
                  "Go on from a file that --save-state left; the prompt follows its tokens")
      ->check(not_empty);
  command
      .add_option(
          "--save-state", options.save_state,
          "Leave the tokens, and what the model remembers of them, in a file; an older state there is "
          "replaced, anything else is not")
      ->check(not_empty);
}

void check_prompts(const GenerateArguments& arguments, bool has_prompt) {
  if (arguments.prompts.empty()) {
    if (has_prompt || !arguments.options.load_state.empty()) return;
    fail(ErrorKind::invalid_argument,
         "--prompt is required, unless --prompts names a file or --load-state gives one to go on from");
  }
  if (arguments.texts > 1)
    fail(ErrorKind::invalid_argument, "--num-return-sequences is for one prompt, not for --prompts");
  if (!arguments.options.load_state.empty() || !arguments.options.save_state.empty())
    fail(ErrorKind::invalid_argument, "--load-state and --save-state are for one prompt, not for --prompts");
}

}  // namespace

void add_generate_command(CLI::App& app) {
  auto arguments = std::make_shared<GenerateArguments>();
  GenerateOptions& options = arguments->options;
  auto* command = app.add_subcommand("generate", "Continue a prompt");
  command->add_option("model", arguments->model, "Model directory, dense or quantized")->required();
  auto* prompt =
      command->add_option("-p,--prompt", arguments->prompt, "Text to continue; - reads standard input");
  command->add_option("-n,--max-tokens", options.max_tokens, "Tokens to generate at most (default 128)")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40));
  add_sampling_options(*command, *arguments);
  command->add_option("--stop", options.stop, "End the text before this string; may be repeated")
      ->check(not_empty)
      ->allow_extra_args(false);
  command->add_option("--response-format", arguments->response_format,
                      "text (default), or json_object: the text is one object of JSON, and ends with it");
  add_batch_options(*command, *arguments, prompt);
  add_state_options(*command, options);
  auto* speculate =
      command
          ->add_option(
              "--speculate", options.speculate,
              "Propose so many tokens at a time, from what followed the last ones before; the text is the "
              "same")
          ->check(CLI::Range(int64_t{0}, int64_t{256}));
  command
      ->add_option("--draft", arguments->draft,
                   fmt::format("A smaller model of the same vocabulary that proposes the tokens ({}, unless "
                               "--speculate says otherwise)",
                               kDraftTokens))
      ->check(not_empty);
  command
      ->add_option("--logprobs", options.logprobs,
                   "Report log-probabilities of each token and of so many of the likeliest; needs --json")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20));
  add_device_options(*command, arguments->device);
  add_activations_option(*command, arguments->activations);
  add_kv_cache_option(*command, arguments->kv_type);
  add_lm_head_option(*command, arguments->lm_head);
  add_packed_weights_option(*command, arguments->packed_weights);
  command->add_flag("--json", arguments->json, "Report text and speed as JSON on standard output");
  command->callback([arguments, prompt, speculate] {
    if (!arguments->draft.empty() && speculate->count() > 0 && arguments->options.speculate == 0)
      fail(ErrorKind::invalid_argument, "--draft proposes tokens, but --speculate 0 asks for none");
    check_prompts(*arguments, prompt->count() > 0);
    if (arguments->options.logprobs && !arguments->json)
      fail(ErrorKind::invalid_argument, "--logprobs are reported as JSON: add --json");
    run_generate(*arguments);
  });
}

}  // namespace salient::cli
