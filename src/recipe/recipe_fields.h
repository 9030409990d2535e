#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "salient/error.h"

// How the parts of a recipe file are read: every message has the path and the value.
namespace salient {

/// The words for the values of Rounding, in their order.
inline constexpr std::string_view kRoundingWords[] = {"nearest", "compensated", "matched"};

/// Of AwqModifier::sweeps: more change nothing that could be measured.
inline constexpr int kMostSweeps = 16;

/// The words for the values of Effort and Objective.
inline constexpr std::string_view kEffortWords[] = {"fast", "default", "best"};
inline constexpr std::string_view kObjectiveWords[] = {"linear_output", "block_output"};

/// "20" or "\"both\"", shortened.
std::string value_text(const JsonView& view);

/// Errors: invalid_argument for a member that is none of `known`.
void check_keys(const JsonView& object, std::span<const std::string_view> known);

/// Throws invalid_argument for a member `value` whose key is none of `known`.
[[noreturn]] void reject_key(const JsonView& value, std::string_view key,
                             std::span<const std::string_view> known);

/// Throws `kind`: "<path>: <value> <message>".
[[noreturn]] void reject_value(const JsonView& view, ErrorKind kind, std::string_view message);

/// A word among `words`, case aside, as its index. Errors: invalid_argument with the closest word.
size_t read_word(const JsonView& view, std::span<const std::string_view> words);

/// One text or a list of texts.
std::vector<std::string> read_texts(const JsonView& view);

}  // namespace salient
