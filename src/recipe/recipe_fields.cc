#include "recipe/recipe_fields.h"

#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "base/spelling.h"

namespace salient {
namespace {

bool same_word(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

}  // namespace

std::string value_text(const JsonView& view) {
  return shortened(view.json().dump(-1, ' ', false, Json::error_handler_t::replace));
}

void check_keys(const JsonView& object, std::span<const std::string_view> known) {
  for (const auto& [key, value] : object.members()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    reject_key(value, key, known);
  }
}

void reject_key(const JsonView& value, std::string_view key, std::span<const std::string_view> known) {
  fail(ErrorKind::invalid_argument, "{}: unknown key (its value: {}); {}", value.path(), value_text(value),
       suggest(key, known));
}

void reject_value(const JsonView& view, ErrorKind kind, std::string_view message) {
  fail(kind, "{}: {} {}", view.path(), value_text(view), message);
}

size_t read_word(const JsonView& view, std::span<const std::string_view> words) {
  const std::string& text = view.as_string();
  const auto found =
      std::find_if(words.begin(), words.end(), [&](std::string_view word) { return same_word(word, text); });
  if (found != words.end()) return static_cast<size_t>(found - words.begin());
  reject_value(view, ErrorKind::invalid_argument, "is unknown; " + suggest(text, words));
}

std::vector<std::string> read_texts(const JsonView& view) {
  if (view.json().is_string()) return {view.as_string()};
  std::vector<std::string> texts;
  for (const JsonView& element : view.elements()) texts.push_back(element.as_string());
  return texts;
}

}  // namespace salient
