#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "salient/oneshot.h"

namespace salient {

/// 10 log10(signal / loss); nothing where one of the two is zero or no finite number.
std::optional<double> signal_to_noise_db(double signal, double loss);

/// The linears that do the same work in one layer: one, or one of each expert.
struct LinearGroup {
  size_t role = 0;  ///< in LinearRoles::names
  int64_t layer = 0;
  std::vector<const LinearReport*> linears;
};

/// What the linears of a model are for, in the order of their first appearance.
struct LinearRoles {
  std::vector<std::string> names;  ///< "q_proj", "experts.*.up_proj"
  std::vector<LinearGroup> groups;
};

/// `layers` must outlive the result.
LinearRoles group_linears(std::span<const LayerReport> layers);

/// The mappings that do the same work in one layer: one, or one of each expert.
struct MappingGroup {
  size_t role = 0;
  int64_t layer = 0;
  std::vector<const MappingReport*> mappings;
};

struct MappingRoles {
  std::vector<std::string> names;  ///< "input_layernorm -> q_proj, k_proj, v_proj"
  std::vector<MappingGroup> groups;
};

MappingRoles group_mappings(std::span<const LayerReport> layers);

/// The mean of the ratios in dB; nothing where none of the linears has one.
std::optional<double> mean_db(std::span<const LinearReport* const> linears, double LinearReport::*loss);

/// Geometric mean of loss / loss_nearest over the linears where both are positive numbers, so that a linear
/// of large outputs counts as much as one of small ones; nothing where there is none.
std::optional<double> mean_share(std::span<const LinearReport* const> linears, double LinearReport::*loss);

/// All linears of one role.
struct RoleFigures {
  std::string role;
  std::vector<const LinearReport*> linears;
};

/// In the order of the roles.
std::vector<RoleFigures> figures_by_role(const LinearRoles& roles);
/// Of all layers.
std::vector<const LinearReport*> all_linears(std::span<const LayerReport> layers);

/// "layer 3, input_layernorm -> q_proj, k_proj, v_proj: why".
std::vector<std::string> failure_texts(std::span<const LayerReport> layers);

}  // namespace salient
