#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "support/shared_data.h"
#include "text/tokenizer.h"

namespace salient {
namespace {

using SkipSpecial = Tokenizer::SkipSpecial;
using SpecialTokens = Tokenizer::SpecialTokens;

const std::string kFolder = std::string(SALIENT_SOURCE_DIR) + "/tests/golden/text/";

std::vector<std::string> golden_texts() {
  return read_json_file(kFolder + "texts.json").get<std::vector<std::string>>();
}

std::string decoded(const Json& expected, const std::string& text) {
  return expected.is_null() ? text : expected.get<std::string>();
}

class TokenizerGolden : public testing::TestWithParam<const char*> {};

TEST_P(TokenizerGolden, EqualsHuggingFace) {
  const Json golden = read_json_file(kFolder + GetParam() + ".json");
  const auto texts = golden_texts();
  const Json& cases = golden.at("cases");
  ASSERT_EQ(cases.size(), texts.size());
  const Tokenizer tokenizer = Tokenizer::from_json(golden.at("tokenizer").dump(), GetParam());
  for (size_t i = 0; i < texts.size(); ++i) {
    SCOPED_TRACE(fmt::format("text {}: {}", i, Json(texts[i]).dump()));
    EXPECT_EQ(tokenizer.encode(texts[i], SpecialTokens::omit), cases[i][0].get<std::vector<int32_t>>());
    const auto ids = tokenizer.encode(texts[i], SpecialTokens::add);
    EXPECT_EQ(ids, cases[i][1].get<std::vector<int32_t>>());
    EXPECT_EQ(tokenizer.decode(ids, SkipSpecial::yes), decoded(cases[i][2], texts[i]));
    EXPECT_EQ(tokenizer.decode(ids, SkipSpecial::no), decoded(cases[i][3], texts[i]));
  }
}

TEST_P(TokenizerGolden, StreamsWhatItDecodes) {
  const Json golden = read_json_file(kFolder + GetParam() + ".json");
  const Tokenizer tokenizer = Tokenizer::from_json(golden.at("tokenizer").dump(), GetParam());
  for (const std::string& text : golden_texts()) {
    const auto ids = tokenizer.encode(text, SpecialTokens::add);
    StreamDecoder stream(tokenizer, SkipSpecial::yes);
    std::string streamed;
    for (const int32_t id : ids) streamed += stream.push(id);
    streamed += stream.finish();
    const std::string whole = tokenizer.decode(ids, SkipSpecial::yes);
    // One wrong byte turns all of a run of byte tokens into U+FFFD when decoded at once, see StreamDecoder.
    if (whole.find("\xEF\xBF\xBD") != std::string::npos) continue;
    EXPECT_EQ(streamed, whole) << Json(text).dump();
  }
}

INSTANTIATE_TEST_SUITE_P(Trained, TokenizerGolden,
                         testing::Values("gpt2", "llama3", "qwen2", "smollm", "llama2_legacy",
                                         "llama2_metaspace"),
                         [](const auto& test) { return std::string(test.param); });

TEST(OddTokenizers, EqualHuggingFace) {
  const Json golden = read_json_file(kFolder + "odd.json");
  const auto texts = golden.at("texts").get<std::vector<std::string>>();
  for (const auto& [name, variant] : golden.at("variants").items()) {
    Json description = golden.at("tokenizer");
    for (const auto& [key, part] : variant.at("parts").items()) description[key] = part;
    const Tokenizer tokenizer = Tokenizer::from_json(description.dump(), name);
    for (size_t i = 0; i < texts.size(); ++i) {
      const Json& expected = variant.at("cases")[i];
      const auto ids = tokenizer.encode(texts[i], SpecialTokens::add);
      EXPECT_EQ(ids, expected[0].get<std::vector<int32_t>>()) << name << ", text " << Json(texts[i]).dump();
      if (expected.size() < 2) continue;
      EXPECT_EQ(tokenizer.decode(ids, SkipSpecial::yes), expected[1].get<std::string>())
          << name << ", text " << Json(texts[i]).dump();
    }
  }
}

/// The texts of a llama.cpp vocabulary suite (.inp) and the ids of each (.out).
void check_suite(const std::filesystem::path& tokenizer_json, const std::filesystem::path& suite) {
  constexpr std::string_view kSeparator = "\n__ggml_vocab_test__\n";
  const Tokenizer tokenizer = Tokenizer::from_file(tokenizer_json.string());
  const std::string input = read_text_file(suite.string() + ".inp");
  std::ifstream output(suite.string() + ".out");
  size_t cases = 0;
  std::string line;
  for (size_t begin = 0; begin < input.size() && std::getline(output, line); ++cases) {
    const size_t end = std::min(input.find(kSeparator, begin), input.size());
    std::istringstream numbers(line);
    std::vector<int32_t> expected{std::istream_iterator<int32_t>(numbers), {}};
    EXPECT_EQ(tokenizer.encode(std::string_view(input).substr(begin, end - begin), SpecialTokens::omit),
              expected)
        << "case " << cases;
    begin = std::min(end + kSeparator.size(), input.size());
  }
  EXPECT_GE(cases, 46u);
}

class SharedTokenizer : public testing::TestWithParam<const char*> {};

TEST_P(SharedTokenizer, PassesItsSuite) {
  const std::string name = GetParam();
  SALIENT_SHARED_OR_SKIP(tokenizer, "tokenizers/" + name + "/tokenizer.json");
  SALIENT_SHARED_OR_SKIP(suite, "tokenizers/llama.cpp-vocab-tests/ggml-vocab-" + name + ".gguf.inp");
  check_suite(tokenizer, suite.parent_path() / suite.stem());
}

INSTANTIATE_TEST_SUITE_P(Suites, SharedTokenizer, testing::Values("gpt-2", "llama-bpe", "llama-spm", "qwen2"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(SharedTexts, RoundTrip) {
  SALIENT_SHARED_OR_SKIP(path, "tokenizers/smollm2/tokenizer.json");
  SALIENT_SHARED_OR_SKIP(text_path, "texts/wiki.test.raw");
  const Tokenizer tokenizer = Tokenizer::from_file(path.string());
  const std::string text = read_text_file(text_path.string());
  const auto ids = tokenizer.encode(text, SpecialTokens::omit);
  EXPECT_EQ(tokenizer.decode(ids, SkipSpecial::no), text);
}

}  // namespace
}  // namespace salient
