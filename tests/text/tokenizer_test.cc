#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "support/temporary_directory.h"

namespace salient {
namespace {

using SkipSpecial = Tokenizer::SkipSpecial;
using SpecialTokens = Tokenizer::SpecialTokens;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::string_view kSmall = R"({
  "added_tokens": [{"id": 6, "content": "<s>", "special": true}],
  "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
  "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4, "e": 5}, "merges": ["a b", ["ab", "c"]]}
})";

Json small() { return parse_json(kSmall, "small"); }

Tokenizer build(const Json& description) { return Tokenizer::from_json(description.dump(), "t.json"); }

Json byte_level() {
  Json description = small();
  description["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  description["decoder"] = {{"type", "ByteLevel"}};
  // U+4E2D and U+1F600 in the byte-level alphabet: bytes E4 B8 AD and F0 9F 98 80, and a lone FF.
  Json& vocabulary = description["model"]["vocab"];
  for (const char* token : {"ä", "¸", "Ń", "ð", "Ł", "ĺ", "Ģ", "ÿ", "Ġ"})
    vocabulary[token] = vocabulary.size() + 1;
  return description;
}

Json byte_fallback() {
  Json description = small();
  Json& vocabulary = description["model"]["vocab"];
  for (const char* token : {"<0xE4>", "<0xB8>", "<0xAD>", "\u2581", "\u2581a"})
    vocabulary[token] = vocabulary.size() + 1;
  description["model"]["byte_fallback"] = true;
  description["decoder"] = parse_json(
      R"({"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
          {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})",
      "decoder");
  return description;
}

struct Failure {
  ErrorKind kind;
  std::string message;
};

template <typename Body>
Failure failure_of(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    return {error.kind(), error.what()};
  }
  return {ErrorKind::internal, "nothing was thrown"};
}

Failure failure_of_building(const Json& description) {
  return failure_of([&] { build(description).encode("abc 12", SpecialTokens::add); });
}

TEST(Tokenizer, EncodesAndKnowsItsVocabulary) {
  const Tokenizer tokenizer = build(small());
  EXPECT_THAT(tokenizer.encode("abcab<s>c", SpecialTokens::add), ElementsAre(4, 3, 6, 2));
  EXPECT_THAT(tokenizer.encode("", SpecialTokens::add), IsEmpty());
  EXPECT_EQ(tokenizer.vocabulary_size(), 7u);
  EXPECT_EQ(tokenizer.token_id("<s>"), 6);
  EXPECT_EQ(tokenizer.token_id("zzz"), std::nullopt);
  EXPECT_EQ(tokenizer.token(4), "abc");
  EXPECT_TRUE(tokenizer.is_special(6));
  EXPECT_FALSE(tokenizer.is_special(4));
  EXPECT_EQ(failure_of([&] { tokenizer.token(7); }).kind, ErrorKind::not_found);
  EXPECT_EQ(failure_of([&] { tokenizer.token(-1); }).kind, ErrorKind::not_found);
}

TEST(Tokenizer, DecodesAnyIds) {
  const Tokenizer tokenizer = build(small());
  const std::vector<int32_t> ids = {4, 6, -5, 99, INT32_MAX, 0};
  EXPECT_EQ(tokenizer.decode(ids, SkipSpecial::no), "abc <s> a");
  EXPECT_EQ(tokenizer.decode(ids, SkipSpecial::yes), "abc a");
}

TEST(Tokenizer, RefusesTextThatIsNotUtf8) {
  const Tokenizer tokenizer = build(small());
  for (const std::string_view bad :
       {"ab\xFF", "ab\xC3", "ab\xED\xA0\x80", "ab\xF4\x90\x80\x80", "ab\xC0\x80"}) {
    const Failure failure = failure_of([&] { tokenizer.encode(bad, SpecialTokens::omit); });
    EXPECT_EQ(failure.kind, ErrorKind::invalid_argument);
    EXPECT_EQ(failure.message, "tokenizer: the text is not UTF-8 at byte 2");
  }
}

