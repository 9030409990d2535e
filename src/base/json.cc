#include "base/json.h"

#include <unordered_map>

#include "base/error.h"
#include "base/file.h"
#include "base/spelling.h"

namespace salient {
namespace {

std::string describe(const Json& value) {
  return shortened(value.dump(-1, ' ', true, Json::error_handler_t::replace));
}

/// Builds the document itself, for two reasons: the ordered map of nlohmann looks for every new key among all
/// earlier ones, which takes minutes for the 128,000 tokens of a vocabulary; and values are written and
/// copied recursively, so that nesting without bound would let a small file exhaust the stack.
class DocumentBuilder : public nlohmann::json_sax<Json> {
 public:
  DocumentBuilder(std::string_view source, DuplicateKeys duplicates)
      : source_(source), duplicates_(duplicates) {}

  Json take() { return std::move(root_); }

  bool null() override { return add(Json(nullptr)); }
  bool boolean(bool value) override { return add(Json(value)); }
  bool number_integer(int64_t value) override { return add(Json(value)); }
  bool number_unsigned(uint64_t value) override { return add(Json(value)); }
  bool number_float(double value, const std::string&) override { return add(Json(value)); }
  bool string(std::string& value) override { return add(Json(std::move(value))); }
  bool binary(Json::binary_t& value) override { return add(Json(std::move(value))); }
  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(std::string& value) override {
    open_.back().key = std::move(value);
    return true;
  }

  bool parse_error(size_t, const std::string&, const Json::exception& error) override {
    // nlohmann prefixes its own identifier in brackets; the rest names line, column and token.
    std::string_view message = error.what();
    if (auto end = message.find("] "); end != std::string_view::npos) message.remove_prefix(end + 2);
    fail(ErrorKind::bad_format, "{}: not valid JSON: {}", source_, message);
  }

 private:
  static constexpr size_t kDepthLimit = 200;
  static constexpr size_t kIndexedSize = 16;

  struct Container {
    Json* value;
    std::string key;
    std::unordered_map<std::string, size_t> positions;  // of the keys, once there are kIndexedSize of them
  };

  Json& place(Json&& value) {
    if (open_.empty()) return root_ = std::move(value);
    Container& container = open_.back();
    if (container.value->is_array()) return container.value->emplace_back(std::move(value));
    return member(container, *container.value->get_ptr<Json::object_t*>()) = std::move(value);
  }

  /// The member called `container.key`.
  Json& member(Container& container, Json::object_t& object) const {
    if (object.size() < kIndexedSize) {
      if (object.count(container.key) > 0) check_duplicate(container.key);
      return object[container.key];
    }
    if (container.positions.empty()) {
      for (size_t i = 0; i < object.size(); ++i) container.positions.emplace((object.begin() + i)->first, i);
    }
    const auto [position, is_new] = container.positions.emplace(container.key, object.size());
    if (!is_new) check_duplicate(container.key);
    if (is_new) object.emplace_back(std::move(container.key), nullptr);
    return (object.begin() + position->second)->second;
  }

  void check_duplicate(std::string_view key) const {
    if (duplicates_ == DuplicateKeys::last_counts) return;
    fail(ErrorKind::bad_format, "{}: the key \"{}\" stands twice", source_, key);
  }

  bool add(Json&& value) {
    place(std::move(value));
    return true;
  }

  bool open(Json&& value) {
    if (open_.size() == kDepthLimit) {
      fail(ErrorKind::bad_format, "{}: nested deeper than {} levels", source_, kDepthLimit);
    }
    Json& placed = place(std::move(value));
    open_.push_back({.value = &placed, .key = {}, .positions = {}});
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  std::string_view source_;
  DuplicateKeys duplicates_;
  Json root_;
  std::vector<Container> open_;
};

}  // namespace

Json parse_json(std::string_view text, std::string_view source, DuplicateKeys duplicates) {
  DocumentBuilder builder(source, duplicates);
  Json::sax_parse(text, &builder);
  return builder.take();
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
  for (size_t i = 0; i < value_->size(); ++i)
    result.emplace_back((*value_)[i], fmt::format("{}[{}]", path_, i));
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

void JsonView::reject(std::string_view message) const {
  fail(ErrorKind::bad_format, "{}: {}", path_, message);
}

void JsonView::wrong_type(std::string_view expected) const {
  reject(fmt::format("expected {}, got {}", expected, describe(*value_)));
}

}  // namespace salient
