#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "base/file.h"
#include "base/json.h"
#include "support/program.h"

namespace salient {
namespace {

using ::testing::HasSubstr;

const std::string kModel = SALIENT_SOURCE_DIR "/examples/demo/model";
const std::string kPrompt = "Once upon a time";

class GenerateCommand : public ::testing::Test {
 protected:
  static ProgramResult generate(const std::vector<std::string>& more) {
    std::vector<std::string> arguments{"generate", kModel};
    if (std::ranges::find(more, "-n") == more.end()) arguments.insert(arguments.end(), {"-n", "24"});
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_salient(arguments);
  }
  static Json json_of(std::vector<std::string> more) {
    more.push_back("--json");
    const auto result = generate(more);
    EXPECT_EQ(result.status, 0) << result.errors;
    return parse_json(result.output, "result");
  }
  static std::vector<int32_t> ids(const Json& json) { return json["token_ids"].get<std::vector<int32_t>>(); }

  std::string file() const { return (scratch_.path() / "text.state").string(); }

  TemporaryDirectory scratch_;
};

TEST_F(GenerateCommand, ReportsLogProbabilities) {
  const Json json = json_of({"-p", kPrompt, "--logprobs", "3"});
  EXPECT_EQ(json["generated_tokens"], 24);
  EXPECT_EQ(ids(json).size(), 24u);
  ASSERT_EQ(json["logprobs"].size(), 24u);
  double sum = 0;
  for (size_t i = 0; i < 24; ++i) {
    const Json& drawn = json["logprobs"][i];
    EXPECT_EQ(drawn["id"], ids(json)[i]);
    ASSERT_EQ(drawn["top_logprobs"].size(), 3u);
    EXPECT_EQ(drawn["top_logprobs"][0]["id"], drawn["id"]) << "greedy";
    EXPECT_EQ(drawn["top_logprobs"][0]["token"], drawn["token"]);
    sum += drawn["logprob"].get<double>();
  }
  EXPECT_NEAR(json["cumulative_logprob"].get<double>(), sum, 1e-9);
}

TEST_F(GenerateCommand, ABiasForbidsAToken) {
  const int32_t first = ids(json_of({"-p", kPrompt}))[0];
  const auto banned = ids(json_of({"-p", kPrompt, "--logit-bias", std::to_string(first) + "=-inf"}));
  EXPECT_EQ(std::count(banned.begin(), banned.end(), first), 0);
  const auto forced = ids(json_of({"-p", kPrompt, "--logit-bias", "7=100", "--logit-bias", "9=-100"}));
  EXPECT_EQ(std::count(forced.begin(), forced.end(), 7), 24);
}

TEST_F(GenerateCommand, DrawsSeveralTexts) {
  const std::vector<std::string> drawing{"-p", kPrompt, "--temperature", "1", "--seed", "6"};
  auto several = drawing;
  several.insert(several.end(), {"--num-return-sequences", "3"});
  const Json json = json_of(several);
  ASSERT_EQ(json["texts"].size(), 3u);
  EXPECT_EQ(json["texts"][0]["token_ids"], json_of(drawing)["token_ids"]);
  auto last = drawing;
  last.back() = "8";
  EXPECT_EQ(json["texts"][2]["seed"], 8);
  EXPECT_EQ(json["texts"][2]["token_ids"], json_of(last)["token_ids"]);
  const auto shown = generate(several);
  for (const Json& text : json["texts"])
    EXPECT_THAT(shown.output, HasSubstr(kPrompt + text["text"].get<std::string>() + "\n"));
}

TEST_F(GenerateCommand, GoesOnFromASavedState) {
  for (const std::string temperature : {"0", "0.9"}) {
    const std::vector<std::string> drawing{"--temperature", temperature, "--seed", "2"};
    const auto with = [&](std::vector<std::string> more) {
      more.insert(more.end(), drawing.begin(), drawing.end());
      return more;
    };
    auto expected = ids(json_of(with({"-p", kPrompt})));
    auto found = ids(json_of(with({"-p", kPrompt, "-n", "10", "--save-state", file()})));
    const Json rest = json_of(with({"-n", "14", "--load-state", file(), "--save-state", file()}));
    EXPECT_EQ(rest["cached_tokens"].get<int64_t>() + 1, rest["prompt_tokens"].get<int64_t>());
    for (const int32_t token : ids(rest)) found.push_back(token);
    EXPECT_EQ(found, expected);
  }
  const Json more = json_of({"-p", " Then a", "--load-state", file()});
  EXPECT_GT(more["prompt_tokens"].get<int64_t>(), 24);
  EXPECT_GE(more["cached_tokens"].get<int64_t>(), 24);
  EXPECT_THAT(more["device"].get<std::string>(), HasSubstr("cpu: "));
}

TEST_F(GenerateCommand, SpeculationChangesNoText) {
  const std::vector<std::string> plain{"-p", kPrompt, "-n", "80", "--temperature", "0.7"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), plain.begin(), plain.end());
    return more;
  };
  const Json expected = json_of(plain);
  EXPECT_EQ(expected["proposed_tokens"], 0);
  const Json looked_up = json_of(with({"--speculate", "4"}));
  EXPECT_EQ(looked_up["text"], expected["text"]);
  EXPECT_GT(looked_up["proposed_tokens"].get<int64_t>(), 0);
  const Json drafted = json_of(with({"--draft", kModel}));
  EXPECT_EQ(drafted["text"], expected["text"]);
  EXPECT_EQ(drafted["accepted_tokens"], drafted["proposed_tokens"]);
  EXPECT_GE(drafted["accepted_tokens"].get<int64_t>(), 60);
  const auto shown = generate(with({"--draft", kModel, "--speculate", "2"}));
  EXPECT_THAT(shown.errors, HasSubstr("proposals accepted]"));
}

