#include "cli/plan_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <map>

#include "cli/terminal.h"
#include "quant/scheme.h"

namespace salient::cli {
namespace {

/// "model.layers.3.mlp.experts.17.up_proj" of layer 3 -> "mlp.experts.*.up_proj".
std::string name_in_layer(const std::string& name, int64_t layer) {
  const std::string number = fmt::format(".{}.", layer);
  const size_t begin = name.find(number);
  std::string rest = begin == std::string::npos ? name : name.substr(begin + number.size());
  std::string result;
  for (size_t i = 0; i < rest.size();) {
    size_t end = rest.find('.', i);
    if (end == std::string::npos) end = rest.size();
    const std::string word = rest.substr(i, end - i);
    const bool digits = !word.empty() && std::all_of(word.begin(), word.end(),
                                                     [](unsigned char c) { return std::isdigit(c) != 0; });
    if (!result.empty()) result += '.';
    result += digits ? "*" : word;
    i = end + 1;
  }
  return result;
}

/// Appends `line` unless it stands there already.
void add_once(std::vector<std::string>& lines, std::string line) {
  if (std::find(lines.begin(), lines.end(), line) == lines.end()) lines.push_back(std::move(line));
}

/// Expert numbers become stars, so that the mappings of all experts are one line.
std::string mapping_line(const PlannedMapping& mapping, int64_t layer) {
  const bool of_expert = mapping.smooth_layer.find(".experts.") != std::string::npos;
  if (!of_expert) return mapping.summary;
  std::vector<std::string> readers;
  for (const std::string& name : mapping.balance_layers) readers.push_back(name_in_layer(name, layer));
  return fmt::format("{} -> {}", name_in_layer(mapping.smooth_layer, layer), fmt::join(readers, ", "));
}

std::string rule_text(const PlannedLinear& linear) {
  return fmt::format("{} ({}: \"{}\")", describe(linear.scheme), linear.group, linear.target);
}

Json to_json(const PlannedLinear& linear) {
  return {{"name", linear.name},
          {"shape", {linear.out_features, linear.in_features}},
          {"group", linear.group},
          {"target", linear.target}};
}

/// The lines that describe one layer.
std::vector<std::string> layer_lines(const PlannedLayer& layer) {
  std::vector<std::string> lines;
  for (const PlannedMapping& mapping : layer.mappings) {
    add_once(lines, "    smooth  " + mapping_line(mapping, layer.layer));
  }
  std::vector<std::string> rules;
  std::map<std::string, std::vector<std::string>> linears_of;
  for (const PlannedLinear& linear : layer.linears) {
    const std::string rule =
        fmt::format("{} ({}: \"{}\")", describe(linear.scheme), linear.group, linear.target);
    add_once(rules, rule);
    add_once(linears_of[rule], name_in_layer(linear.name, layer.layer));
  }
  for (const std::string& rule : rules) {
    lines.push_back(fmt::format("    {}  {}", rule, fmt::join(linears_of[rule], ", ")));
  }
  return lines;
}

/// "0-5, 7".
std::string layer_range(const std::vector<int64_t>& layers) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin < layers.size();) {
    size_t end = begin;
    while (end + 1 < layers.size() && layers[end + 1] == layers[end] + 1) ++end;
    parts.push_back(begin == end ? fmt::format("{}", layers[begin])
                                 : fmt::format("{}-{}", layers[begin], layers[end]));
    begin = end + 1;
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

}  // namespace

Json to_json(const SchemeGroup& group) {
  return {{"name", group.name},
          {"targets", group.targets},
          {"num_bits", group.scheme.num_bits},
          {"symmetric", group.scheme.symmetric},
          {"group_size", group.scheme.group_size}};
}

Json to_json(const PlannedMapping& mapping) {
  return {{"smooth_layer", mapping.smooth_layer}, {"balance_layers", mapping.balance_layers}};
}

Json to_json(const OneshotPlan& plan) {
  Json groups = Json::array();
  for (const SchemeGroup& group : plan.groups) groups.push_back(to_json(group));
  Json layers = Json::array();
  for (const PlannedLayer& layer : plan.layers) {
    Json mappings = Json::array();
    for (const PlannedMapping& mapping : layer.mappings) mappings.push_back(to_json(mapping));
    Json linears = Json::array();
    for (const PlannedLinear& linear : layer.linears) {
      linears.push_back(to_json(linear));
    }
    layers.push_back({{"layer", layer.layer}, {"mappings", mappings}, {"linears", linears}});
  }
  Json dense = Json::array();
  for (const auto& module : plan.dense) dense.push_back({{"name", module.name}, {"reason", module.reason}});
  return {{"architecture", plan.architecture},
          {"device", plan.device},
          {"groups", groups},
          {"layers", layers},
          {"head", plan.head ? to_json(*plan.head) : Json()},
          {"dense", dense},
          {"warnings", plan.warnings},
          {"quantized_linears", plan.quantized_linears},
          {"calibration_tokens", plan.calibration_tokens},
          {"bytes_before", plan.bytes_before},
          {"bytes_after", plan.bytes_after},
          {"memory",
           {{"hidden_states", plan.memory_hidden_states},
            {"layer", plan.memory_layer},
            {"statistics", plan.memory_statistics},
            {"workspace", plan.memory_workspace},
            {"peak", plan.memory_peak}}}};
}

void print_layers(std::span<const PlannedLayer> layers) {
  std::vector<std::vector<std::string>> kinds;
  std::vector<std::vector<int64_t>> layers_of;
  for (const PlannedLayer& layer : layers) {
    std::vector<std::string> lines = layer_lines(layer);
    const auto found = std::find(kinds.begin(), kinds.end(), lines);
    const auto kind = static_cast<size_t>(found - kinds.begin());
    if (found == kinds.end()) {
      kinds.push_back(std::move(lines));
      layers_of.emplace_back();
    }
    layers_of[kind].push_back(layer.layer);
  }
  for (size_t kind = 0; kind < kinds.size(); ++kind) {
    fmt::print("  layers {}\n", layer_range(layers_of[kind]));
    for (const std::string& line : kinds[kind]) fmt::print("{}\n", line);
  }
}

void print_plan(const OneshotPlan& plan) {
  fmt::print("Plan (nothing is written):\n");
  print_table(
      {{"model", fmt::format("{}, {} layers", plan.architecture, plan.layers.size())},
       {"device", plan.device},
       {"quantized", fmt::format("{} linears", plan.quantized_linears)},
       {"calibration", fmt::format("{} tokens", plan.calibration_tokens)},
       {"size", fmt::format("{} -> {}", format_bytes(plan.bytes_before), format_bytes(plan.bytes_after))},
       {"memory",
        fmt::format(
            "about {} (hidden states {}, one layer {}, statistics {}, workspace {}) beside the program",
            format_bytes(plan.memory_peak), format_bytes(plan.memory_hidden_states),
            format_bytes(plan.memory_layer), format_bytes(plan.memory_statistics),
            format_bytes(plan.memory_workspace))}});
  fmt::print("Layers:\n");
  print_layers(plan.layers);
  if (plan.head) fmt::print("  output head\n    {}  {}\n", rule_text(*plan.head), plan.head->name);
  fmt::print("Stays dense (embeddings and norms always do):\n");
  for (const auto& module : plan.dense) fmt::print("  {}  ({})\n", module.name, module.reason);
  for (const auto& warning : plan.warnings) fmt::print("Warning: {}\n", warning);
}

}  // namespace salient::cli
