#include <algorithm>
#include <array>

#include "base/error.h"
#include "text/byte_level.h"
#include "text/component.h"
#include "text/metaspace.h"
#include "text/text_pattern.h"
#include "text/unicode.h"

namespace salient {
namespace {

/// What becomes of the matches when a text is cut at them.
enum class Matches { isolated, removed, merged_with_previous, merged_with_next, contiguous };

/// Joins or drops ranges (in text order, of which those that match alternate freely with the others).
void arrange(std::vector<TextRange>& ranges, Matches matches) {
  const auto join = [&](auto begins_new) {
    std::vector<TextRange> joined;
    for (size_t i = 0; i < ranges.size(); ++i) {
      if (joined.empty() || begins_new(i)) {
        joined.push_back(ranges[i]);
      } else {
        joined.back().end = ranges[i].end;
      }
    }
    ranges = std::move(joined);
  };
  switch (matches) {
    case Matches::isolated:
      break;
    case Matches::removed:
      std::erase_if(ranges, [](const TextRange& range) { return range.is_match; });
      break;
    case Matches::contiguous:
      join([&](size_t i) { return ranges[i].is_match != ranges[i - 1].is_match; });
      break;
    case Matches::merged_with_previous:
      join([&](size_t i) { return !ranges[i].is_match || ranges[i - 1].is_match; });
      break;
    case Matches::merged_with_next:
      join([&](size_t i) { return ranges[i].is_match || !ranges[i - 1].is_match; });
      break;
  }
}

struct CutOptions {
  Matches matches;
  const CancellationFlag* cancelled;
};

/// Cuts all pieces that are no tokens yet with `cut(text, ranges)`.
template <typename Cut>
void cut_pieces(std::vector<Piece>& pieces, const CutOptions& options, Cut&& cut) {
  std::vector<Piece> result;
  result.reserve(pieces.size());
  std::vector<TextRange> ranges;
  for (Piece& piece : pieces) {
    if (piece.token != Piece::kNoToken) {
      result.push_back(std::move(piece));
      continue;
    }
    cut(std::string_view(piece.text), ranges);
    arrange(ranges, options.matches);
    for (const auto& [begin, end, is_match] : ranges) {
      throw_if_cancelled(options.cancelled);
      if (begin == end) continue;
      result.push_back({.text = piece.text.substr(begin, end - begin),
                        .token = Piece::kNoToken,
                        .starts_text = piece.starts_text && begin == 0});
    }
  }
  pieces = std::move(result);
}

/// Each character of which `matches` holds is a match by itself.
template <typename Predicate>
void cut_at_characters(std::string_view text, std::vector<TextRange>& ranges, Predicate&& matches) {
  ranges.clear();
  size_t covered = 0;
  for (size_t offset = 0; offset < text.size();) {
    const size_t begin = offset;
    if (!matches(next_character(text, offset))) continue;
    if (covered != begin) ranges.push_back({.begin = covered, .end = begin});
    ranges.push_back({.begin = begin, .end = offset, .is_match = true});
    covered = offset;
  }
  if (covered != text.size()) ranges.push_back({.begin = covered, .end = text.size()});
}

class PreTokenizerSequence : public PreTokenizer {
 public:
  explicit PreTokenizerSequence(const JsonView& description) {
    for (const JsonView& part : description.at("pretokenizers").elements()) {
      if (auto pretokenizer = build_pretokenizer(part)) parts_.push_back(std::move(pretokenizer));
    }
  }
  void apply(std::vector<Piece>& pieces, const CancellationFlag* cancelled) const override {
    for (const auto& part : parts_) part->apply(pieces, cancelled);
  }

 private:
  std::vector<std::unique_ptr<PreTokenizer>> parts_;
};

class ByteLevelPreTokenizer : public PreTokenizer {
 public:
  explicit ByteLevelPreTokenizer(const JsonView& description)
      : add_prefix_space_(description.bool_or("add_prefix_space", true)) {
    if (description.bool_or("use_regex", true)) regex_.emplace(kGpt2Pattern);
  }

  void apply(std::vector<Piece>& pieces, const CancellationFlag* cancelled) const override {
    if (add_prefix_space_) {
      for (Piece& piece : pieces) {
        if (piece.token == Piece::kNoToken && !piece.text.starts_with(' ')) piece.text.insert(0, 1, ' ');
      }
    }
    if (regex_) {
      RegexSearch search(*regex_, cancelled);
      cut_pieces(pieces, {Matches::isolated, cancelled},
                 [&](auto text, auto& ranges) { search.cut(text, ranges); });
    }
    for (Piece& piece : pieces) {
      throw_if_cancelled(cancelled);
      if (piece.token == Piece::kNoToken) piece.text = to_byte_characters(piece.text);
    }
  }

 private:
  static constexpr std::string_view kGpt2Pattern =
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

  bool add_prefix_space_;
  std::optional<Regex> regex_;
};

Matches read_behavior(const JsonView& behavior) {
  constexpr std::pair<std::string_view, Matches> kBehaviors[] = {
      {"Isolated", Matches::isolated},
      {"Removed", Matches::removed},
      {"MergedWithPrevious", Matches::merged_with_previous},
      {"MergedWithNext", Matches::merged_with_next},
      {"Contiguous", Matches::contiguous},
  };
  for (const auto& [name, matches] : kBehaviors) {
    if (behavior.as_string() == name) return matches;
  }
  fail(ErrorKind::unsupported,
       "{}: \"{}\" is not supported (supported: Isolated, Removed, MergedWithPrevious, "
       "MergedWithNext, Contiguous)",
       behavior.path(), behavior.as_string());
}

class SplitPreTokenizer : public PreTokenizer {
 public:
  explicit SplitPreTokenizer(const JsonView& description)
      : pattern_(description.at("pattern")),
        matches_(read_behavior(description.at("behavior"))),
        invert_(description.bool_or("invert", false)) {}

