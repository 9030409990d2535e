#include <algorithm>

#include "base/error.h"
#include "text/regex.h"
#include "text/unicode_tables.h"

namespace salient {
namespace {

/// What `property` has more in HF than in PCRE2, as ranges to stand inside a class; "L" has what "Lu", "Ll",
/// ... have.
std::string additions_to(std::string_view property) {
  std::string result;
  char32_t first = 0;
  char32_t last = 0;
  const auto write = [&] {
    if (last != 0) result += fmt::format("\\x{{{:x}}}-\\x{{{:x}}}", uint32_t{first}, uint32_t{last});
  };
  for (const PropertyRange& range : property_additions()) {
    const bool is_part =
        property.size() == 1 && range.property.size() == 2 && range.property[0] == property[0];
    if (range.property != property && !is_part) continue;
    if (range.first != last + 1) {
      write();
      first = range.first;
    }
    last = range.last;
  }
  write();
  return result;
}

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
    if (peek(1) == '?' && (peek(2) == 'C' || peek(2) == 'R'))
      refuse("recursion and callouts are not supported");
    const size_t end = pattern_.find_first_not_of("imx-", position_ + 2);
    const bool has_options = peek(1) == '?' && end != std::string_view::npos && end > position_ + 2 &&
                             (pattern_[end] == ':' || pattern_[end] == ')');
    if (!has_options) return copy(1);
    std::string options(pattern_.substr(position_, end - position_));
    std::replace(options.begin(), options.end(), 'm', 's');
    result_ += options;
    position_ = end;
  }

  /// `{,n}` counts from 0 in Ruby syntax, and `+` or `?` behind `{n}` repeats again instead of changing its
  /// kind.
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
      case '\0':
        refuse("ends with a backslash");
      case 's':
        return replace(R"(\p{White_Space})");
      case 'S':
        return replace(R"(\P{White_Space})");
      case 'v':
        return replace(R"(\x0b)");
      case 'd':
        return replace(set(digit_set_));
      case 'D':
        return replace(in_class_ ? R"(\D)" : complement(digit_set_));
      case 'w':
        return replace(set(word_set_));
      case 'W':
        return replace(complement(word_set_));
      case 'h':
        return replace(set("0-9A-Fa-f"));
      case 'H':
        return replace(complement("0-9A-Fa-f"));
      case 'b':
        return replace(in_class_ ? R"(\b)" : boundary('!', '='));
      case 'B':
        return replace(boundary('=', '!'));
      case 'u':
        return code_point();
      default:
        break;
    }
    if (c == 'p' || c == 'P') return property(c == 'P');
    if (c == 'x' && peek(2) == '{') return copy(braces().size() + 4);
    constexpr std::string_view kSame = "nrtfaexAzZGRXk0123456789";
    const bool is_letter_or_digit =
        (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    if (is_letter_or_digit && kSame.find(c) == std::string_view::npos) {
      refuse(fmt::format("the escape \"\\{}\" is not supported", c));
    }
    copy(2);
  }

  /// What stands between the braces behind an escape of one letter.
  std::string_view braces() const {
    const size_t end = pattern_.find('}', position_);
    if (peek(2) != '{' || end == std::string_view::npos)
      refuse(fmt::format("\"\\{}\" without braces", peek(1)));
    return pattern_.substr(position_ + 3, end - position_ - 3);
  }

  /// `\p{X}`, `\P{X}` or `\p{^X}`. In a class, a negated property keeps PCRE2's idea of it.
  void property(bool negated) {
    const std::string_view name = braces();
    const size_t length = name.size() + 4;
    const bool has_caret = name.starts_with('^');
    const std::string additions = additions_to(has_caret ? name.substr(1) : name);
    if (additions.empty() || (in_class_ && negated != has_caret)) return copy(length);
    const std::string content = fmt::format("\\p{{{}}}{}", has_caret ? name.substr(1) : name, additions);
    result_ += negated != has_caret ? complement(content) : set(content);
    position_ += length;
  }

  std::string set(std::string_view content) const {
    return in_class_ ? std::string(content) : fmt::format("[{}]", content);
  }

  std::string complement(std::string_view content) const {
    if (in_class_) refuse("\\W and \\H inside a class are not supported");
    return fmt::format("[^{}]", content);
  }

  /// Between a word character and another one (`\b`), or not (`\B`): `first` and `second` are the signs of
  /// the look-ahead behind "a word character before" that make it so.
  std::string boundary(char first, char second) const {
    if (in_class_) refuse("\\B inside a class is not supported");
    return fmt::format("(?:(?<=[{0}])(?{1}[{0}])|(?<![{0}])(?{2}[{0}]))", word_set_, first, second);
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

  const std::string digit_set_ = R"(\p{Nd})" + additions_to("Nd");
  const std::string word_set_ = std::string(kWordSet) + additions_to("w");
  std::string_view pattern_;
  size_t position_ = 0;
  bool in_class_ = false;
  std::string result_;
};

}  // namespace

std::string translate_pattern(std::string_view pattern) { return Translator(pattern).run(); }

}  // namespace salient
