#include "base/json.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace salient {
namespace {

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_format);
    return error.what();
  }
  return "nothing was thrown";
}

TEST(JsonView, NamesFilePathAndValueOfAWrongType) {
  const Json json = parse_json(R"({"rope_scaling": {"factor": "two"}})", "config.json");
  const JsonView view(json, "config.json");
  EXPECT_EQ(message_of([&] { view.at("rope_scaling").at("factor").as_double(); }),
            "config.json: rope_scaling: factor: expected a number, got \"two\"");
  EXPECT_EQ(message_of([&] { view.at("layers"); }), "config.json: the key \"layers\" is missing");
}

TEST(JsonView, BoundsIntegers) {
  const Json json = parse_json(R"({"a": 18446744073709551615, "b": -1, "c": 1.5})", "x");
  const JsonView view(json, "x");
  EXPECT_EQ(message_of([&] { view.at("a").as_int(0, 10); }), "x: a: 18446744073709551615 is outside [0, 10]");
  EXPECT_EQ(message_of([&] { view.at("b").as_int(0, 10); }), "x: b: -1 is outside [0, 10]");
  EXPECT_EQ(message_of([&] { view.at("c").as_int(); }), "x: c: expected an integer, got 1.5");
}

TEST(JsonView, NullCountsAsAbsent) {
  const Json json = parse_json(R"({"a": null})", "x");
  EXPECT_FALSE(JsonView(json, "x").find("a").has_value());
  EXPECT_EQ(JsonView(json, "x").int_or("a", 3), 3);
}

TEST(ParseJson, KeepsTheOrderAndTheLastOfEqualKeys) {
  std::string text = "{";
  for (int i = 0; i < 100; ++i) text += fmt::format(R"("k{}": {}, )", 99 - i, i);
  const Json json = parse_json(text + R"("k50": "again", "k99": {"k99": [1, {}, null]}})", "x");
  ASSERT_EQ(json.size(), 100u);
  EXPECT_EQ(json.items().begin().key(), "k99");
  EXPECT_EQ(json.at("k99").dump(), R"({"k99":[1,{},null]})");
  EXPECT_EQ(json.at("k50"), "again");
  EXPECT_EQ(json.at("k0"), 99);
}

TEST(ParseJson, RefusesNestingThatCouldExhaustTheStack) {
  EXPECT_EQ(message_of([] { parse_json(std::string(1'000'000, '['), "f.json"); }),
            "f.json: nested deeper than 200 levels");
}

TEST(ParseJson, ReadsALargeObjectInLinearTime) {
  std::string text = "{";
  for (int i = 0; i < 200'000; ++i) text += fmt::format("\"token{}\":{},", i, i);
  const Json json = parse_json(text + "\"last\":1}", "x");
  EXPECT_EQ(json.size(), 200'001u);
}

TEST(ParseJson, SaysWhereItBroke) {
  EXPECT_EQ(message_of([] {
              parse_json("{\"a\": }", "f.json");
            }).rfind("f.json: not valid JSON: parse error at line 1", 0),
            0u);
}

}  // namespace
}  // namespace salient
