#pragma once

#include <span>

#include "base/json.h"
#include "salient/oneshot.h"

namespace salient::cli {

/// `options`: what was asked for, by recipe, flags or default.
Json to_json(const OneshotPlan& plan, const OneshotOptions& options);
void print_plan(const OneshotPlan& plan, const OneshotOptions& options);

Json to_json(const SchemeGroup& group);
Json to_json(const PlannedMapping& mapping);

/// Mappings and linears of every layer on standard output, layers that are alike together.
void print_layers(std::span<const PlannedLayer> layers);

}  // namespace salient::cli
