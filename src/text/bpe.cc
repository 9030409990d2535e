#include "text/bpe.h"

#include <bit>
#include <queue>

#include "base/error.h"
#include "text/unicode.h"

namespace salient {
namespace {

constexpr int32_t kNone = -1;
constexpr size_t kAffixLimit = 256;
// Words up to this length are looked up among those already met in the same text; longer ones seldom repeat.
constexpr size_t kRememberedWordLength = 64;
constexpr size_t kRememberedWords = 1 << 18;

/// A token in the making: a node of a linked list.
struct Symbol {
  int32_t token;
  int32_t previous;
  int32_t next;
  bool is_merged = false;  // into its left neighbour
};

/// A merge that was possible when it was queued.
struct Candidate {
  uint32_t rank;
  int32_t position;
  int32_t result;
};

/// Lowest rank first, then leftmost.
struct ComesLater {
  bool operator()(const Candidate& a, const Candidate& b) const {
    return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
  }
};

struct RememberedWord {
  size_t begin;  // of its ids among the ids of the text
  size_t count;
};

uint64_t mix(uint64_t key) {
  key *= 0x9E3779B97F4A7C15u;  // 2^64 / golden ratio
  return key ^ key >> 32;
}

using Pair = std::pair<std::string_view, std::string_view>;

/// The two tokens of a merge, written as "a b" or as ["a", "b"]; nothing when it is neither.
std::optional<Pair> read_pair(const Json& merge) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return Pair(merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>());
  }
  if (!merge.is_string()) return std::nullopt;
  const std::string_view text = merge.get_ref<const std::string&>();
  const size_t space = text.find(' ');
  if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos)
    return std::nullopt;
  return Pair(text.substr(0, space), text.substr(space + 1));
}

void read_vocabulary(const JsonView& entries, Vocabulary& vocabulary) {
  if (!entries.json().is_object()) entries.reject("expected an object");
  for (const auto& [token, id] : entries.json().items()) {
    if (!id.is_number_integer()) entries.at(token).as_int();
    with_context(entries.path(), [&] { vocabulary.add(token, JsonView(id, token).as_int()); });
  }
}

std::string read_affix(const JsonView& description, std::string_view key) {
  std::string affix = description.string_or(key, "");
  if (affix.size() > kAffixLimit) {
    fail(ErrorKind::unsupported, "{}: {} of {} bytes (at most {})", description.path(), key, affix.size(),
         kAffixLimit);
  }
  return affix;
}

}  // namespace

MergeTable::MergeTable(size_t count)
    : slots_(std::bit_ceil(2 * count + 2), Slot{.key = kFree, .merge = {}}) {}

size_t MergeTable::slot_of(uint64_t key) const {
  const size_t mask = slots_.size() - 1;
  size_t slot = mix(key) & mask;
  while (slots_[slot].key != key && slots_[slot].key != kFree) slot = (slot + 1) & mask;
  return slot;
}

void MergeTable::put(int32_t left, int32_t right, Merge merge) {
  const uint64_t key = static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  slots_[slot_of(key)] = {.key = key, .merge = merge};
}

const MergeTable::Merge* MergeTable::find(int32_t left, int32_t right) const {
  const uint64_t key = static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  const Slot& slot = slots_[slot_of(key)];
  return slot.key == kFree ? nullptr : &slot.merge;
}

/// Memory of one call of tokenize.
struct BpeModel::Work {
  const CancellationFlag* cancelled;
  std::vector<Symbol> symbols{};
  std::priority_queue<Candidate, std::vector<Candidate>, ComesLater> queue{};
  std::unordered_map<std::string_view, RememberedWord> words{};
  std::string spelled{};
};

BpeModel::BpeModel(const JsonView& description, Vocabulary& vocabulary)
    : vocabulary_(vocabulary),
      unknown_(description.string_or("unk_token", "")),
      has_unknown_(description.find("unk_token").has_value()),
      fuse_unknown_(description.bool_or("fuse_unk", false)),
      byte_fallback_(description.bool_or("byte_fallback", false)),
      ignore_merges_(description.bool_or("ignore_merges", false)),
      subword_prefix_(read_affix(description, "continuing_subword_prefix")),
      word_suffix_(read_affix(description, "end_of_word_suffix")) {
  read_vocabulary(description.at("vocab"), vocabulary);
  if (description.double_or("dropout", 0) != 0) {
    fail(ErrorKind::unsupported, "{}: dropout makes ids random and is not supported", description.path());
  }
  for (size_t byte = 0; byte < byte_tokens_.size(); ++byte) {
    byte_tokens_[byte] = vocabulary.id(fmt::format("<0x{:02X}>", byte)).value_or(Piece::kNoToken);
  }
  read_merges(description);
}

void BpeModel::read_merges(const JsonView& description) {
  const JsonView merges = description.at("merges");
  if (!merges.json().is_array()) merges.reject("expected an array");
  const size_t count = merges.json().size();
  merges_ = std::make_unique<MergeTable>(count);
  const auto id_of = [&](size_t index, std::string_view token) {
    if (const auto id = vocabulary_.id(token)) return *id;
    fail(ErrorKind::bad_format, "{}[{}]: token \"{}\" is not in the vocabulary", merges.path(), index, token);
  };
  std::string merged;
  for (size_t i = 0; i < count; ++i) {
    const auto pair = read_pair(merges.json()[i]);
    if (!pair) {
      fail(ErrorKind::bad_format, "{}[{}]: expected \"a b\" or [\"a\", \"b\"]", merges.path(), i);
    }
    const auto [left, right] = *pair;
    if (right.size() < subword_prefix_.size()) {
      fail(ErrorKind::bad_format, "{}[{}]: token \"{}\" lacks the prefix \"{}\"", merges.path(), i, right,
           subword_prefix_);
    }
    merged = left;
    merged += right.substr(subword_prefix_.size());
    const int32_t left_id = id_of(i, left);
    const int32_t right_id = id_of(i, right);
    merges_->put(left_id, right_id, {.rank = static_cast<uint32_t>(i), .result = id_of(i, merged)});
  }
}

