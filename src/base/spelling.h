#pragma once

#include <span>
#include <string>
#include <string_view>

namespace salient {

/// The word of `known` that `word` is most likely a misspelling of, case aside; empty when none comes near.
std::string_view closest_word(std::string_view word, std::span<const std::string_view> known);

/// `did you mean "n_grid"?` where a known word comes near, else `the known ones are duo_scaling, n_grid`.
std::string suggest(std::string_view word, std::span<const std::string_view> known);

}  // namespace salient
