#include "model/config_keys.h"

#include <fmt/format.h>

namespace salient {

int64_t size_or(const JsonView& config, std::string_view key, int64_t fallback, int64_t maximum) {
  const auto value = config.find(key);
  return value ? value->as_int(1, maximum) : fallback;
}

std::optional<JsonView> find_any(const JsonView& config, std::initializer_list<std::string_view> keys) {
  for (const std::string_view key : keys) {
    if (key.empty()) continue;
    if (const auto value = config.find(key)) return value;
  }
  return std::nullopt;
}

int64_t size_of_any(const JsonView& config, std::initializer_list<std::string_view> keys, int64_t maximum,
                    int64_t fallback) {
  const auto value = find_any(config, keys);
  if (!value && fallback > 0) return fallback;
  return value ? value->as_int(1, maximum) : config.at(*keys.begin()).as_int(1, maximum);
}

double positive_or(const JsonView& config, std::string_view key, double fallback) {
  const auto value = config.find(key);
  if (!value) return fallback;
  const double number = value->as_double();
  if (!(number > 0 && number < 1e9)) value->reject(fmt::format("{} is outside (0, 1e9)", number));
  return number;
}

}  // namespace salient
