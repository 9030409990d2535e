#include "base/spelling.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <numeric>
#include <vector>

namespace salient {
namespace {

char lower(char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); }

/// Insertions, deletions, replacements and swaps of neighbours (Damerau 1964, restricted) that make `a` of
/// `b`.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> before(b.size() + 1);
  std::vector<size_t> last(b.size() + 1);
  std::vector<size_t> row(b.size() + 1);
  std::iota(last.begin(), last.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = last[j - 1] + (lower(a[i - 1]) == lower(b[j - 1]) ? 0 : 1);
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, replaced});
      const bool swapped =
          i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) && lower(a[i - 2]) == lower(b[j - 1]);
      if (swapped) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

}  // namespace

std::string_view closest_word(std::string_view word, std::span<const std::string_view> known) {
  constexpr size_t kLongest = 64;
  if (word.empty() || word.size() > kLongest) return {};
  std::string_view best;
  size_t least = std::max<size_t>(2, word.size() / 3) + 1;
  for (const std::string_view candidate : known) {
    const size_t edits = distance(word, candidate);
    if (edits >= least || edits >= candidate.size()) continue;
    best = candidate;
    least = edits;
  }
  return best;
}

std::string suggest(std::string_view word, std::span<const std::string_view> known) {
  const std::string_view closest = closest_word(word, known);
  if (!closest.empty()) return fmt::format("did you mean \"{}\"?", closest);
  return fmt::format("the known ones are {}", fmt::join(known, ", "));
}

std::string_view whole_characters(std::string_view text, size_t limit) {
  if (text.size() <= limit) return text;
  constexpr size_t kLongestTail = 3;  // of a character; what is no UTF-8 is cut somewhere
  size_t end = limit;
  while (end > 0 && limit - end < kLongestTail && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80)
    --end;
  return text.substr(0, end);
}

std::string shortened(std::string_view text, size_t limit) {
  const std::string_view start = whole_characters(text, limit);
  return start.size() == text.size() ? std::string(text) : std::string(start) + "...";
}

}  // namespace salient
