#include <algorithm>

#include "base/error.h"
#include "text/regex.h"

namespace salient {
namespace {

// Oniguruma's \w; PCRE2 leaves out marks and connectors. Without brackets, to stand inside a class too.
constexpr std::string_view kWordSet = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";

class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  std::string run() {
    while (position_ < pattern_.size()) step();
    return std::move(result_);
  }

 private:
  char peek(size_t ahead = 0) const {
    return position_ + ahead < pattern_.size() ? pattern_[position_ + ahead] : '\0';
  }

  [[noreturn]] void refuse(std::string_view construct) const {
    fail(ErrorKind::unsupported, "regular expression \"{}\": {}", pattern_, construct);
  }

  void step() {
    const char c = peek();
    if (c == '\\') return escape();
    if (in_class_) return inside_class(c);
    if (c == '[') return open_class();
    if (c == '(') return group();
    if (c == '{') return repetition();
    result_ += c;
    ++position_;
  }

  void open_class() {
    in_class_ = true;
    result_ += '[';
    ++position_;
    if (peek() == '^') copy(1);
    if (peek() == ']') copy(1);  // a literal when it comes first, in both dialects
  }

  void inside_class(char c) {
    if (c == '[') {
      if (peek(1) != ':') refuse("character classes inside a class are not supported");
      const size_t end = pattern_.find(":]", position_ + 2);
      if (end == std::string_view::npos) refuse("\"[:\" without \":]\"");
      return copy(end + 2 - position_);
    }
    if (c == '&' && peek(1) == '&') refuse("intersections of character classes are not supported");
    if (c == ']') in_class_ = false;
    copy(1);
  }

  /// `(?m)` is the dot-matches-newline option in Ruby syntax; in PCRE2 that is `(?s)`.
  void group() {
    if (peek(1) == '*') refuse("\"(*\" is not supported");
    if (peek(1) == '?' && (peek(2) == 'C' || peek(2) == 'R')) refuse("recursion and callouts are not supported");
    const size_t end = pattern_.find_first_not_of("imx-", position_ + 2);
    const bool has_options = peek(1) == '?' && end != std::string_view::npos && end > position_ + 2 &&
                             (pattern_[end] == ':' || pattern_[end] == ')');
    if (!has_options) return copy(1);
    std::string options(pattern_.substr(position_, end - position_));
    std::replace(options.begin(), options.end(), 'm', 's');
    result_ += options;
    position_ = end;
  }

  /// `{,n}` counts from 0 in Ruby syntax, and `+` or `?` behind `{n}` repeats again instead of changing its kind.
  void repetition() {
    const size_t end = pattern_.find('}', position_);
    const std::string_view bounds =
        end == std::string_view::npos ? "" : pattern_.substr(position_ + 1, end - position_ - 1);
    const bool is_repetition = bounds.find_first_of("0123456789") != std::string_view::npos &&
                               bounds.find_first_not_of("0123456789,") == std::string_view::npos;
    if (!is_repetition) return copy(1);
    if (bounds.front() == ',') {
      result_ += "{0";
      position_ += 1;
    }
    copy(end + 1 - position_);
    const bool exact = bounds.find(',') == std::string_view::npos;
    if (peek() == '+' || (peek() == '?' && exact)) refuse("a repetition of \"{n}\" is not supported");
  }

  void escape() {
    const char c = peek(1);
    switch (c) {
      case '\0': refuse("ends with a backslash");
      case 's': return replace(R"(\p{White_Space})");
      case 'S': return replace(R"(\P{White_Space})");
      case 'v': return replace(R"(\x0b)");
      case 'w': return replace(set(kWordSet));
      case 'W': return replace(complement(kWordSet));
      case 'h': return replace(set("0-9A-Fa-f"));
      case 'H': return replace(complement("0-9A-Fa-f"));
      case 'b': return replace(in_class_ ? R"(\b)" : boundary('!', '='));
      case 'B': return replace(boundary('=', '!'));
      case 'u': return code_point();
      default: break;
    }
    if ((c == 'p' || c == 'P' || c == 'x') && peek(2) == '{') {
      const size_t end = pattern_.find('}', position_);
      if (end == std::string_view::npos) refuse(fmt::format("\"\\{}{{\" without \"}}\"", c));
      return copy(end + 1 - position_);
    }
    constexpr std::string_view kSame = "dDnrtfaexAzZGRXpPk0123456789";
    const bool is_letter_or_digit = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    if (is_letter_or_digit && kSame.find(c) == std::string_view::npos) {
      refuse(fmt::format("the escape \"\\{}\" is not supported", c));
    }
    copy(2);
  }

  std::string set(std::string_view content) const {
    return in_class_ ? std::string(content) : fmt::format("[{}]", content);
  }

  std::string complement(std::string_view content) const {
    if (in_class_) refuse("\\W and \\H inside a class are not supported");
    return fmt::format("[^{}]", content);
  }

  /// Between a word character and another one (`\b`), or not (`\B`): `first` and `second` are the signs of the
  /// look-ahead behind "a word character before" that make it so.
  std::string boundary(char first, char second) const {
    if (in_class_) refuse("\\B inside a class is not supported");
    return fmt::format("(?:(?<=[{0}])(?{1}[{0}])|(?<![{0}])(?{2}[{0}]))", kWordSet, first, second);
  }

  void code_point() {
    const std::string_view digits = pattern_.substr(position_ + 2, 4);
    if (digits.size() < 4 || digits.find_first_not_of("0123456789abcdefABCDEF") != std::string_view::npos) {
      refuse("\\u needs four hexadecimal digits");
    }
    result_ += fmt::format("\\x{{{}}}", digits);
    position_ += 6;
  }

  void replace(std::string_view text) {
    result_ += text;
    position_ += 2;
  }

  void copy(size_t count) {
    result_ += pattern_.substr(position_, count);
    position_ += count;
  }

  std::string_view pattern_;
  size_t position_ = 0;
  bool in_class_ = false;
  std::string result_;
};

}  // namespace

std::string translate_pattern(std::string_view pattern) { return Translator(pattern).run(); }

}  // namespace salient