TEST_F(GenerateCommand, WritesAnObjectOfJson) {
  const Json json = json_of({"-p", kPrompt, "--response-format", "json_object", "-n", "100", "--logit-bias",
                             "2=8", "--logit-bias", "93=8"});
  EXPECT_EQ(json["finish_reason"], "complete");
  EXPECT_TRUE(parse_json(json["text"].get<std::string>(), "text").is_object());
}

TEST_F(GenerateCommand, RefusesWhatMakesNoSense) {
  struct Case {
    std::vector<std::string> arguments;
    int status;
    std::string message;
  };
  const std::vector<Case> cases{
      {{}, 2, "--prompt is required"},
      {{"-p", "x", "--logprobs", "2"}, 2, "add --json"},
      {{"-p", "x", "--logit-bias", "7"}, 2, "not of the form ID=BIAS"},
      {{"-p", "x", "--logit-bias", "=7"}, 2, "not of the form ID=BIAS"},
      {{"-p", "x", "--logit-bias", "7=a"}, 2, "not of the form ID=BIAS"},
      {{"-p", "x", "--logit-bias", "7="}, 2, "not of the form ID=BIAS"},
      {{"-p", "x", "--logit-bias", "7=nan"}, 2, "logit_bias nan of token 7"},
      {{"-p", "x", "--logit-bias", "999999=1"}, 2, "token 999999, but the vocabulary"},
      {{"-p", "x", "--response-format", "xml"}, 2, "\"xml\" is not known (text, json_object)"},
      {{"-p", "x", "--num-return-sequences", "0"}, 2, "--num-return-sequences"},
      {{"-p", "x", "--num-return-sequences", "2", "--save-state", file()}, 2, "save_state is for one text"},
      {{"-p", "x", "--speculate", "-1"}, 2, "--speculate"},
      {{"-p", "x", "--draft", "/nowhere"}, 1, "/nowhere"},
      {{"-p", "x", "--draft", kModel, "--speculate", "0"}, 2, "--speculate 0 asks for none"},
      {{"-p", "x", "--draft", ""}, 2, "the value is empty"},
      {{"-p", "x", "--stop", ""}, 2, "the value is empty"},
      {{"-p", "x", "--seed", "-1"}, 2, "--seed: -1 is no seed from 0"},
      {{"-p", "x", "--seed", "010"}, 2, "--seed: 010 is no seed from 0"},
      {{"-p", "x", "--seed", "9223372036854775808"}, 2, "9223372036854775808 is no seed from 0"},
      {{"-p", "x", "--save-state", ""}, 2, "the value is empty"},
      {{"-p", "x", "--save-state", "/dev/null"}, 2, "is no saved state"},
      {{"-p", "x", "--save-state", kModel}, 2, "is no saved state"},
      {{"-p", "x", "--packed-weights", ""}, 2, "the value is empty"},
      {{"--load-state", "/nowhere.state"}, 1, "/nowhere.state: cannot open"},
      {{"--load-state", kModel + "/config.json"}, 1, "no saved state, or a damaged one"},
      {{"--load-state", kModel + "/model.safetensors"}, 1, "no saved state, or a damaged one"},
      {{"-p", "x", "--save-state", "/nowhere/text.state"}, 1, "/nowhere/text.state"},
  };
  for (const auto& one : cases) {
    const auto result = generate(one.arguments);
    EXPECT_EQ(result.status, one.status) << result.errors;
    EXPECT_THAT(result.errors, HasSubstr(one.message));
  }
}

