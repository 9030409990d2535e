#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace salient {

/// How recipes and configs name modules, as compressed-tensors resolves it: "model.layers.0.mlp.up_proj" is
/// that name, "re:.*up_proj$" a regular expression that must match from the start of a name (Python's
/// re.match). Immutable, so threads may share it.
class NamePattern {
 public:
  /// Errors: invalid_argument for a broken regular expression.
  explicit NamePattern(std::string text);

  /// Errors: invalid_argument when the search takes too many steps.
  bool matches(std::string_view name) const;

  const std::string& text() const { return text_; }
  bool is_regex() const { return code_ != nullptr; }

 private:
  std::string text_;
  std::shared_ptr<void> code_;  // of PCRE2; null for a plain name
};

}  // namespace salient