void BpeModel::tokenize(const std::vector<Piece>& pieces, std::vector<int32_t>& ids,
                        const CancellationFlag* cancelled) const {
  Work work{.cancelled = cancelled};
  for (const Piece& piece : pieces) {
    throw_if_cancelled(cancelled);
    if (piece.token != Piece::kNoToken) {
      ids.push_back(piece.token);
      continue;
    }
    if (piece.text.size() > kRememberedWordLength) {
      tokenize_word(piece.text, work, ids);
      continue;
    }
    const auto known = work.words.find(piece.text);
    if (known != work.words.end()) {
      const auto [begin, count] = known->second;
      for (size_t i = 0; i < count; ++i) ids.push_back(ids[begin + i]);
      continue;
    }
    const size_t begin = ids.size();
    tokenize_word(piece.text, work, ids);
    if (work.words.size() < kRememberedWords) {
      work.words.emplace(piece.text, RememberedWord{.begin = begin, .count = ids.size() - begin});
    }
  }
}

void BpeModel::tokenize_word(std::string_view word, Work& work, std::vector<int32_t>& ids) const {
  if (ignore_merges_) {
    if (const auto id = vocabulary_.id(word)) return ids.push_back(*id);
  }
  add_symbols(word, work);
  merge_symbols(work);
  for (const Symbol& symbol : work.symbols) {
    if (!symbol.is_merged) ids.push_back(symbol.token);
  }
}

int32_t BpeModel::unknown_token() const {
  if (const auto id = vocabulary_.id(unknown_)) return *id;
  fail(ErrorKind::bad_format, "the unknown token \"{}\" is not in the vocabulary", unknown_);
}

bool BpeModel::add_bytes(std::string_view characters, Work& work) const {
  for (const char c : characters) {
    if (byte_tokens_[static_cast<unsigned char>(c)] == Piece::kNoToken) return false;
  }
  for (const char c : characters) {
    work.symbols.push_back(
        {.token = byte_tokens_[static_cast<unsigned char>(c)], .previous = kNone, .next = kNone});
  }
  return true;
}

/// One symbol for each character. As in HF, unknown characters wait for the next known one, which byte tokens
/// are not.
void BpeModel::add_symbols(std::string_view word, Work& work) const {
  auto& symbols = work.symbols;
  symbols.clear();
  int32_t waiting = Piece::kNoToken;
  const auto flush = [&] {
    if (waiting != Piece::kNoToken) symbols.push_back({.token = waiting, .previous = kNone, .next = kNone});
    waiting = Piece::kNoToken;
  };
  for (size_t offset = 0; offset < word.size();) {
    const size_t begin = offset;
    next_character(word, offset);
    std::string_view characters = word.substr(begin, offset - begin);
    const bool has_prefix = begin != 0 && !subword_prefix_.empty();
    const bool has_suffix = offset == word.size() && !word_suffix_.empty();
    if (has_prefix || has_suffix) {
      work.spelled = has_prefix ? subword_prefix_ : "";
      work.spelled += characters;
      if (has_suffix) work.spelled += word_suffix_;
      characters = work.spelled;
    }
    if (const auto id = vocabulary_.id(characters)) {
      flush();
      symbols.push_back({.token = *id, .previous = kNone, .next = kNone});
    } else if (!(byte_fallback_ && add_bytes(characters, work)) && has_unknown_) {
      if (!fuse_unknown_) flush();
      waiting = unknown_token();
    }
  }
  flush();
}

void BpeModel::push_merge(Work& work, int32_t position) const {
  const Symbol& left = work.symbols[static_cast<size_t>(position)];
  if (left.next == kNone) return;
  const auto* merge = merges_->find(left.token, work.symbols[static_cast<size_t>(left.next)].token);
  if (merge != nullptr) work.queue.push({.rank = merge->rank, .position = position, .result = merge->result});
}

/// O(n log n): each merge queues at most two more. Candidates that an earlier merge has made impossible stay
/// in the queue and are recognised when their turn comes; as in HF, one whose pair has changed is still
/// carried out when the new pair makes the same token.
void BpeModel::merge_symbols(Work& work) const {
  auto& symbols = work.symbols;
  const auto count = static_cast<int32_t>(symbols.size());
  for (int32_t i = 0; i < count; ++i) {
    symbols[static_cast<size_t>(i)].previous = i - 1;
    symbols[static_cast<size_t>(i)].next = i + 1 < count ? i + 1 : kNone;
  }
  for (int32_t i = 0; i < count; ++i) push_merge(work, i);
  while (!work.queue.empty()) {
    throw_if_cancelled(work.cancelled);  // without a pre-tokenizer a whole document is one word
    const Candidate candidate = work.queue.top();
    work.queue.pop();
    Symbol& left = symbols[static_cast<size_t>(candidate.position)];
    if (left.is_merged || left.next == kNone) continue;
    Symbol& right = symbols[static_cast<size_t>(left.next)];
    const auto* merge = merges_->find(left.token, right.token);
    if (merge == nullptr || merge->result != candidate.result) continue;
    left.token = candidate.result;
    left.next = right.next;
    right.is_merged = true;
    if (left.next != kNone) symbols[static_cast<size_t>(left.next)].previous = candidate.position;
    if (left.previous != kNone) push_merge(work, left.previous);
    push_merge(work, candidate.position);
  }
}

}  // namespace salient
