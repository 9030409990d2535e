#pragma once

#include <string_view>

#include "base/json.h"

namespace salient {

/// Parses a YAML document into the values that JSON knows, plain scalars read as PyYAML reads them ("yes" is
/// true). `source` (a file name) leads every message. Errors: bad_format with the line: no valid YAML, a key
/// that is no text or stands twice, a foreign tag, more nesting or more values (aliases count each time) than
/// a recipe ever needs, more than one document.
Json parse_yaml(std::string_view text, std::string_view source);

}  // namespace salient
