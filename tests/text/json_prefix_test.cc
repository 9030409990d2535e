#include "text/json_prefix.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

namespace salient {
namespace {

/// How many bytes of `text` a document can begin with, and whether it is whole then.
struct Reading {
  size_t taken;
  bool complete;
};

Reading read(std::string_view text) {
  JsonPrefix prefix;
  for (size_t i = 0; i < text.size(); ++i) {
    if (!prefix.push(text[i])) return {i, false};
  }
  return {text.size(), prefix.complete()};
}

bool accepts(std::string_view text) { return read(text).complete; }

/// What an independent parser says.
bool is_object(const std::string& text) {
  return nlohmann::json::accept(text) && nlohmann::json::parse(text).is_object();
}

const std::vector<std::string>& documents() {
  static const std::vector<std::string> texts{
      "{}",
      " \t\r\n{ } \n",
      R"({"a":1})",
      R"({"a":{"b":[{"c":[]},[[]],{}]},"":""})",
      R"({"numbers":[0,-0,1,-1,10,0.5,-0.25,1e5,1E+5,1e-5,0e0,0.0e10,123456789012345678901234567890]})",
      R"({ "literals" : [ true , false , null ] , "nested" : { "x" : true } })",
      R"({"escapes":"\"\\\/\b\f\n\r\t\u0041\uabcd\uD7ff\ue000\u0000"})",
      R"({"pairs":"\ud83d\ude00\uDBFF\uDFFF","key \u00e9":0})",
      "{\"utf8\":"
      "\"\xC2\x80\xDF\xBF\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xEF\xBF\xBF\xF0\x90\x80\x80\xF4\x8F\xBF\xBF\x7F"
      "\"}",
      "{\n  \"indented\": [\n    1,\n    {\n      \"deep\": null\n    }\n  ]\n}\n",
  };
  return texts;
}

TEST(JsonPrefix, TakesEveryBeginningOfADocument) {
  for (const std::string& text : documents()) {
    ASSERT_TRUE(is_object(text)) << text;
    const Reading all = read(text);
    EXPECT_EQ(all.taken, text.size()) << text;
    EXPECT_TRUE(all.complete) << text;
    const size_t end = text.rfind('}');
    for (size_t size = 0; size <= end; ++size)
      EXPECT_FALSE(accepts(text.substr(0, size))) << text.substr(0, size);
  }
}

TEST(JsonPrefix, RefusesTheFirstByteThatCannotBe) {
  struct Case {
    std::string text;
    size_t taken;
  };
  for (const auto& [text, taken] : std::vector<Case>{
           {"[]", 0},
           {"1", 0},
           {"\"a\"", 0},
           {"{}{", 2},
           {"{,", 1},
           {"{1", 1},
           {"{a", 1},
           {"{'a'", 1},
           {R"({"a"})", 4},
           {R"({"a":})", 5},
           {R"({"a":1,})", 7},
           {R"({"a":1]})", 6},
           {R"({"a":[1,]})", 8},
           {R"({"a":[1}})", 7},
           {R"({"a":[,1]})", 6},
           {R"({"a" 1})", 5},
           {R"({"a":1 2})", 7},
           {R"({"a":01})", 6},
           {R"({"a":-})", 6},
           {R"({"a":+1})", 5},
           {R"({"a":.5})", 5},
           {R"({"a":1.})", 7},
           {R"({"a":1.e5})", 7},
           {R"({"a":1e})", 7},
           {R"({"a":1e+})", 8},
           {R"({"a":1e5.0})", 8},
           {R"({"a":0x1})", 6},
           {R"({"a":-Infinity})", 6},
           {R"({"a":NaN})", 5},
           {R"({"a":True})", 5},
           {R"({"a":trap})", 7},
           {R"({"a":nul})", 8},
           {R"({"a":truefalse})", 9},
           {R"({"a":"\x"})", 7},
           {R"({"a":"\u12g"})", 10},
           {R"({"a":"\udc00"})", 9},
           {R"({"a":"\ud800"})", 12},
           {R"({"a":"\ud800\n"})", 13},
           {R"({"a":"\ud800\u0041"})", 14},
           {R"({"a":"\ud800\ud800"})", 15},
           {"{\"a\":\"\n\"}", 6},
           {std::string("{\"a\":\"\0\"}", 9), 6},
           {"{\"a\":\"\x80\"}", 6},
           {"{\"a\":\"\xC0\x80\"}", 6},
           {"{\"a\":\"\xC2\"}", 7},
           {"{\"a\":\"\xE0\x80\x80\"}", 7},
           {"{\"a\":\"\xED\xA0\x80\"}", 7},
           {"{\"a\":\"\xE2\x82\"}", 8},
           {"{\"a\":\"\xF0\x80\x80\x80\"}", 7},
           {"{\"a\":\"\xF4\x90\x80\x80\"}", 7},
           {"{\"a\":\"\xF5\x80\"}", 6},
           {"{/**/}", 1},
       }) {
    EXPECT_FALSE(is_object(text)) << text;
    EXPECT_EQ(read(text).taken, taken) << text;
    EXPECT_FALSE(accepts(text)) << text;
  }
}

