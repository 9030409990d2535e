#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/cancellation.h"

namespace salient {

/// Bytes [begin, end) of a text.
struct TextRange {
  size_t begin = 0;
  size_t end = 0;
  bool is_match = false;
};

/// Rewrites a pattern in the dialect of tokenizer.json (Oniguruma with Ruby syntax) as a PCRE2 pattern of the
/// same meaning. Errors: unsupported, for constructs that PCRE2 lacks or reads differently.
std::string translate_pattern(std::string_view pattern);

/// Word characters of the Rust regular expressions inside HF (its \w outside tokenizer.json), to stand in
/// brackets.
inline constexpr std::string_view kRustWordSet =
    R"(\p{Alphabetic}\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\p{Join_Control})";

/// A compiled regular expression of a tokenizer.json. Immutable, so threads may share it.
class Regex {
 public:
  /// Errors: unsupported, bad_format, naming the pattern.
  explicit Regex(std::string_view pattern);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  const std::string& pattern() const { return pattern_; }

 private:
  friend class RegexSearch;
  struct Code;
  std::string pattern_;
  std::unique_ptr<Code> code_;
};

/// Working memory for searches with one regular expression: one per thread, used again for many texts.
class RegexSearch {
 public:
  explicit RegexSearch(const Regex& regex, const CancellationFlag* cancelled = nullptr);
  ~RegexSearch();
  RegexSearch(const RegexSearch&) = delete;
  RegexSearch& operator=(const RegexSearch&) = delete;

  /// Cuts `text` (valid UTF-8) into its matches and what lies between them. Empty stretches between matches
  /// are left out, empty matches are not. Errors: invalid_argument when the search takes too many steps;
  /// cancelled, polled at each match.
  void cut(std::string_view text, std::vector<TextRange>& ranges);

 private:
  struct Match;
  bool find(std::string_view text, size_t from, TextRange& found);

  const Regex& regex_;
  const CancellationFlag* cancelled_;
  std::unique_ptr<Match> match_;
};

}  // namespace salient
