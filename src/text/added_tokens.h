#pragma once

#include <array>
#include <unordered_map>
#include <unordered_set>

#include "text/component.h"
#include "text/regex.h"
#include "text/vocabulary.h"

namespace salient {

/// One of the `added_tokens` of a tokenizer.json: text that becomes a token wherever it stands.
struct AddedToken {
  std::string content;
  int32_t id = Piece::kNoToken;
  bool single_word = false;  ///< only between characters that belong to no word
  bool lstrip = false;       ///< swallows the spaces before it
  bool rstrip = false;       ///< swallows the spaces behind it
  bool normalized = false;   ///< looked for in the normalized text
  bool special = false;      ///< left out of decoded text on request
};

/// Finds the longest of a set of strings at a place of a text.
class PrefixTree {
 public:
  PrefixTree() { children_.reserve(256); }
  /// Of equal strings the first counts.
  void add(std::string_view text, size_t value);
  struct Hit {
    size_t length = 0;  // 0: none
    size_t value = 0;
  };
  Hit longest_at(std::string_view text, size_t offset) const;
  bool empty() const { return values_.size() == 1; }

 private:
  static constexpr size_t kNoValue = SIZE_MAX;
  static uint64_t edge(size_t node, char byte) {
    return uint64_t{node} << 8 | static_cast<unsigned char>(byte);
  }

  std::unordered_map<uint64_t, size_t> children_;
  std::vector<size_t> values_{kNoValue};
  std::array<bool, 256> first_bytes_{};
};

/// Reads one of the `added_tokens`. Errors: bad_format.
AddedToken read_added_token(const JsonView& entry);

class AddedTokens {
 public:
  /// `vocabulary` holds the tokens of the model.
  explicit AddedTokens(Vocabulary& vocabulary);

  /// Adds a token unless there is one of that content; its id, if given, must be no other token's. As in HF,
  /// the vocabulary has the last word on the id, and a token that it lacks goes to its end. Errors:
  /// bad_format.
  void add(AddedToken token);
  /// To be called once all are added; `normalizer` may be null. Errors: bad_format.
  void prepare(const Normalizer* normalizer);

  /// Cuts a text at the added tokens that are looked for before normalization, or after it.
  enum class Stage { before_normalization, after_normalization };
  void cut(Piece piece, Stage stage, std::vector<Piece>& pieces) const;

  bool is_special(int32_t id) const { return special_ids_.contains(id); }

 private:
  struct Found {
    size_t begin;
    size_t end;
  };

  bool is_word_character_at(std::string_view text, size_t offset) const;
  bool stands_alone(std::string_view text, Found found) const;

  Vocabulary& vocabulary_;
  int32_t next_id_;
  std::vector<AddedToken> tokens_;
  std::unordered_set<std::string> contents_;
  std::unordered_set<int32_t> special_ids_;
  PrefixTree trees_[2];  // by Stage
  Regex word_character_{"[" SALIENT_RUST_WORD "]"};
};

}  // namespace salient
