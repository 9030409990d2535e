#pragma once

#include <string>

#include "base/json.h"

namespace salient {

/// Fields of the Metaspace pre-tokenizer and decoder: a visible mark stands for a space.
struct Metaspace {
  /// Which pieces get a mark in front when they have none.
  enum class Scheme { always, first, never };

  std::string replacement;  // one character
  Scheme scheme;
  bool split;

  char32_t replacement_character() const;
};

/// Errors: bad_format.
Metaspace read_metaspace(const JsonView& description);

}  // namespace salient
