#pragma once

#include <string>

#include "base/json.h"
#include "salient/oneshot.h"

namespace salient {

/// "AWQ: duo_scaling both, 20 candidates, clip search, rounding compensated, ..."
std::string method_text(const OneshotOptions& options);

Json to_json(const SchemeGroup& group);
Json to_json(const PlannedMapping& mapping);
/// `options`: what was asked for, by recipe, flags or default.
Json to_json(const OneshotPlan& plan, const OneshotOptions& options);
Json to_json(const OneshotReport& report);

}  // namespace salient
