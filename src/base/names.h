#pragma once

#include <array>
#include <optional>
#include <string_view>
#include <utility>

namespace salient {

/// What the values of an enumeration are called by users.
template <typename Value, size_t kCount>
class NameTable {
 public:
  using Entries = std::array<std::pair<Value, std::string_view>, kCount>;
  explicit constexpr NameTable(const Entries& entries) : entries_(entries) {}

  /// "?" for a value that the table lacks.
  constexpr std::string_view name_of(Value value) const {
    for (const auto& [known, name] : entries_) {
      if (known == value) return name;
    }
    return "?";
  }
  constexpr std::optional<Value> find(std::string_view name) const {
    for (const auto& [value, known] : entries_) {
      if (known == name) return value;
    }
    return std::nullopt;
  }

 private:
  Entries entries_;
};

}  // namespace salient
