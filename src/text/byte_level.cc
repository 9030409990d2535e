#include "text/byte_level.h"

#include <array>
#include <cstdint>

#include "text/unicode.h"

namespace salient {
namespace {

constexpr bool prints_in_latin1(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr size_t kCharacterLimit = 0x100 + 68;  // one more than the largest character of the alphabet
constexpr int16_t kNoByte = -1;

struct Alphabet {
  std::array<char32_t, 256> character_of{};
  std::array<int16_t, kCharacterLimit> byte_of{};
};

constexpr Alphabet make_alphabet() {
  Alphabet alphabet;
  for (auto& byte : alphabet.byte_of) byte = kNoByte;
  char32_t next = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const char32_t character = prints_in_latin1(byte) ? byte : next++;
    alphabet.character_of[byte] = character;
    alphabet.byte_of[character] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = make_alphabet();

}  // namespace

std::string to_byte_characters(std::string_view bytes) {
  std::string result;
  result.reserve(bytes.size() + bytes.size() / 4);
  for (const char byte : bytes) {
    const char32_t character = kAlphabet.character_of[static_cast<unsigned char>(byte)];
    if (character < 0x80) {
      result += static_cast<char>(character);
    } else {
      append_character(result, character);
    }
  }
  return result;
}

void append_bytes_of_token(std::string& bytes, std::string_view token) {
  const size_t before = bytes.size();
  for (size_t offset = 0; offset < token.size();) {
    const char32_t character = next_character(token, offset);
    if (character >= kCharacterLimit || kAlphabet.byte_of[character] == kNoByte) {
      bytes.resize(before);
      bytes += token;
      return;
    }
    bytes += static_cast<char>(kAlphabet.byte_of[character]);
  }
}

}  // namespace salient
