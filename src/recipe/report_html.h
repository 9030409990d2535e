#pragma once

#include <string>

#include "base/json.h"

namespace salient {

/// The report of a run as a page of HTML that stands alone: plots drawn in it, nothing to fetch, readable
/// without its script, which sorts tables. `report`: what `to_json` of an OneshotReport gives, with or
/// without "evaluation" as `salient quantize --eval` adds it. Errors: bad_format for members of other types.
std::string report_html(const Json& report);

}  // namespace salient
