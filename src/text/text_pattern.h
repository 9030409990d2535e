#pragma once

#include <optional>

#include "base/json.h"
#include "text/regex.h"

namespace salient {

struct Replacement {
  std::string_view content;
  /// A result above this size is refused: chained replacements could otherwise fill the memory from a small
  /// text.
  size_t size_limit;
};

/// The `pattern` of Split and Replace in a tokenizer.json: {"String": ...} or {"Regex": ...}.
class TextPattern {
 public:
  explicit TextPattern(const JsonView& pattern);

  /// Finds the matches of one pattern in many texts; one per thread.
  class Search {
   public:
    explicit Search(const TextPattern& pattern, const CancellationFlag* cancelled = nullptr);
    /// As RegexSearch::cut, which alone polls the flag.
    void cut(std::string_view text, std::vector<TextRange>& ranges);
    /// `text` with each match replaced. Errors: invalid_argument.
    std::string replace(std::string_view text, const Replacement& replacement);
    /// The cut that the last `replace` was made from.
    const std::vector<TextRange>& ranges() const { return ranges_; }

   private:
    const TextPattern& pattern_;
    std::optional<RegexSearch> regex_;
    std::vector<TextRange> ranges_;
  };

 private:
  std::string literal_;
  std::optional<Regex> regex_;
};

}  // namespace salient
