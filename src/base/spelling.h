#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace salient {

/// The word of `known` that `word` is most likely a misspelling of, case aside; empty when none comes near.
std::string_view closest_word(std::string_view word, std::span<const std::string_view> known);

/// `did you mean "n_grid"?` where a known word comes near, else `the known ones are duo_scaling, n_grid`.
std::string suggest(std::string_view word, std::span<const std::string_view> known);

/// The longest beginning of a UTF-8 text that has at most `limit` bytes and ends between characters.
std::string_view whole_characters(std::string_view text, size_t limit);

/// A text for a message: what is longer than `limit` bytes is cut there and ends in "...".
std::string shortened(std::string_view text, size_t limit = 60);

}  // namespace salient
