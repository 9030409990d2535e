#pragma once

#include <optional>

#include "base/json.h"
#include "text/regex.h"

namespace salient {

/// The `pattern` of Split and Replace in a tokenizer.json: {"String": ...} or {"Regex": ...}.
class TextPattern {
 public:
  explicit TextPattern(const JsonView& pattern);

  /// Finds the matches of one pattern in many texts; one per thread.
  class Search {
   public:
    explicit Search(const TextPattern& pattern);
    /// As RegexSearch::cut.
    void cut(std::string_view text, std::vector<TextRange>& ranges);

   private:
    const TextPattern& pattern_;
    std::optional<RegexSearch> regex_;
  };

 private:
  std::string literal_;
  std::optional<Regex> regex_;
};

struct Replacement {
  std::string_view content;
  /// A result above this size is refused: chained replacements could otherwise fill the memory from a small
  /// text.
  size_t size_limit;
};

/// `text` with each match replaced; `ranges` is scratch and holds the cut afterwards. Errors:
/// invalid_argument.
std::string replace_matches(TextPattern::Search& search, std::string_view text,
                            const Replacement& replacement, std::vector<TextRange>& ranges);

}  // namespace salient
