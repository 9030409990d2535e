#pragma once

#include <span>
#include <string_view>

namespace salient {

// Where the Unicode versions of our libraries differ from those of Hugging Face `tokenizers`, on which token
// ids depend.

struct CharacterRange {
  char32_t first;
  char32_t last;
};

struct PropertyRange {
  char32_t first;
  char32_t last;
  std::string_view property;  // a general category of two letters, "Han", or "w" for word characters
};

struct LowerCaseRange {
  char32_t first;
  char32_t last;
  int distance;  // from a capital letter to the small one
};

std::span<const PropertyRange> property_additions();
std::span<const CharacterRange> numeric_additions();
std::span<const LowerCaseRange> lower_case_additions();
std::span<const CharacterRange> unknown_to_normalization();

}  // namespace salient