std::string write(const std::filesystem::path& path, const std::string& content) {
  std::ofstream(path) << content;
  return path.string();
}

TEST_F(GenerateCommand, ContinuesAFileOfPromptsAsEachAlone) {
  const auto alone = [](const std::string& prompt) { return ids(json_of({"-p", prompt})); };
  const std::vector<std::string> prompts{kPrompt, "The little \"fox\"", "One day, a girl named Lily"};
  std::string lines;
  for (const std::string& prompt : prompts) lines += Json{{"prompt", prompt}}.dump() + "\n";
  const std::string path = write(scratch_.path() / "prompts.jsonl", lines);
  const auto result = generate({"--prompts", path, "--json", "--max-num-seqs", "2"});
  ASSERT_EQ(result.status, 0) << result.errors;
  std::istringstream output(result.output);
  std::set<size_t> seen;
  for (std::string line; std::getline(output, line);) {
    const Json json = parse_json(line, "line");
    const auto index = json["index"].get<size_t>();
    ASSERT_TRUE(seen.insert(index).second);
    EXPECT_EQ(json["prompt"], prompts.at(index));
    EXPECT_EQ(ids(json), alone(prompts[index]));
    EXPECT_EQ(json["finish_reason"], "max_tokens");
  }
  EXPECT_EQ(seen.size(), prompts.size());
  const auto in_turns = generate({"--prompts", path, "--json", "--kv-cache-memory-bytes", "300KiB"});
  EXPECT_THAT(in_turns.output, HasSubstr("\"index\":2")) << in_turns.errors;
  const std::string text = write(scratch_.path() / "prompts.txt", prompts[0] + "\r\n\n" + prompts[2] + "\n");
  const auto shown = generate({"--prompts", text});
  EXPECT_EQ(shown.status, 0) << shown.errors;
  EXPECT_EQ(shown.output, "=== 0: 24 tokens, max_tokens ===\n" + generate({"-p", prompts[0]}).output +
                              "=== 1: 24 tokens, max_tokens ===\n" + generate({"-p", prompts[2]}).output);
  EXPECT_THAT(shown.errors, HasSubstr("[2 texts, 48 tokens in"));
}

TEST_F(GenerateCommand, BatchesAreInvariantInFloatingPointToo) {
  const std::string prompts = write(scratch_.path() / "prompts.txt", "The little fox\nOnce\nOne day\n");
  const auto result = generate(
      {"--prompts", prompts, "--activations", "fp32", "--batch-invariant", "--logprobs", "0", "--json"});
  ASSERT_EQ(result.status, 0) << result.errors;
  std::istringstream output(result.output);
  int lines = 0;
  for (std::string line; std::getline(output, line); ++lines) {
    const Json json = parse_json(line, "line");
    const auto prompt = json["prompt"].get<std::string>();
    const Json alone = json_of({"-p", prompt, "--activations", "fp32", "--logprobs", "0"});
    EXPECT_EQ(ids(json), ids(alone)) << prompt;
    EXPECT_EQ(json["cumulative_logprob"], alone["cumulative_logprob"]) << prompt;
  }
  EXPECT_EQ(lines, 3);
}

/// JSON without the brace that begins it: blanks may come, and then nothing.
TEST_F(GenerateCommand, ATextWithoutANextTokenEndsAlone) {
  const std::string prompts = write(scratch_.path() / "prompts.txt", "a\nb\n");
  const std::vector<std::string> hopeless{"--response-format", "json_object", "--logit-bias",
                                          "91=-inf",           "-n",          "50"};
  std::vector<std::string> arguments{"--prompts", prompts, "--json"};
  arguments.insert(arguments.end(), hopeless.begin(), hopeless.end());
  const auto result = generate(arguments);
  EXPECT_EQ(result.status, 2);
  EXPECT_THAT(result.errors,
              HasSubstr("2 of 2 texts failed, the first at index 0: no token may come next: none of "
                        "those that the response format allows is left by logit_bias"));
  std::istringstream output(result.output);
  int lines = 0;
  for (std::string line; std::getline(output, line); ++lines) {
    const Json json = parse_json(line, "line");
    EXPECT_EQ(json["finish_reason"], "error");
    EXPECT_THAT(json["error"].get<std::string>(), HasSubstr("no token may come next"));
  }
  EXPECT_EQ(lines, 2);
}

