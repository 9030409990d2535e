#include "text/json_prefix.h"

#include <array>
#include <utility>

namespace salient {
namespace {

constexpr std::array<std::string_view, 3> kLiterals{"true", "false", "null"};

bool is_whitespace(char byte) { return byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r'; }
bool is_digit(char byte) { return byte >= '0' && byte <= '9'; }
bool is_hex(char byte) {
  return is_digit(byte) || (byte >= 'a' && byte <= 'f') || (byte >= 'A' && byte <= 'F');
}
bool is_one_of(char byte, std::string_view bytes) { return bytes.find(byte) != std::string_view::npos; }

}  // namespace

bool JsonPrefix::push(char byte) {
  switch (state_) {
    case State::top:
    case State::value:
    case State::first_value:
    case State::key:
    case State::first_key:
    case State::colon:
    case State::after_value:
    case State::done:
      return is_whitespace(byte) ? push_whitespace(byte) : push_structure(byte);
    case State::string:
    case State::utf8:
      return push_string(static_cast<uint8_t>(byte));
    case State::escape:
      return push_escape(byte);
    case State::hex_first:
    case State::hex_surrogate:
    case State::hex:
    case State::high_hex:
      return push_hex(byte);
    case State::pair_backslash:
    case State::pair_u:
    case State::pair_d:
    case State::pair_second:
      return push_pair(byte);
    case State::literal:
      return push_literal(byte);
    default:
      return push_number(byte);
  }
}

/// Models that are kept from what they would rather say are given to empty lines.
bool JsonPrefix::push_whitespace(char byte) {
  if (byte == '\n' && std::exchange(has_line_feed_, true)) return false;
  return ++whitespace_ <= kMostWhitespace;
}

bool JsonPrefix::push_structure(char byte) {
  whitespace_ = 0;
  has_line_feed_ = false;
  switch (state_) {
    case State::top:
      return byte == '{' && open(State::first_key);
    case State::first_value:
      return byte == ']' ? close(byte) : begin_value(byte);
    case State::value:
      return begin_value(byte);
    case State::first_key:
      if (byte == '}') return close(byte);
      [[fallthrough]];
    case State::key:
      is_key_ = true;
      return byte == '"' && go(State::string);
    case State::colon:
      return byte == ':' && go(State::value);
    case State::after_value:
      if (byte == ',') return go(in_object() ? State::key : State::value);
      return close(byte);
    default:
      return false;
  }
}

bool JsonPrefix::begin_value(char byte) {
  switch (byte) {
    case '{':
      return open(State::first_key);
    case '[':
      return open(State::first_value);
    case '"':
      is_key_ = false;
      return go(State::string);
    case '-':
      return counted(State::minus, 0);
    case '0':
      return counted(State::zero, 1);
    default:
      break;
  }
  if (is_digit(byte)) return counted(State::integer, 1);
  for (literal_ = 0; literal_ < kLiterals.size(); ++literal_) {
    if (byte == kLiterals[literal_].front()) return counted(State::literal, 1);
  }
  return false;
}

bool JsonPrefix::open(State first) {
  if (depth_ == kMostDepth) return false;
  const uint64_t bit = uint64_t{1} << depth_++;
  objects_ = first == State::first_key ? objects_ | bit : objects_ & ~bit;
  return go(first);
}

bool JsonPrefix::close(char byte) {
  if (byte != (in_object() ? '}' : ']')) return false;
  return go(--depth_ == 0 ? State::done : State::after_value);
}

/// Bytes of characters as in the table of RFC 3629: no overlong form, no surrogate, nothing above U+10FFFF.
bool JsonPrefix::push_string(uint8_t byte) {
  if (state_ == State::utf8) {
    if (byte < low_ || byte > high_) return false;
    low_ = 0x80;
    high_ = 0xBF;
    return --count_ > 0 || go(State::string);
  }
  if (byte == '"') return go(is_key_ ? State::colon : State::after_value);
  if (byte == '\\') return go(State::escape);
  if (byte < 0x80) return byte >= 0x20;
  if (byte < 0xC2 || byte > 0xF4) return false;
  low_ = byte == 0xE0 ? 0xA0 : byte == 0xF0 ? 0x90 : 0x80;
  high_ = byte == 0xED ? 0x9F : byte == 0xF4 ? 0x8F : 0xBF;
  return counted(State::utf8, byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3);
}

bool JsonPrefix::push_escape(char byte) {
  if (byte == 'u') return go(State::hex_first);
  return is_one_of(byte, "\"\\/bfnrt") && go(State::string);
}

/// A high surrogate needs a low one behind it; a low one alone is refused at its second digit.
bool JsonPrefix::push_hex(char byte) {
  if (!is_hex(byte)) return false;
  switch (state_) {
    case State::hex_first:
      return is_one_of(byte, "dD") ? go(State::hex_surrogate) : counted(State::hex, 3);
    case State::hex_surrogate:
      if (byte < '8') return counted(State::hex, 2);
      return is_one_of(byte, "89aAbB") && counted(State::high_hex, 2);
    case State::high_hex:
      return --count_ > 0 || go(State::pair_backslash);
    default:
      return --count_ > 0 || go(State::string);
  }
}

bool JsonPrefix::push_pair(char byte) {
  switch (state_) {
    case State::pair_backslash:
      return byte == '\\' && go(State::pair_u);
    case State::pair_u:
      return byte == 'u' && go(State::pair_d);
    case State::pair_d:
      return is_one_of(byte, "dD") && go(State::pair_second);
    default:
      return is_one_of(byte, "cCdDeEfF") && counted(State::hex, 2);
  }
}

bool JsonPrefix::push_number(char byte) {
  const bool is_exponent = is_one_of(byte, "eE");
  switch (state_) {
    case State::minus:
      if (byte == '0') return digit(State::zero, kMostDigits);
      return is_digit(byte) && digit(State::integer, kMostDigits);
    case State::point:
      return is_digit(byte) && digit(State::fraction, kMostDigits);
    case State::exponent:
      if (is_one_of(byte, "+-")) return go(State::exponent_sign);
      [[fallthrough]];
    case State::exponent_sign:
      return is_digit(byte) && counted(State::exponent_digits, 1);
    case State::exponent_digits:
      if (is_digit(byte)) return digit(State::exponent_digits, kMostExponent);
      break;
    case State::integer:
      if (is_digit(byte)) return digit(State::integer, kMostDigits);
      [[fallthrough]];
    case State::zero:
      // A point asks for a digit behind it.
      if (byte == '.') return count_ < kMostDigits && go(State::point);
      if (is_exponent) return go(State::exponent);
      break;
    default:
      if (is_digit(byte)) return digit(State::fraction, kMostDigits);
      if (is_exponent) return go(State::exponent);
      break;
  }
  return go(State::after_value) && push(byte);  // nothing but the next byte says that a number has ended
}

bool JsonPrefix::push_literal(char byte) {
  const std::string_view literal = kLiterals[literal_];
  if (byte != literal[count_]) return false;
  return ++count_ < literal.size() || go(State::after_value);
}

}  // namespace salient