/// RFC 8259 lets parsers skip it and writers not write it.
TEST(JsonPrefix, RefusesAByteOrderMark) { EXPECT_EQ(read("\xEF\xBB\xBF{}").taken, 0u); }

TEST(JsonPrefix, BoundsWhatNeverEnds) {
  const auto repeat = [](std::string_view part, int times) {
    std::string text;
    for (int i = 0; i < times; ++i) text += part;
    return text;
  };
  const auto value = [](const std::string& text) { return "{\"a\":" + text + "}"; };
  const auto nested = [&](int depth) { return value(repeat("[", depth - 1) + repeat("]", depth - 1)); };
  struct Case {
    std::string within;
    std::string beyond;
  };
  for (const auto& [within, beyond] : {
           Case{nested(JsonPrefix::kMostDepth), nested(JsonPrefix::kMostDepth + 1)},
           Case{value(repeat(" ", JsonPrefix::kMostWhitespace) + "1"),
                value(repeat(" ", JsonPrefix::kMostWhitespace + 1) + "1")},
           Case{"\n{\n\"a\"\n:\n[\n]\n}\n", "{\n \n}"},
           Case{value(repeat("7", JsonPrefix::kMostDigits)), value(repeat("7", JsonPrefix::kMostDigits + 1))},
           Case{value("0." + repeat("7", JsonPrefix::kMostDigits - 1)),
                value("0." + repeat("7", JsonPrefix::kMostDigits))},
           Case{value("-1e+99"), value("-1e+100")},
       }) {
    EXPECT_TRUE(is_object(within) && is_object(beyond));
    EXPECT_TRUE(accepts(within)) << within;
    EXPECT_FALSE(accepts(beyond)) << beyond;
  }
}

/// Exponents of three digits and more are beyond a bound.
bool has_long_exponent(const std::string& text) {
  for (size_t i = text.find_first_of("eE"); i != std::string::npos; i = text.find_first_of("eE", i + 1)) {
    size_t digit = i + 1;
    if (digit < text.size() && (text[digit] == '+' || text[digit] == '-')) ++digit;
    const size_t end = std::min(text.find_first_not_of("0123456789", digit), text.size());
    if (end - std::min(digit, end) > static_cast<size_t>(JsonPrefix::kMostExponent)) return true;
  }
  return false;
}

bool has_empty_line(const std::string& text) {
  for (size_t i = text.find('\n'); i != std::string::npos; i = text.find('\n', i + 1)) {
    const size_t next = text.find_first_not_of(" \t\r", i + 1);
    if (next != std::string::npos && text[next] == '\n') return true;
  }
  return false;
}

TEST(JsonPrefix, AgreesWithAParserAboutDamagedDocuments) {
  std::mt19937 random(5);
  const std::string bytes =
      std::string("{}[]\",:0123456789.-+eE\\/tfnu \n\tabdDcC8xX") + "\x80\xBF\xC2\xE0\xED\xF0\xF4\x7F\x1F";
  const auto pick = [&](size_t count) { return static_cast<size_t>(random() % count); };
  int valid = 0;
  for (int round = 0; round < 60000; ++round) {
    std::string text = documents()[pick(documents().size())];
    for (size_t change = 0; change <= pick(2); ++change) {
      const size_t place = pick(text.size());
      switch (pick(3)) {
        case 0:
          text[place] = bytes[pick(bytes.size())];
          break;
        case 1:
          text.insert(place, 1, bytes[pick(bytes.size())]);
          break;
        default:
          text.erase(place, 1);
      }
      if (text.empty()) break;
    }
    const bool expected = is_object(text);
    valid += expected ? 1 : 0;
    if (has_long_exponent(text) || has_empty_line(text)) continue;
    ASSERT_EQ(accepts(text), expected) << text;
  }
  EXPECT_GT(valid, 6000);
}

/// Any byte that may come, drawn at random, leads to a document: none of the states is a dead end, and what
/// was accepted byte by byte parses.
TEST(JsonPrefix, EveryWayLeadsToADocument) {
  for (uint32_t seed = 0; seed < 400; ++seed) {
    std::mt19937 random(seed);
    JsonPrefix prefix;
    std::string text;
    while (!prefix.complete()) {
      std::vector<char> next;
      for (int byte = 0; byte < 256; ++byte) {
        if (JsonPrefix(prefix).push(static_cast<char>(byte))) next.push_back(static_cast<char>(byte));
      }
      ASSERT_FALSE(next.empty()) << text;
      char byte = next[random() % next.size()];
      // Towards the end, else it would wander for long.
      for (const char closer : {'"', '}', ']'}) {
        if (random() % 4 == 0 && std::find(next.begin(), next.end(), closer) != next.end()) byte = closer;
      }
      ASSERT_TRUE(prefix.push(byte));
      text += byte;
      ASSERT_LT(text.size(), 100000u);
    }
    ASSERT_TRUE(is_object(text)) << text;
  }
}

}  // namespace
}  // namespace salient
