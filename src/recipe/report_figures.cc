#include "recipe/report_figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

namespace salient {
namespace {

bool is_number(char character) { return character >= '0' && character <= '9'; }
bool is_word(char character) {
  return is_number(character) || (character >= 'a' && character <= 'z') ||
         (character >= 'A' && character <= 'Z') || character == '_';
}

/// "experts.17.up_proj" as "experts.*.up_proj": numbers that stand as words of their own become stars.
std::string without_numbers(std::string_view name) {
  std::string result;
  for (size_t begin = 0; begin < name.size();) {
    size_t end = begin;
    while (end < name.size() && is_word(name[end])) ++end;
    const std::string_view word = name.substr(begin, end - begin);
    const bool is_index = !word.empty() && std::all_of(word.begin(), word.end(), is_number);
    result += is_index ? std::string_view("*") : word;
    if (end < name.size()) result += name[end++];
    begin = end;
  }
  return result;
}

/// "model.layers.3.mlp.experts.7.up_proj" of layer 3 as "mlp.experts.*.up_proj".
std::string name_in_layer(const std::string& name, int64_t layer) {
  const std::string number = fmt::format(".{}.", layer);
  const size_t begin = name.find(number);
  return without_numbers(begin == std::string::npos ? name : name.substr(begin + number.size()));
}

/// Without its first part: "mlp.up_proj" as "up_proj".
std::string short_role(const std::string& name) {
  const size_t dot = name.find('.');
  return dot == std::string::npos ? name : name.substr(dot + 1);
}

/// The numbers of names in the order of their first appearance.
class Numbering {
 public:
  size_t number(const std::string& name) {
    const auto [entry, is_new] = numbers_.emplace(name, names_.size());
    if (is_new) names_.push_back(name);
    return entry->second;
  }
  const std::vector<std::string>& names() const { return names_; }

 private:
  std::map<std::string, size_t> numbers_;
  std::vector<std::string> names_;
};

/// Short names where no two roles share one: GPT-2 calls a linear c_proj in both of its blocks.
std::vector<std::string> role_names(const std::vector<std::string>& names) {
  std::map<std::string, int> uses;
  for (const std::string& name : names) ++uses[short_role(name)];
  std::vector<std::string> roles;
  for (const std::string& name : names) roles.push_back(uses[short_role(name)] > 1 ? name : short_role(name));
  return roles;
}

/// The group of `role` among those of the current layer, which begin at `begin`.
template <class Group>
Group& group_of(std::vector<Group>& groups, size_t begin, size_t role, int64_t layer) {
  for (size_t i = begin; i < groups.size(); ++i) {
    if (groups[i].role == role) return groups[i];
  }
  Group& added = groups.emplace_back();
  added.role = role;
  added.layer = layer;
  return added;
}

bool is_positive(double value) { return std::isfinite(value) && value > 0; }

}  // namespace

std::optional<double> signal_to_noise_db(double signal, double loss) {
  if (!is_positive(signal) || !is_positive(loss)) return std::nullopt;
  return 10 * (std::log10(signal) - std::log10(loss));  // a quotient could overflow
}

LinearRoles group_linears(std::span<const LayerReport> layers) {
  LinearRoles result;
  Numbering roles;
  for (const LayerReport& layer : layers) {
    const size_t begin = result.groups.size();
    for (const LinearReport& linear : layer.linears) {
      const size_t role = roles.number(name_in_layer(linear.name, layer.layer));
      group_of(result.groups, begin, role, layer.layer).linears.push_back(&linear);
    }
  }
  result.names = role_names(roles.names());
  return result;
}

MappingRoles group_mappings(std::span<const LayerReport> layers) {
  MappingRoles result;
  Numbering roles;
  for (const LayerReport& layer : layers) {
    const size_t begin = result.groups.size();
    for (const MappingReport& mapping : layer.mappings) {
      const size_t role = roles.number(without_numbers(mapping.mapping));
      group_of(result.groups, begin, role, layer.layer).mappings.push_back(&mapping);
    }
  }
  result.names = roles.names();
  return result;
}

std::optional<double> mean_db(std::span<const LinearReport* const> linears, double LinearReport::*loss) {
  double sum = 0;
  int64_t count = 0;
  for (const LinearReport* linear : linears) {
    if (const auto db = signal_to_noise_db(linear->signal, linear->*loss)) {
      sum += *db;
      ++count;
    }
  }
  if (count == 0) return std::nullopt;
  return sum / static_cast<double>(count);
}

std::optional<double> mean_share(std::span<const LinearReport* const> linears, double LinearReport::*loss) {
  double sum = 0;
  int64_t count = 0;
  for (const LinearReport* linear : linears) {
    if (!is_positive(linear->loss_nearest) || !is_positive(linear->*loss)) continue;
    sum += std::log(linear->*loss) - std::log(linear->loss_nearest);
    ++count;
  }
  if (count == 0) return std::nullopt;
  return std::exp(sum / static_cast<double>(count));
}

std::vector<RoleFigures> figures_by_role(const LinearRoles& roles) {
  std::vector<RoleFigures> figures;
  for (const std::string& name : roles.names) figures.push_back({.role = name, .linears = {}});
  for (const LinearGroup& group : roles.groups) {
    auto& linears = figures[group.role].linears;
    linears.insert(linears.end(), group.linears.begin(), group.linears.end());
  }
  return figures;
}

std::vector<const LinearReport*> all_linears(std::span<const LayerReport> layers) {
  std::vector<const LinearReport*> linears;
  for (const LayerReport& layer : layers) {
    for (const LinearReport& linear : layer.linears) linears.push_back(&linear);
  }
  return linears;
}

std::vector<std::string> failure_texts(std::span<const LayerReport> layers) {
  std::vector<std::string> texts;
  for (const LayerReport& layer : layers) {
    for (const MappingReport& mapping : layer.mappings) {
      if (mapping.failure.empty()) continue;
      texts.push_back(fmt::format("layer {}, {}: {}", layer.layer, mapping.mapping, mapping.failure));
    }
  }
  return texts;
}

}  // namespace salient
