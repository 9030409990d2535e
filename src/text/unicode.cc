#include "text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "text/unicode_tables.h"

namespace salient {
namespace {

constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

unsigned byte_at(std::string_view bytes, size_t index) { return static_cast<unsigned char>(bytes[index]); }

/// Lead bytes of table 3-7 of the Unicode standard: how long the character is and which second bytes may
/// follow.
struct Lead {
  size_t length = 0;  // 0: no character begins like this
  unsigned second_low = 0x80;
  unsigned second_high = 0xBF;
};

Lead lead_of(unsigned byte) {
  if (byte < 0x80) return {.length = 1};
  if (byte < 0xC2 || byte > 0xF4) return {};
  if (byte < 0xE0) return {.length = 2};
  if (byte == 0xE0) return {.length = 3, .second_low = 0xA0};
  if (byte == 0xED) return {.length = 3, .second_high = 0x9F};
  if (byte < 0xF0) return {.length = 3};
  if (byte == 0xF0) return {.length = 4, .second_low = 0x90};
  if (byte == 0xF4) return {.length = 4, .second_high = 0x8F};
  return {.length = 4};
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

bool contains(std::span<const CharacterRange> ranges, char32_t character) {
  const auto range = std::lower_bound(ranges.begin(), ranges.end(), character,
                                      [](const CharacterRange& r, char32_t c) { return r.last < c; });
  return range != ranges.end() && range->first <= character;
}

/// A stretch of a text on its way to a normalization form. Characters that HF's tables do not know come
/// between the stretches: for HF they are starters that nothing combines with.
class Stretch {
 public:
  explicit Stretch(NormalizationForm form)
      : compatible_(form == NormalizationForm::nfkc || form == NormalizationForm::nfkd),
        composed_(form == NormalizationForm::nfc || form == NormalizationForm::nfkc) {}

  /// Decomposes the character by itself: combining marks stay in the order of the text.
  void add(char32_t character) {
    utf8proc_int32_t parts[32];  // the longest decomposition in Unicode has 18 characters
    const int options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compatible_ ? UTF8PROC_COMPAT : 0);
    int boundary = 0;
    const auto count =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(character), parts, std::size(parts),
                                static_cast<utf8proc_option_t>(options), &boundary);
    if (count < 0 || count > std::ssize(parts)) {
      fail(ErrorKind::internal, "unicode: cannot decompose U+{:04X}", static_cast<uint32_t>(character));
    }
    characters_.insert(characters_.end(), parts, parts + count);
  }

  void end(std::string& text) {
    order_combining_marks();
    if (composed_) compose();
    for (const auto character : characters_) append_character(text, static_cast<char32_t>(character));
    characters_.clear();
  }

 private:
  static int combining_class(utf8proc_int32_t character) {
    return utf8proc_get_property(character)->combining_class;
  }

  /// The canonical order: runs of combining marks sorted by class. utf8proc would do it in quadratic time.
  void order_combining_marks() {
    for (auto begin = characters_.begin(); begin != characters_.end();) {
      if (combining_class(*begin) == 0) {
        ++begin;
        continue;
      }
      const auto end = std::find_if(begin, characters_.end(), [](auto c) { return combining_class(c) == 0; });
      std::stable_sort(begin, end, [](auto a, auto b) { return combining_class(a) < combining_class(b); });
      begin = end;
    }
  }

  void compose() {
    const auto length =
        utf8proc_normalize_utf32(characters_.data(), std::ssize(characters_),
                                 static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    if (length < 0) fail(ErrorKind::internal, "unicode: cannot compose: {}", utf8proc_errmsg(length));
    characters_.resize(static_cast<size_t>(length));
  }

  bool compatible_;
  bool composed_;
  std::vector<utf8proc_int32_t> characters_;
};

char32_t lower_case_of(char32_t character) {
  for (const LowerCaseRange& range : lower_case_additions()) {
    if (character >= range.first && character <= range.last) {
      return static_cast<char32_t>(static_cast<int>(character) + range.distance);
    }
  }
  return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(character)));
}

}  // namespace

Utf8Step utf8_step(std::string_view bytes) {
  const Lead lead = lead_of(byte_at(bytes, 0));
  if (lead.length == 0) return {Utf8Step::Kind::invalid, 1};
  for (size_t i = 1; i < lead.length; ++i) {
    if (i == bytes.size()) return {Utf8Step::Kind::incomplete, i};
    const unsigned low = i == 1 ? lead.second_low : 0x80;
    const unsigned high = i == 1 ? lead.second_high : 0xBF;
    if (byte_at(bytes, i) < low || byte_at(bytes, i) > high) return {Utf8Step::Kind::invalid, i};
  }
  return {Utf8Step::Kind::character, lead.length};
}

std::optional<size_t> first_invalid_byte(std::string_view bytes) {
  for (size_t offset = 0; offset < bytes.size();) {
    const Utf8Step step = utf8_step(bytes.substr(offset));
    if (step.kind != Utf8Step::Kind::character) return offset;
    offset += step.length;
  }
  return std::nullopt;
}

void append_replacing_invalid(std::string& text, std::string_view bytes) {
  for (size_t offset = 0; offset < bytes.size();) {
    const Utf8Step step = utf8_step(bytes.substr(offset));
    const bool valid = step.kind == Utf8Step::Kind::character;
    text += valid ? bytes.substr(offset, step.length) : kReplacementCharacter;
    offset += step.length;
  }
}

char32_t next_character(std::string_view text, size_t& offset) {
  const unsigned first = byte_at(text, offset++);
  if (first < 0x80) return first;
  const size_t following = first < 0xE0 ? 1 : first < 0xF0 ? 2 : 3;
  char32_t character = first & (0x3Fu >> following);
  for (size_t i = 0; i < following; ++i) character = character << 6 | (byte_at(text, offset++) & 0x3Fu);
  return character;
}

void append_character(std::string& text, char32_t character) {
  utf8proc_uint8_t bytes[4];
  const auto length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(character), bytes);
  text.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
}

bool is_white_space(char32_t character) {
  if (character < 0x80) return character == 0x20 || (character >= 0x09 && character <= 0x0D);
  return character == 0x85 || character == 0xA0 || character == 0x1680 ||
         (character >= 0x2000 && character <= 0x200A) || character == 0x2028 || character == 0x2029 ||
         character == 0x202F || character == 0x205F || character == 0x3000;
}

bool is_numeric(char32_t character) {
  if (character < 0x80) return character >= '0' && character <= '9';
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(character));
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
         category == UTF8PROC_CATEGORY_NO || contains(numeric_additions(), character);
}

std::string to_lower_case(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (size_t offset = 0; offset < text.size();) {
    const char32_t character = next_character(text, offset);
    if (character == 0x130) {  // the only character whose lower case is two: i and a combining dot
      result += "i\xCC\x87";
    } else {
      append_character(result, lower_case_of(character));
    }
  }
  return result;
}

std::string normalize_unicode(std::string_view text, NormalizationForm form) {
  if (is_ascii(text)) return std::string(text);
  Stretch stretch(form);
  std::string result;
  result.reserve(text.size());
  for (size_t offset = 0; offset < text.size();) {
    const char32_t character = next_character(text, offset);
    if (contains(unknown_to_normalization(), character)) {
      stretch.end(result);
      append_character(result, character);
    } else {
      stretch.add(character);
    }
  }
  stretch.end(result);
  return result;
}

}  // namespace salient
