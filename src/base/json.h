#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace salient {

using Json = nlohmann::ordered_json;

/// What a key that stands twice in an object means.
enum class DuplicateKeys { last_counts, refuse };

/// Parses `text`; `source` (a file name) leads every message. Errors: bad_format with line and column.
Json parse_json(std::string_view text, std::string_view source,
                DuplicateKeys duplicates = DuplicateKeys::last_counts);

/// Reads and parses a whole file. Errors: not_found, io, bad_format.
Json read_json_file(const std::string& path);

/// A value inside a document together with its path, so that a wrong type says where it stands:
/// `config.json: rope_scaling.factor: expected a number, got "two"`.
class JsonView {
 public:
  JsonView(const Json& value, std::string path) : value_(&value), path_(std::move(path)) {}

  const Json& json() const { return *value_; }
  const std::string& path() const { return path_; }

  /// The member `key`; bad_format when it is absent or this is no object.
  JsonView at(std::string_view key) const;
  /// The member `key`; nothing when it is absent or null.
  std::optional<JsonView> find(std::string_view key) const;
  /// Elements of an array, each with its index in the path.
  std::vector<JsonView> elements() const;
  /// Members of an object in file order.
  std::vector<std::pair<std::string, JsonView>> members() const;

  int64_t as_int(int64_t minimum = INT64_MIN, int64_t maximum = INT64_MAX) const;
  double as_double() const;
  bool as_bool() const;
  const std::string& as_string() const;

  int64_t int_or(std::string_view key, int64_t fallback) const;
  double double_or(std::string_view key, double fallback) const;
  bool bool_or(std::string_view key, bool fallback) const;
  std::string string_or(std::string_view key, std::string_view fallback) const;

  /// Throws bad_format: "<path>: <message>".
  [[noreturn]] void reject(std::string_view message) const;

 private:
  [[noreturn]] void wrong_type(std::string_view expected) const;

  const Json* value_;
  std::string path_;
};

}  // namespace salient
