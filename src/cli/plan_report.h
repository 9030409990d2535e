#pragma once

#include <span>

#include "salient/oneshot.h"

namespace salient::cli {

/// `options`: what was asked for, by recipe, flags or default.
void print_plan(const OneshotPlan& plan, const OneshotOptions& options);

/// Mappings and linears of every layer on standard output, layers that are alike together.
void print_layers(std::span<const PlannedLayer> layers);

}  // namespace salient::cli
