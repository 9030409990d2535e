#pragma once

#include <span>
#include <string>

#include "recipe/report_figures.h"

namespace salient {

/// Rows that a table of linears or mappings has at most one by one; where there are more the experts of a
/// layer are one row, with means.
inline constexpr size_t kMostRows = 5000;

/// Each a sortable table in HTML; empty where it would have no rows.
std::string role_table(const LinearRoles& roles);
std::string linear_table(const LinearRoles& roles);
std::string mapping_table(const MappingRoles& roles);
std::string layer_table(std::span<const LayerReport> layers);

}  // namespace salient