TEST_F(GenerateCommand, KeepsKeysAndValuesAsAsked) {
  for (const std::string type : {"fp32", "fp16", "bf16", "int8"}) {
    const Json json = json_of({"-p", kPrompt, "--kv-cache-dtype", type});
    EXPECT_EQ(json["generated_tokens"], 24) << type;
  }
  const auto bytes_of_state = [&](const std::string& type) {
    EXPECT_EQ(generate({"-p", kPrompt, "--kv-cache-dtype", type, "--save-state", file()}).status, 0);
    return std::filesystem::file_size(file());
  };
  const auto exact = bytes_of_state("fp32");
  const auto halves = bytes_of_state("fp16");
  EXPECT_LT(halves, exact);
  EXPECT_LT(bytes_of_state("int8"), halves);
  for (const auto& [asked, kept] : {std::pair{"auto", "fp16"}, {"float32", "fp32"}, {"bfloat16", "bf16"}}) {
    bytes_of_state(asked);
    EXPECT_THAT(read_text_file(file()), HasSubstr("\"kv\":\"" + std::string(kept) + "\"")) << asked;
  }
}

TEST_F(GenerateCommand, RefusesWhatBatchesCannotDo) {
  const std::string prompts = write(scratch_.path() / "prompts.txt", "a\nb\n");
  const std::string empty = write(scratch_.path() / "empty.txt", "\n");
  const std::string nothing = write(scratch_.path() / "nothing.jsonl", "{\"text\": \"a\"}\n");
  const std::string long_one = write(scratch_.path() / "long.jsonl", "{\"prompt\": \"a\"}\n{\"prompt\": \"" +
                                                                         std::string(40000, 'x') + "\"}\n");
  struct Case {
    std::vector<std::string> arguments;
    int status;
    std::string message;
  };
  const std::vector<Case> cases{
      {{"--prompts", prompts, "-p", "x"}, 2, "--prompt excludes --prompts"},
      {{"--prompts", prompts, "--num-return-sequences", "2"}, 2, "is for one prompt"},
      {{"--prompts", prompts, "--save-state", file()}, 2, "are for one prompt"},
      {{"--prompts", empty}, 2, "empty.txt: no prompts"},
      {{"--prompts", nothing}, 1, "nothing.jsonl: line 1: the key"},
      {{"--prompts", "/nowhere.txt"}, 1, "/nowhere.txt"},
      {{"--prompts", long_one}, 2, "the prompt at index 1: the prompt has"},
      {{"-p", "x", "--max-num-seqs", "2"}, 2, "--max-num-seqs requires --prompts"},
      {{"--prompts", prompts, "--max-num-batched-tokens", "0"}, 2, "--max-num-batched-tokens"},
      {{"-p", "x", "--kv-cache-memory-bytes", "1GiB"}, 2, "--kv-cache-memory-bytes requires --prompts"},
      {{"-p", "x", "--batch-invariant"}, 2, "--batch-invariant requires --prompts"},
      {{"--prompts", prompts, "--kv-cache-memory-bytes", "much"},
       2,
       "--kv-cache-memory-bytes: \"much\" is no size"},
      {{"--prompts", prompts, "--kv-cache-memory-bytes", "0"}, 2, "\"0\" is no size"},
      {{"--prompts", prompts, "--kv-cache-memory-bytes", "1KiB"},
       2,
       "kv_cache_memory_bytes is 1024, but 128"},
      {{"--prompts", prompts, "-n", "400", "--kv-cache-memory-bytes", "900KiB"},
       2,
       "the prompt at index 0: a prompt of 1 tokens and 400 more take 4 blocks"},
      {{"-p", "x", "--kv-cache-dtype", "fp8"},
       2,
       "--kv-cache-dtype: keys and values as \"fp8\" are not known"},
  };
  for (const auto& one : cases) {
    const auto result = generate(one.arguments);
    EXPECT_EQ(result.status, one.status) << result.errors;
    EXPECT_THAT(result.errors, HasSubstr(one.message));
    EXPECT_EQ(result.output, "");
  }
}

}  // namespace
}  // namespace salient