  void apply(std::vector<Piece>& pieces, const CancellationFlag* cancelled) const override {
    TextPattern::Search search(pattern_, cancelled);
    cut_pieces(pieces, {matches_, cancelled}, [&](auto text, auto& ranges) {
      search.cut(text, ranges);
      if (!invert_) return;
      for (TextRange& range : ranges) range.is_match = !range.is_match;
    });
  }

 private:
  TextPattern pattern_;
  Matches matches_;
  bool invert_;
};

class DigitsPreTokenizer : public PreTokenizer {
 public:
  explicit DigitsPreTokenizer(const JsonView& description)
      : matches_(description.bool_or("individual_digits", false) ? Matches::isolated : Matches::contiguous) {}

  void apply(std::vector<Piece>& pieces, const CancellationFlag* cancelled) const override {
    cut_pieces(pieces, {matches_, cancelled},
               [](auto text, auto& ranges) { cut_at_characters(text, ranges, is_numeric); });
  }

 private:
  Matches matches_;
};

/// Words (letters, marks, decimal digits, connectors) and runs of what is neither word nor space.
class WhitespacePreTokenizer : public PreTokenizer {
 public:
  explicit WhitespacePreTokenizer(const JsonView&) {}

  void apply(std::vector<Piece>& pieces, const CancellationFlag* cancelled) const override {
    RegexSearch search(regex_, cancelled);
    cut_pieces(pieces, {Matches::removed, cancelled}, [&](auto text, auto& ranges) {
      search.cut(text, ranges);
      for (TextRange& range : ranges) range.is_match = !range.is_match;
    });
  }

 private:
  Regex regex_{fmt::format("[{0}]+|[^\\s{0}]+", kRustWordSet)};
};

class WhitespaceSplitPreTokenizer : public PreTokenizer {
 public:
  explicit WhitespaceSplitPreTokenizer(const JsonView&) {}

  void apply(std::vector<Piece>& pieces, const CancellationFlag* cancelled) const override {
    cut_pieces(pieces, {Matches::removed, cancelled},
               [](auto text, auto& ranges) { cut_at_characters(text, ranges, is_white_space); });
  }
};

class MetaspacePreTokenizer : public PreTokenizer {
 public:
  explicit MetaspacePreTokenizer(const JsonView& description) : metaspace_(read_metaspace(description)) {}

  void apply(std::vector<Piece>& pieces, const CancellationFlag* cancelled) const override {
    for (Piece& piece : pieces) {
      if (piece.token == Piece::kNoToken) mark_spaces(piece);
    }
    if (!metaspace_.split) return;
    const char32_t mark = metaspace_.replacement_character();
    cut_pieces(pieces, {Matches::merged_with_next, cancelled}, [&](auto text, auto& ranges) {
      cut_at_characters(text, ranges, [&](char32_t character) { return character == mark; });
    });
  }

 private:
  void mark_spaces(Piece& piece) const {
    std::string marked;
    marked.reserve(piece.text.size() + piece.text.size() / 4);
    const bool may_prepend = metaspace_.scheme == Metaspace::Scheme::always ||
                             (metaspace_.scheme == Metaspace::Scheme::first && piece.starts_text);
    const bool has_mark = piece.text.starts_with(' ') || piece.text.starts_with(metaspace_.replacement);
    if (may_prepend && !has_mark) marked = metaspace_.replacement;
    for (const char c : piece.text) {
      if (c == ' ') {
        marked += metaspace_.replacement;
      } else {
        marked += c;
      }
    }
    piece.text = std::move(marked);
  }

  Metaspace metaspace_;
};

template <typename Component>
std::unique_ptr<PreTokenizer> make(const JsonView& description) {
  return std::make_unique<Component>(description);
}

struct PreTokenizerRow {
  std::string_view type;
  std::unique_ptr<PreTokenizer> (*build)(const JsonView& description);
};

constexpr PreTokenizerRow kPreTokenizers[] = {
    {"Sequence", make<PreTokenizerSequence>},     {"ByteLevel", make<ByteLevelPreTokenizer>},
    {"Split", make<SplitPreTokenizer>},           {"Digits", make<DigitsPreTokenizer>},
    {"Whitespace", make<WhitespacePreTokenizer>}, {"WhitespaceSplit", make<WhitespaceSplitPreTokenizer>},
    {"Metaspace", make<MetaspacePreTokenizer>},
};

}  // namespace

std::unique_ptr<PreTokenizer> build_pretokenizer(const JsonView& description) {
  if (description.json().is_null()) return nullptr;
  std::array<std::string_view, std::size(kPreTokenizers)> types;
  std::transform(std::begin(kPreTokenizers), std::end(kPreTokenizers), types.begin(),
                 [](const PreTokenizerRow& row) { return row.type; });
  return kPreTokenizers[component_index(description, "pre-tokenizer", types)].build(description);
}

}  // namespace salient
