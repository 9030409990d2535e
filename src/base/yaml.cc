#include "base/yaml.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <vector>

#include "base/error.h"

namespace salient {
namespace {

constexpr int kDepthLimit = 32;
// Aliases repeat whole trees, so a small file can stand for a huge one.
constexpr int kValueLimit = 100'000;
constexpr size_t kTextLimit = size_t{1} << 22;

bool is_one_of(std::string_view text, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), text) != words.end();
}

template <typename T>
bool parse_number(std::string_view text, T& value) {
  if (text.starts_with('+')) text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

/// A scalar without quotes or tag.
Json plain_scalar(const std::string& text) {
  if (is_one_of(text, {"", "~", "null", "Null", "NULL"})) return nullptr;
  if (is_one_of(text, {"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"})) return true;
  if (is_one_of(text, {"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"})) return false;
  int64_t integer = 0;
  if (parse_number(text, integer)) return integer;
  double real = 0;
  // "inf" and "nan" are words in YAML.
  const bool has_digit = std::any_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (has_digit && parse_number(text, real)) return real;
  return text;
}

class Converter {
 public:
  explicit Converter(std::string_view source) : source_(source) {}

  Json convert(const YAML::Node& node, int depth) {
    if (depth > kDepthLimit) reject(node, fmt::format("nested more than {} deep", kDepthLimit));
    if (++values_ > kValueLimit) reject(node, fmt::format("more than {} values", kValueLimit));
    switch (node.Type()) {
      case YAML::NodeType::Scalar:
        return scalar(node);
      case YAML::NodeType::Sequence:
        return sequence(node, depth);
      case YAML::NodeType::Map:
        return map(node, depth);
      default:
        return nullptr;
    }
  }

 private:
  Json scalar(const YAML::Node& node) {
    text_ += node.Scalar().size();
    if (text_ > kTextLimit) reject(node, fmt::format("more than {} bytes of text", kTextLimit));
    const std::string& tag = node.Tag();
    if (tag == "?") return plain_scalar(node.Scalar());
    if (tag == "!" || tag == "tag:yaml.org,2002:str") return node.Scalar();  // quoted
    reject(node, fmt::format("the tag \"{}\" is not supported", tag));
  }

  Json sequence(const YAML::Node& node, int depth) {
    check_tag(node, "tag:yaml.org,2002:seq");
    Json result = Json::array();
    for (const auto& element : node) result.push_back(convert(element, depth + 1));
    return result;
  }

  Json map(const YAML::Node& node, int depth) {
    check_tag(node, "tag:yaml.org,2002:map");
    Json result = Json::object();
    for (const auto& member : node) {
      if (!member.first.IsScalar()) reject(member.first, "a key must be a word");
      const std::string& key = member.first.Scalar();
      if (result.contains(key)) reject(member.first, fmt::format("the key \"{}\" stands twice", key));
      result[key] = convert(member.second, depth + 1);
    }
    return result;
  }

  void check_tag(const YAML::Node& node, std::string_view own) const {
    if (!is_one_of(node.Tag(), {"", "?", "!", own})) {
      reject(node, fmt::format("the tag \"{}\" is not supported", node.Tag()));
    }
  }

  [[noreturn]] void reject(const YAML::Node& node, std::string_view message) const {
    fail(ErrorKind::bad_format, "{}: line {}: {}", source_, node.Mark().line + 1, message);
  }

  std::string_view source_;
  int values_ = 0;
  size_t text_ = 0;
};

}  // namespace

Json parse_yaml(std::string_view text, std::string_view source) {
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(std::string(text));
    if (documents.size() > 1) {
      fail(ErrorKind::bad_format, "{}: line {}: a second document begins; only one is read", source,
           documents[1].Mark().line + 1);
    }
    return documents.empty() ? Json(nullptr) : Converter(source).convert(documents.front(), 0);
  } catch (const YAML::Exception& error) {
    fail(ErrorKind::bad_format, "{}: not valid YAML: line {}, column {}: {}", source, error.mark.line + 1,
         error.mark.column + 1, error.msg);
  }
}

}  // namespace salient
