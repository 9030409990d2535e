#pragma once

#include <initializer_list>
#include <optional>
#include <string_view>

#include "base/json.h"

namespace salient {

// Far above any published model, low enough that no product of two overflows and nothing absurd is allocated.
inline constexpr int64_t kMaximumFeatures = int64_t{1} << 24;
inline constexpr int64_t kMaximumLayers = 4096;
inline constexpr int64_t kMaximumHeads = int64_t{1} << 14;
inline constexpr int64_t kMaximumPositions = int64_t{1} << 31;
inline constexpr int64_t kMaximumExperts = int64_t{1} << 14;

/// A size within [1, maximum]; `fallback` when the key is absent or null.
int64_t size_or(const JsonView& config, std::string_view key, int64_t fallback, int64_t maximum);

/// The same thing under the names that families have given it; an empty name is none.
std::optional<JsonView> find_any(const JsonView& config, std::initializer_list<std::string_view> keys);

/// A size under any of the names; `fallback` when there is none, bad_format when that is 0.
int64_t size_of_any(const JsonView& config, std::initializer_list<std::string_view> keys, int64_t maximum,
                    int64_t fallback = 0);

/// A number within (0, 1e9); `fallback` when the key is absent or null.
double positive_or(const JsonView& config, std::string_view key, double fallback);

}  // namespace salient
