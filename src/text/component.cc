#include "text/component.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"

namespace salient {

size_t component_index(const JsonView& description, std::string_view kind,
                       std::span<const std::string_view> types) {
  const std::string& type = description.at("type").as_string();
  const auto found = std::find(types.begin(), types.end(), type);
  if (found != types.end()) return static_cast<size_t>(found - types.begin());
  fail(ErrorKind::unsupported, "{}: {} of type \"{}\" is not supported (supported: {})", description.path(),
       kind, type, fmt::join(types, ", "));
}

}  // namespace salient