TEST(Tokenizer, MergesAWordOfAMegabyteInTime) {
  const Tokenizer tokenizer = build(small());
  std::string text;
  for (int i = 0; i < 350'000; ++i) text += "abc";
  EXPECT_EQ(tokenizer.encode(text, SpecialTokens::omit), std::vector<int32_t>(350'000, 4));
}

TEST(Tokenizer, NormalizesAMegabyteOfCombiningMarksInTime) {
  Json description = small();
  description["normalizer"] = {{"type", "NFC"}};
  std::string text;
  for (int i = 0; i < 250'000; ++i) text += "\u0301\u0316";
  EXPECT_THAT(build(description).encode(text, SpecialTokens::omit), IsEmpty());
}

TEST(Tokenizer, NamesComponentsItDoesNotSupport) {
  const std::pair<const char*, const char*> cases[] = {
      {"normalizer", "Precompiled"},
      {"pre_tokenizer", "BertPreTokenizer"},
      {"post_processor", "BertProcessing"},
      {"decoder", "WordPiece"},
      {"model", "Unigram"},
  };
  for (const auto& [key, type] : cases) {
    Json description = small();
    description[key] = {{"type", type}};
    const Failure failure = failure_of_building(description);
    EXPECT_EQ(failure.kind, ErrorKind::unsupported) << failure.message;
    EXPECT_THAT(failure.message, HasSubstr(fmt::format("t.json: {}: ", key)));
    EXPECT_THAT(failure.message,
                HasSubstr(fmt::format("of type \"{}\" is not supported (supported: ", type)));
  }
}

TEST(Tokenizer, RefusesFilesThatContradictThemselves) {
  const std::tuple<const char*, const char*, const char*> cases[] = {
      {"/model/vocab/a", "1", "tokens \"a\" and \"b\" have the same id 1"},
      {"/model/vocab/a", "-1", "token \"a\": id -1 is outside [0, 4194304)"},
      {"/model/vocab/a", "4194304", "id 4194304 is outside"},
      {"/model/vocab/a", "18446744073709551615", "18446744073709551615 is outside"},
      {"/model/vocab/a", "1e300", "expected an integer"},
      {"/model/vocab/a", "\"x\"", "expected an integer"},
      {"/model/vocab", "[]", "expected an object"},
      {"/model/merges", "[\"a z\"]", "merges[0]: token \"z\" is not in the vocabulary"},
      {"/model/merges", "[\"b a\"]", "merges[0]: token \"ba\" is not in the vocabulary"},
      {"/model/merges", "[\"a b c\"]", "merges[0]: expected \"a b\" or [\"a\", \"b\"]"},
      {"/model/merges", "[[\"a\", 1]]", "merges[0]: expected"},
      {"/model/merges", "7", "expected an array"},
      {"/model/dropout", "0.1", "dropout makes ids random"},
      {"/model/unk_token", "\"<unk>\"", "the unknown token \"<unk>\" is not in the vocabulary"},
      {"/added_tokens/0/id", "3", "added token \"<s>\" has the id 3 of token \"ab\""},
      {"/added_tokens/0/id", "-3", "-3 is outside"},
      {"/added_tokens/0/content", "null", "expected a string"},
      {"/normalizer", "{\"type\": \"Replace\", \"pattern\": {\"String\": \"\"}, \"content\": \"\"}",
       "empty pattern"},
      {"/normalizer", "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"(\"}, \"content\": \"\"}",
       "parenthesis"},
      {"/normalizer", "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"[a&&b]\"}, \"content\": \"\"}",
       "intersections"},
      {"/normalizer", "{\"prepend\": \"x\"}", "the key \"type\" is missing"},
      {"/pre_tokenizer", "{\"type\": \"Metaspace\", \"replacement\": \"ab\"}", "expected one character"},
      {"/pre_tokenizer", "{\"type\": \"Split\", \"pattern\": {\"String\": \"a\"}, \"behavior\": \"Odd\"}",
       "\"Odd\" is not"},
      {"/post_processor",
       "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"x\"}}, {\"Sequence\": "
       "{\"id\": \"A\"}}], "
       "\"special_tokens\": {\"x\": {\"ids\": [70]}}}",
       "id 70 is no token's"},
      {"/post_processor", "{\"type\": \"TemplateProcessing\", \"single\": []}", "exactly once"},
  };
  for (const auto& [pointer, value, message] : cases) {
    Json description = small();
    description[Json::json_pointer(pointer)] = parse_json(value, "value");
    const Failure failure = failure_of_building(description);
    EXPECT_TRUE(failure.kind == ErrorKind::bad_format || failure.kind == ErrorKind::unsupported)
        << failure.message;
    EXPECT_THAT(failure.message, HasSubstr(message)) << pointer;
  }
}

TEST(Tokenizer, EndsSearchesThatBacktrackWithoutEnd) {
  Json description = small();
  description["pre_tokenizer"] = {
      {"type", "Split"}, {"pattern", {{"Regex", "(?:a+a+)+x"}}}, {"behavior", "Isolated"}, {"invert", false}};
  const Tokenizer tokenizer = build(description);
  const Failure failure =
      failure_of([&] { tokenizer.encode(std::string(200, 'a') + "bx", SpecialTokens::omit); });
  EXPECT_EQ(failure.kind, ErrorKind::invalid_argument);
  EXPECT_THAT(failure.message, HasSubstr("gave up on a text of 202 bytes: match limit exceeded"));
}

TEST(Tokenizer, RefusesReplacementsThatGrowWithoutEnd) {
  Json description = small();
  const Json grow =
      parse_json(R"({"type": "Replace", "pattern": {"Regex": "."}, "content": "aaaaaaaaaaaaaaaa"})", "n");
  description["normalizer"] = {{"type", "Sequence"}, {"normalizers", std::vector<Json>(12, grow)}};
  const Failure failure = failure_of_building(description);
  EXPECT_EQ(failure.kind, ErrorKind::invalid_argument);
  EXPECT_THAT(failure.message, HasSubstr("longer than"));
}

TEST(TokenizerDirectory, AddsTheTokensOfTheConfiguration) {
  const TemporaryDirectory directory;
  EXPECT_EQ(failure_of([&] { Tokenizer::from_directory(directory.path().string()); }).kind,
            ErrorKind::not_found);
  write_file_atomically((directory.path() / "tokenizer.json").string(), kSmall);
  EXPECT_EQ(Tokenizer::from_directory(directory.path().string()).vocabulary_size(), 7u);
  write_file_atomically(
      (directory.path() / "tokenizer_config.json").string(),
      R"({"bos_token": "<s>", "eos_token": {"content": "abc"}, "pad_token": null, "add_bos_token": true,
                            "added_tokens_decoder": {"7": {"content": "<x>", "special": true}}, "extra": [1]})");
  const Tokenizer tokenizer = Tokenizer::from_directory(directory.path().string());
  EXPECT_EQ(tokenizer.token_id("<x>"), 7);
  EXPECT_TRUE(tokenizer.is_special(4));
  EXPECT_THAT(tokenizer.encode("ababc<x>", SpecialTokens::add), ElementsAre(3, 4, 7));
}

TEST(TokenizerFile, SaysWhatIsWrongWithAFile) {
  EXPECT_EQ(failure_of([] { Tokenizer::from_file("/nonexistent/tokenizer.json"); }).kind,
            ErrorKind::not_found);
  EXPECT_THAT(failure_of([] { Tokenizer::from_json("{", "t.json"); }).message,
              HasSubstr("t.json: not valid JSON"));
  EXPECT_THAT(failure_of([] { Tokenizer::from_json("{}", "t.json"); }).message,
              HasSubstr("\"model\" is missing"));
  EXPECT_THAT(failure_of([] { Tokenizer::from_json("[]", "t.json"); }).message,
              HasSubstr("expected an object"));
}

std::vector<std::string> stream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  StreamDecoder decoder(tokenizer, SkipSpecial::yes);
  std::vector<std::string> pieces;
  for (const int32_t id : ids) pieces.push_back(decoder.push(id));
  pieces.push_back(decoder.finish());
  return pieces;
}

TEST(StreamDecoder, HoldsBackHalfACharacter) {
  const Tokenizer tokenizer = build(byte_level());
  const auto ids = tokenizer.encode("a\u4e2d\U0001F600b", SpecialTokens::omit);
  ASSERT_EQ(ids.size(), 9u);
  EXPECT_THAT(stream(tokenizer, ids), ElementsAre("a", "", "", "\u4e2d", "", "", "", "\U0001F600", "b", ""));
}

TEST(StreamDecoder, ShowsBytesThatNeverBecomeACharacter) {
  const Tokenizer tokenizer = build(byte_level());
  const int32_t e4 = *tokenizer.token_id("ä"), b8 = *tokenizer.token_id("¸"), ff = *tokenizer.token_id("ÿ");
  EXPECT_THAT(stream(tokenizer, {e4, b8}), ElementsAre("", "", "\uFFFD"));
  EXPECT_THAT(stream(tokenizer, {e4, b8, 0}), ElementsAre("", "", "\uFFFDa", ""));
  EXPECT_THAT(stream(tokenizer, {ff, ff, 0}), ElementsAre("\uFFFD", "\uFFFD", "a", ""));
}

TEST(StreamDecoder, LeavesOutSpecialAndUnknownIdsInsideACharacter) {
  const Tokenizer tokenizer = build(byte_level());
  const int32_t e4 = *tokenizer.token_id("ä"), b8 = *tokenizer.token_id("¸"), ad = *tokenizer.token_id("Ń");
  EXPECT_THAT(stream(tokenizer, {e4, 6, b8, 99999, -1, ad}), ElementsAre("", "", "", "", "", "\u4e2d", ""));
}

TEST(StreamDecoder, StripsTheSpaceOfTheFirstTokenOnly) {
  const Tokenizer tokenizer = build(byte_fallback());
  const int32_t word = *tokenizer.token_id("\u2581a");
  const int32_t e4 = *tokenizer.token_id("<0xE4>"), b8 = *tokenizer.token_id("<0xB8>"),
                ad = *tokenizer.token_id("<0xAD>");
  EXPECT_THAT(stream(tokenizer, {6, word, word, e4, b8, ad, word}),
              ElementsAre("", "a", " a", "", "", "\u4e2d", " a", ""));
}

TEST(StreamDecoder, BeginsAgainAfterTheEnd) {
  const Tokenizer tokenizer = build(byte_fallback());
  const int32_t word = *tokenizer.token_id("\u2581a");
  StreamDecoder decoder(tokenizer, SkipSpecial::yes);
  EXPECT_EQ(decoder.push(word), "a");
  EXPECT_EQ(decoder.finish(), "");
  EXPECT_EQ(decoder.push(word), "a");
}

}  // namespace
}  // namespace salient
