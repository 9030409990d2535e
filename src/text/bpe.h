#pragma once

#include <array>
#include <memory>

#include "text/component.h"
#include "text/vocabulary.h"

namespace salient {

/// Pairs of neighbouring tokens that may become one, with the rank that says which goes first.
/// An open-addressing table: one look-up is made for each pair of neighbours that ever arises in a text.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank;
    int32_t result;
  };

  explicit MergeTable(size_t count);
  /// The last rank given to a pair counts.
  void put(int32_t left, int32_t right, Merge merge);
  const Merge* find(int32_t left, int32_t right) const;

 private:
  struct Slot {
    uint64_t key;
    Merge merge;
  };
  static constexpr uint64_t kFree = UINT64_MAX;

  size_t slot_of(uint64_t key) const;

  std::vector<Slot> slots_;  // a power of two of them, at least half free
};

/// Byte-pair encoding: the model of byte-level and of sentencepiece-like tokenizers.
class BpeModel : public TokenModel {
 public:
  /// Reads the `model` of a tokenizer.json and fills `vocabulary`, which outlives the model. Errors:
  /// bad_format, unsupported.
  BpeModel(const JsonView& description, Vocabulary& vocabulary);

  void tokenize(const std::vector<Piece>& pieces, std::vector<int32_t>& ids,
                const CancellationFlag* cancelled) const override;

 private:
  struct Work;

  void read_merges(const JsonView& description);
  void tokenize_word(std::string_view word, Work& work, std::vector<int32_t>& ids) const;
  void add_symbols(std::string_view word, Work& work) const;
  bool add_bytes(std::string_view characters, Work& work) const;
  int32_t unknown_token() const;
  void push_merge(Work& work, int32_t position) const;
  void merge_symbols(Work& work) const;

  const Vocabulary& vocabulary_;
  std::unique_ptr<MergeTable> merges_;
  std::string unknown_;
  bool has_unknown_;
  bool fuse_unknown_;
  bool byte_fallback_;
  bool ignore_merges_;
  std::string subword_prefix_;
  std::string word_suffix_;
  std::array<int32_t, 256> byte_tokens_;  // Piece::kNoToken where the vocabulary has none
};

}  // namespace salient
