#pragma once

#include <cstdint>
#include <string_view>

namespace salient {

/// Reads JSON (RFC 8259) byte by byte and says of each byte whether a document can still come of it: an
/// object at the top, strings of valid UTF-8, surrogates in pairs. It holds no text and is copied like a
/// number, so that many continuations can be tried.
///
/// What never ends is bounded, so that a text comes to its end and every reader takes it.
class JsonPrefix {
 public:
  static constexpr int kMostDepth = 64;       ///< objects and arrays inside each other
  static constexpr int kMostWhitespace = 32;  ///< characters in a row, of them one line feed
  static constexpr int kMostDigits = 40;      ///< of a number, before and behind its point together
  static constexpr int kMostExponent = 2;     ///< digits; below what overflows a double

  /// False when no document begins so; the state then means nothing any more.
  bool push(char byte);
  /// The object is closed; only whitespace may follow.
  bool complete() const { return state_ == State::done; }
  /// Inside of a string, at a place where any character may follow.
  bool in_string() const { return state_ == State::string; }

 private:
  enum class State : uint8_t {
    top,
    value,
    first_value,  // or the end of the array
    key,
    first_key,  // or the end of the object
    colon,
    after_value,
    done,
    string,
    utf8,            // inside of a character
    escape,          // behind a backslash
    hex_first,       // behind \u
    hex_surrogate,   // behind \ud
    hex,             // `count_` digits are left
    high_hex,        // the same, of the first half of a pair
    pair_backslash,  // the second half of a pair is due: \u, d, c to f, two more digits
    pair_u,
    pair_d,
    pair_second,
    minus,
    zero,
    integer,
    point,
    fraction,
    exponent,
    exponent_sign,
    exponent_digits,
    literal,
  };

  bool push_whitespace(char byte);
  bool push_structure(char byte);
  bool push_string(uint8_t byte);
  bool push_escape(char byte);
  bool push_hex(char byte);
  bool push_pair(char byte);
  bool push_number(char byte);
  bool push_literal(char byte);
  bool begin_value(char byte);
  bool open(State first);
  bool close(char byte);
  bool go(State state) {
    state_ = state;
    return true;
  }
  bool counted(State state, int count) {
    count_ = static_cast<uint8_t>(count);
    return go(state);
  }
  bool digit(State state, int most) { return count_ < most && counted(state, count_ + 1); }
  bool in_object() const { return (objects_ >> (depth_ - 1) & 1) != 0; }

  uint64_t objects_ = 0;  // bit i: container i is an object
  uint8_t depth_ = 0;
  State state_ = State::top;
  bool is_key_ = false;         // of the string that is open
  uint8_t whitespace_ = 0;      // in a row, so far
  bool has_line_feed_ = false;  // among these
  uint8_t count_ = 0;           // digits of a number so far; of an escape and bytes of a character those left
  uint8_t low_ = 0;             // the next byte of a character
  uint8_t high_ = 0;
  uint8_t literal_ = 0;  // which
};

}  // namespace salient
