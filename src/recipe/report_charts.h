#pragma once

#include <string>

#include "recipe/report_figures.h"

namespace salient {

/// Each a piece of HTML with its legend; empty where nothing is to be drawn.
/// Signal-to-noise ratio in dB by layer, a line for each role; of experts the mean.
std::string depth_chart(const LinearRoles& roles);
/// Shares of the loss of rounding to nearest that scales, clips and rounding leave, by role.
std::string share_chart(const LinearRoles& roles);
/// Distribution of the chosen scales by layer, a panel for each kind of mapping.
std::string scale_charts(const MappingRoles& roles);
/// Chosen exponents by layer, a panel for each kind of mapping.
std::string exponent_charts(const MappingRoles& roles);

}  // namespace salient
