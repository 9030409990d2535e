#pragma once

#include <string>
#include <string_view>

namespace salient {

/// The reversible alphabet of byte-level tokenizers: each byte as a printable character. Bytes that print in
/// Latin-1 stand for themselves; the other 68 follow from U+0100 in their order.
std::string to_byte_characters(std::string_view bytes);

/// Appends the bytes that the characters of `token` stand for; the token as it is when one of them stands for
/// none.
void append_bytes_of_token(std::string& bytes, std::string_view token);

}  // namespace salient
