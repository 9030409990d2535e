#pragma once

#include "base/json.h"
#include "salient/oneshot.h"

namespace salient {

/// What `to_json` of a report gives, read back; null where a number stood that is not finite becomes NaN.
/// Members that are missing keep their defaults, unknown ones are passed over. Errors: bad_format with the
/// path for members of another type.
OneshotReport read_report(const JsonView& json);

}  // namespace salient
