#include "base/json.h"

#include "base/error.h"
#include "base/file.h"

namespace salient {
namespace {

std::string shorten(std::string text) {
  constexpr size_t kLimit = 60;
  if (text.size() <= kLimit) return text;
  return text.substr(0, kLimit) + "...";
}

std::string describe(const Json& value) {
  return shorten(value.dump(-1, ' ', true, Json::error_handler_t::replace));
}

}  // namespace

Json parse_json(std::string_view text, std::string_view source) {
  try {
    return Json::parse(text);
  } catch (const Json::exception& error) {
    // nlohmann prefixes its own identifier in brackets; the rest names line, column and token.
    std::string_view message = error.what();
    if (auto end = message.find("] "); end != std::string_view::npos) message.remove_prefix(end + 2);
    fail(ErrorKind::bad_format, "{}: not valid JSON: {}", source, message);
  }
}

Json read_json_file(const std::string& path) { return parse_json(read_text_file(path), path); }

JsonView JsonView::at(std::string_view key) const {
  if (!value_->is_object()) wrong_type("an object");
  auto member = value_->find(std::string(key));
  if (member == value_->end()) reject(fmt::format("the key \"{}\" is missing", key));
  return {*member, fmt::format("{}: {}", path_, key)};
}

std::optional<JsonView> JsonView::find(std::string_view key) const {
  if (!value_->is_object()) wrong_type("an object");
  auto member = value_->find(std::string(key));
  if (member == value_->end() || member->is_null()) return std::nullopt;
  return JsonView(*member, fmt::format("{}: {}", path_, key));
}

std::vector<JsonView> JsonView::elements() const {
  if (!value_->is_array()) wrong_type("an array");
  std::vector<JsonView> result;
  result.reserve(value_->size());
  for (size_t i = 0; i < value_->size(); ++i) result.emplace_back((*value_)[i], fmt::format("{}[{}]", path_, i));
  return result;
}

std::vector<std::pair<std::string, JsonView>> JsonView::members() const {
  if (!value_->is_object()) wrong_type("an object");
  std::vector<std::pair<std::string, JsonView>> result;
  result.reserve(value_->size());
  for (const auto& [key, value] : value_->items()) {
    result.emplace_back(key, JsonView(value, fmt::format("{}: {}", path_, key)));
  }
  return result;
}

int64_t JsonView::as_int(int64_t minimum, int64_t maximum) const {
  if (!value_->is_number_integer()) wrong_type("an integer");
  const bool too_big = value_->is_number_unsigned() && value_->get<uint64_t>() > uint64_t{INT64_MAX};
  if (too_big || value_->get<int64_t>() < minimum || value_->get<int64_t>() > maximum) {
    reject(fmt::format("{} is outside [{}, {}]", describe(*value_), minimum, maximum));
  }
  return value_->get<int64_t>();
}

double JsonView::as_double() const {
  if (!value_->is_number()) wrong_type("a number");
  return value_->get<double>();
}

bool JsonView::as_bool() const {
  if (!value_->is_boolean()) wrong_type("true or false");
  return value_->get<bool>();
}

const std::string& JsonView::as_string() const {
  if (!value_->is_string()) wrong_type("a string");
  return value_->get_ref<const std::string&>();
}

int64_t JsonView::int_or(std::string_view key, int64_t fallback) const {
  auto member = find(key);
  return member ? member->as_int() : fallback;
}

double JsonView::double_or(std::string_view key, double fallback) const {
  auto member = find(key);
  return member ? member->as_double() : fallback;
}

bool JsonView::bool_or(std::string_view key, bool fallback) const {
  auto member = find(key);
  return member ? member->as_bool() : fallback;
}

std::string JsonView::string_or(std::string_view key, std::string_view fallback) const {
  auto member = find(key);
  return member ? member->as_string() : std::string(fallback);
}

void JsonView::reject(std::string_view message) const { fail(ErrorKind::bad_format, "{}: {}", path_, message); }

void JsonView::wrong_type(std::string_view expected) const {
  reject(fmt::format("expected {}, got {}", expected, describe(*value_)));
}

}  // namespace salient
