#include "text/component.h"

#include <fmt/ranges.h>

#include "base/error.h"

namespace salient {

void refuse_component(const JsonView& description, std::string_view kind,
                      std::span<const std::string_view> supported) {
  fail(ErrorKind::unsupported, "{}: {} of type \"{}\" is not supported (supported: {})", description.path(),
       kind, description.at("type").as_string(), fmt::join(supported, ", "));
}

}  // namespace salient
