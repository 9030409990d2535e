#include "text/added_tokens.h"

#include <algorithm>

#include "base/error.h"
#include "text/unicode.h"

namespace salient {
namespace {

// A text is compared with the added tokens at each of its bytes: this bounds the work at one.
constexpr size_t kContentLimit = 4096;
constexpr size_t kNormalizedLimit = 64 * kContentLimit;

/// Where the character before `offset` begins.
size_t previous_character(std::string_view text, size_t offset) {
  do --offset;
  while (offset > 0 && (static_cast<unsigned char>(text[offset]) & 0xC0) == 0x80);
  return offset;
}

size_t skip_spaces_before(std::string_view text, size_t offset) {
  while (offset > 0) {
    const size_t previous = previous_character(text, offset);
    size_t cursor = previous;
    if (!is_white_space(next_character(text, cursor))) break;
    offset = previous;
  }
  return offset;
}

size_t skip_spaces_behind(std::string_view text, size_t offset) {
  while (offset < text.size()) {
    size_t next = offset;
    if (!is_white_space(next_character(text, next))) break;
    offset = next;
  }
  return offset;
}

}  // namespace

void PrefixTree::add(std::string_view text, size_t value) {
  size_t node = 0;
  for (const char byte : text) {
    const auto [child, is_new] = children_.emplace(edge(node, byte), values_.size());
    if (is_new) values_.push_back(kNoValue);
    node = child->second;
  }
  first_bytes_[static_cast<unsigned char>(text[0])] = true;
  if (values_[node] == kNoValue) values_[node] = value;
}

PrefixTree::Hit PrefixTree::longest_at(std::string_view text, size_t offset) const {
  Hit hit;
  if (!first_bytes_[static_cast<unsigned char>(text[offset])]) return hit;
  size_t node = 0;
  for (size_t i = offset; i < text.size(); ++i) {
    const auto child = children_.find(edge(node, text[i]));
    if (child == children_.end()) break;
    node = child->second;
    if (values_[node] != kNoValue) hit = {.length = i + 1 - offset, .value = values_[node]};
  }
  return hit;
}

AddedToken read_added_token(const JsonView& entry) {
  const JsonView content = entry.at("content");
  if (content.as_string().size() > kContentLimit) {
    content.reject(fmt::format("{} bytes (at most {})", content.as_string().size(), kContentLimit));
  }
  const bool special = entry.bool_or("special", false);
  const auto id = entry.find("id");
  return {.content = content.as_string(),
          .id = id ? static_cast<int32_t>(id->as_int(0, Vocabulary::kIdLimit - 1)) : Piece::kNoToken,
          .single_word = entry.bool_or("single_word", false),
          .lstrip = entry.bool_or("lstrip", false),
          .rstrip = entry.bool_or("rstrip", false),
          .normalized = entry.bool_or("normalized", !special),
          .special = special};
}

AddedTokens::AddedTokens(Vocabulary& vocabulary)
    : vocabulary_(vocabulary), next_id_(static_cast<int32_t>(vocabulary.size())) {}

void AddedTokens::add(AddedToken token) {
  if (token.content.empty() || !contents_.insert(token.content).second) return;
  if (const auto other = vocabulary_.token(token.id); other && *other != token.content) {
    fail(ErrorKind::bad_format, "added token \"{}\" has the id {} of token \"{}\"", token.content, token.id,
         *other);
  }
  if (const auto id = vocabulary_.id(token.content)) {
    token.id = *id;
  } else {
    // HF would let two tokens share an id where the vocabulary has holes; there the file's id serves.
    if (token.id == Piece::kNoToken || !vocabulary_.token(next_id_)) {
      token.id = vocabulary_.token(next_id_) ? vocabulary_.next_id() : next_id_;
    }
    vocabulary_.add(token.content, token.id);
  }
  next_id_ = std::max(next_id_, token.id + 1);
  if (token.special) special_ids_.insert(token.id);
  tokens_.push_back(std::move(token));
}

void AddedTokens::prepare(const Normalizer* normalizer) {
  // HF looks among the special tokens first, which matters where normalization makes two contents equal.
  std::stable_partition(tokens_.begin(), tokens_.end(),
                        [](const AddedToken& token) { return token.special; });
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& token = tokens_[i];
    Piece piece{.text = token.content, .size_limit = kNormalizedLimit};
    if (token.normalized && normalizer != nullptr) normalizer->apply(piece);
    if (piece.text.empty()) {
      fail(ErrorKind::bad_format, "added token \"{}\": nothing is left of it after normalization",
           token.content);
    }
    trees_[static_cast<size_t>(token.normalized ? Stage::after_normalization : Stage::before_normalization)]
        .add(piece.text, i);
  }
}

bool AddedTokens::is_word_character_at(std::string_view text, size_t offset) const {
  size_t end = offset;
  next_character(text, end);
  std::vector<TextRange> ranges;
  RegexSearch(word_character_).cut(text.substr(offset, end - offset), ranges);
  return ranges[0].is_match;
}

bool AddedTokens::stands_alone(std::string_view text, Found found) const {
  const bool word_before =
      found.begin > 0 && is_word_character_at(text, previous_character(text, found.begin));
  const bool word_behind = found.end < text.size() && is_word_character_at(text, found.end);
  return !word_before && !word_behind;
}

void AddedTokens::cut(Piece piece, Stage stage, std::vector<Piece>& pieces) const {
  const PrefixTree& tree = trees_[static_cast<size_t>(stage)];
  const std::string_view text = piece.text;
  size_t covered = 0;
  const auto add_text = [&](size_t begin, size_t end) {
    if (begin >= end) return;
    pieces.push_back({.text = std::string(text.substr(begin, end - begin)),
                      .starts_text = piece.starts_text && begin == 0});
  };
  for (size_t offset = 0; !tree.empty() && offset < text.size();) {
    const PrefixTree::Hit hit = tree.longest_at(text, offset);
    if (hit.length == 0) {
      ++offset;
      continue;
    }
    const AddedToken& token = tokens_[hit.value];
    Found found{.begin = offset, .end = offset + hit.length};
    offset = found.end;
    if (token.single_word && !stands_alone(text, found)) continue;
    if (token.lstrip) found.begin = std::max(skip_spaces_before(text, found.begin), covered);
    if (token.rstrip) found.end = skip_spaces_behind(text, found.end);
    add_text(covered, found.begin);
    pieces.push_back({.text = {}, .token = token.id});
    covered = found.end;
  }
  if (covered == 0) {
    pieces.push_back(std::move(piece));
  } else {
    add_text(covered, text.size());
  }
}

}  // namespace salient
