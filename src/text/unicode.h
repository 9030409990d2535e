#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace salient {

/// One step through bytes that may or may not be UTF-8.
struct Utf8Step {
  enum class Kind {
    character,   ///< `length` bytes are one character
    invalid,     ///< `length` bytes can begin no character; what decoders show as one U+FFFD
    incomplete,  ///< the bytes end inside what may become a character
  };
  Kind kind;
  size_t length;
};

/// What stands at the start of `bytes`, which is not empty.
Utf8Step utf8_step(std::string_view bytes);

/// Offset of the first byte that is not part of a character; nothing when all of `bytes` is UTF-8.
std::optional<size_t> first_invalid_byte(std::string_view bytes);

/// Appends `bytes` to `text`, each invalid or incomplete part as one U+FFFD.
void append_replacing_invalid(std::string& text, std::string_view bytes);

/// The character at `offset` of valid UTF-8; moves `offset` past it.
char32_t next_character(std::string_view text, size_t& offset);

void append_character(std::string& text, char32_t character);

/// Unicode property White_Space.
bool is_white_space(char32_t character);

/// Unicode categories Nd, Nl and No.
bool is_numeric(char32_t character);

/// Full lower-case mapping of each character on its own (no context, no language).
std::string to_lower_case(std::string_view text);

enum class NormalizationForm { nfc, nfd, nfkc, nfkd };

/// `text` in a Unicode normalization form, in time linear in its length whatever its combining marks.
std::string normalize_unicode(std::string_view text, NormalizationForm form);

}  // namespace salient
