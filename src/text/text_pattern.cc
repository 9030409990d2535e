#include "text/text_pattern.h"

#include "base/error.h"
#include "base/spelling.h"

namespace salient {

TextPattern::TextPattern(const JsonView& pattern) {
  if (const auto literal = pattern.find("String")) {
    literal_ = literal->as_string();
    if (literal_.empty()) literal->reject("an empty pattern is not supported");
  } else if (const auto expression = pattern.find("Regex")) {
    with_context(expression->path(), [&] { regex_.emplace(expression->as_string()); });
  } else {
    pattern.reject("expected {\"String\": ...} or {\"Regex\": ...}");
  }
}

TextPattern::Search::Search(const TextPattern& pattern, const CancellationFlag* cancelled)
    : pattern_(pattern) {
  if (pattern.regex_) regex_.emplace(*pattern.regex_, cancelled);
}

void TextPattern::Search::cut(std::string_view text, std::vector<TextRange>& ranges) {
  if (regex_) return regex_->cut(text, ranges);
  ranges.clear();
  size_t covered = 0;
  const std::string& literal = pattern_.literal_;
  for (size_t begin = text.find(literal); begin != std::string_view::npos;
       begin = text.find(literal, covered)) {
    if (covered != begin) ranges.push_back({.begin = covered, .end = begin});
    covered = begin + literal.size();
    ranges.push_back({.begin = begin, .end = covered, .is_match = true});
  }
  if (covered != text.size()) ranges.push_back({.begin = covered, .end = text.size()});
}

std::string TextPattern::Search::replace(std::string_view text, const Replacement& replacement) {
  cut(text, ranges_);
  std::string result;
  result.reserve(text.size());
  for (const TextRange& range : ranges_) {
    result += range.is_match ? replacement.content : text.substr(range.begin, range.end - range.begin);
    if (result.size() > replacement.size_limit) {
      fail(ErrorKind::invalid_argument, "replacing by \"{}\" makes a text of {} bytes longer than {}",
           shortened(replacement.content, 20), text.size(), replacement.size_limit);
    }
  }
  return result;
}

}  // namespace salient
