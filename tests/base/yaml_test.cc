#include "base/yaml.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/error_matcher.h"

namespace salient {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

Json parse(const std::string& text) { return parse_yaml(text, "a.yaml"); }

TEST(Yaml, ScalarsAreWhatPyYamlMakesOfThem) {
  EXPECT_EQ(parse("[1, -2, +3, 0.5, 1e-3, .5, true, Yes, off, ~, null, '', \"7\", re:.*q$, 1.2.3, inf, -]"),
            Json::array({1, -2, 3, 0.5, 1e-3, 0.5, true, true, false, nullptr, nullptr, "", "7", "re:.*q$",
                         "1.2.3", "inf", "-"}));
  EXPECT_EQ(parse(""), Json(nullptr));
  EXPECT_EQ(parse("a: {b: [c]}\nd: !!str 5\n"), (Json{{"a", {{"b", Json::array({"c"})}}}, {"d", "5"}}));
}

TEST(Yaml, JsonIsYaml) {
  const Json value{{"a", {1, 2.5, nullptr, true, "x\"y"}}, {"b", Json::object()}};
  EXPECT_EQ(parse(value.dump()), value);
}

TEST(Yaml, AliasesAreFollowed) {
  EXPECT_EQ(parse("a: &x [1]\nb: *x\n"), (Json{{"a", Json::array({1})}, {"b", Json::array({1})}}));
}

TEST(Yaml, MistakesAreNamedWithTheirLine) {
  const auto fails = [](const std::string& text, const std::string& message) {
    EXPECT_THAT([&] { parse(text); },
                throws_error(ErrorKind::bad_format, AllOf(HasSubstr("a.yaml"), HasSubstr(message))))
        << text;
  };
  fails("a: 1\nb: [1, 2\nc: 3\n", "not valid YAML: line 3");
  fails("a: 1\na: 2\n", "line 2: the key \"a\" stands twice");
  fails("[a]: 1\n", "a key must be a word");
  fails("a: !!python/object:os.system x\n",
        "the tag \"tag:yaml.org,2002:python/object:os.system\" is not supported");
  fails("a: *nothing\n", "not valid YAML");
  fails("a: 1\n---\nb: 2\n", "line 3: a second document begins");
}

TEST(Yaml, SmallFilesThatStandForHugeOnesAreRefused) {
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    bomb += fmt::format("a{0}: &a{0} [*a{1}, *a{1}, *a{1}, *a{1}, *a{1}, *a{1}, *a{1}, *a{1}]\n", i, i - 1);
  }
  EXPECT_THAT([&] { parse(bomb); },
              throws_error(ErrorKind::bad_format, HasSubstr("more than 100000 values")));
  std::string echo = fmt::format("a: &a {}\nb: [", std::string(100'000, 'x'));
  for (int i = 0; i < 100; ++i) echo += "*a, ";
  EXPECT_THAT([&] { parse(echo + "]"); }, throws_error(ErrorKind::bad_format, HasSubstr("bytes of text")));
  EXPECT_THAT([&] { parse(std::string(100, '[') + std::string(100, ']')); },
              throws_error(ErrorKind::bad_format, HasSubstr("nested more than 32 deep")));
  EXPECT_THAT([&] { parse(std::string(100'000, '[')); },
              throws_error(ErrorKind::bad_format, HasSubstr("a.yaml")));
  EXPECT_THAT([&] { parse(std::string(100'000, '-')); }, ::testing::Not(::testing::Throws<std::bad_alloc>()));
}

}  // namespace
}  // namespace salient
