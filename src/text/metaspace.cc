#include "text/metaspace.h"

#include "base/error.h"
#include "text/unicode.h"

namespace salient {
namespace {

Metaspace::Scheme read_scheme(const JsonView& description) {
  const std::string name = description.string_or("prepend_scheme", "always");
  if (name != "always" && name != "first" && name != "never") {
    description.at("prepend_scheme").reject("expected \"always\", \"first\" or \"never\"");
  }
  if (name != "never" && !description.bool_or("add_prefix_space", true)) {
    description.reject("add_prefix_space contradicts prepend_scheme");
  }
  return name == "always"  ? Metaspace::Scheme::always
         : name == "first" ? Metaspace::Scheme::first
                           : Metaspace::Scheme::never;
}

}  // namespace

char32_t Metaspace::replacement_character() const {
  size_t offset = 0;
  return next_character(replacement, offset);
}

Metaspace read_metaspace(const JsonView& description) {
  Metaspace metaspace{.replacement = description.at("replacement").as_string(),
                      .scheme = read_scheme(description),
                      .split = description.bool_or("split", true)};
  size_t offset = 0;
  if (!metaspace.replacement.empty()) next_character(metaspace.replacement, offset);
  if (offset == 0 || offset != metaspace.replacement.size()) {
    description.at("replacement").reject("expected one character");
  }
  return metaspace;
}

}  // namespace salient
