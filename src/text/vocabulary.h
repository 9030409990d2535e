#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace salient {

/// Tokens and their ids, one to one. Ids may leave holes.
class Vocabulary {
 public:
  /// Ids are below this: ten times the largest vocabulary in use, so that a wrong id cannot claim gigabytes.
  static constexpr int32_t kIdLimit = 1 << 22;

  Vocabulary() = default;
  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;

  /// Errors: bad_format when the id is out of range or either is taken.
  void add(std::string token, int64_t id);

  /// Number of tokens.
  size_t size() const { return ids_.size(); }
  /// One more than the largest id.
  int32_t next_id() const { return static_cast<int32_t>(tokens_.size()); }
  std::optional<int32_t> id(std::string_view token) const;
  /// Nothing for an id that is no token's.
  std::optional<std::string_view> token(int32_t id) const;

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  using Ids = std::unordered_map<std::string, int32_t, Hash, std::equal_to<>>;

  Ids ids_;
  std::vector<const std::string*> tokens_;  // by id; keys of ids_, which never move
};

}  // namespace salient
