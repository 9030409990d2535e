#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/token_constraint.h"
#include "text/token_trie.h"
#include "text/tokenizer.h"

namespace salient {

/// A vocabulary as texts of JSON need it; made once, shared by all of them.
///
/// Most tokens are nothing but characters, which are allowed anywhere inside a string and nowhere else but
/// behind its quote; where a string is open they are allowed at once, and only the others are tried.
class JsonVocabulary {
 public:
  /// Special tokens, and those without text, are never part of JSON. Errors: unsupported for a vocabulary
  /// that lacks the characters that JSON is made of.
  explicit JsonVocabulary(const Tokenizer& tokenizer);

 private:
  friend class JsonConstraint;

  std::vector<std::string> bytes_;   // by token; empty: never part of JSON
  std::vector<uint8_t> characters_;  // by token: whether it is whole characters that need no escape
  TokenTrie all_;
  TokenTrie others_;  // without `characters_`
};

/// The text is one JSON object, see JsonPrefix.
std::unique_ptr<TokenConstraint> make_json_constraint(std::shared_ptr<const JsonVocabulary> vocabulary);

}  // namespace salient
