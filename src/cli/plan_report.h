#pragma once

#include <span>
#include <string>

#include "salient/oneshot.h"

namespace salient::cli {

/// `options`: what was asked for, by recipe, flags or default.
void print_plan(const OneshotPlan& plan, const OneshotOptions& options);

/// "4.481 per weight (at most 4.5): 60 at 4, 28 at 5 linears".
std::string bits_text(const ChosenBits& bits);

/// Mappings and linears of every layer on standard output, layers that are alike together.
void print_layers(std::span<const PlannedLayer> layers);

}  // namespace salient::cli
