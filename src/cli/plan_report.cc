#include "cli/plan_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include "base/parallel.h"
#include "cli/terminal.h"
#include "quant/scheme.h"
#include "recipe/memory_plan.h"
#include "recipe/report_json.h"

namespace salient::cli {
namespace {

/// "model.layers.3.mlp.up_proj" of layer 3 -> "mlp.up_proj".
std::string name_in_layer(const std::string& name, int64_t layer) {
  const std::string number = fmt::format(".{}.", layer);
  const size_t begin = name.find(number);
  return begin == std::string::npos ? name : name.substr(begin + number.size());
}

/// "mlp.experts.17.up_proj" as "mlp.experts.*.up_proj" and 17; -1 for what belongs to no expert.
std::pair<std::string, int64_t> without_expert(const std::string& name) {
  const std::string mark = ".experts.";
  const size_t at = name.find(mark);
  if (at == std::string::npos) return {name, -1};
  const size_t begin = at + mark.size();
  const size_t end = name.find('.', begin);
  int64_t expert = -1;
  const auto [last, error] =
      std::from_chars(name.data() + begin, name.data() + std::min(end, name.size()), expert);
  if (error != std::errc() || end == std::string::npos) return {name, -1};
  return {fmt::format("{}*{}", name.substr(0, begin), name.substr(end)), expert};
}

/// Appends `line` unless it stands there already.
void add_once(std::vector<std::string>& lines, std::string line) {
  if (std::find(lines.begin(), lines.end(), line) == lines.end()) lines.push_back(std::move(line));
}

/// Expert numbers become stars, so that the mappings of all experts are one line.
std::string mapping_line(const PlannedMapping& mapping, int64_t layer) {
  const auto [smooth, expert] = without_expert(name_in_layer(mapping.smooth_layer, layer));
  if (expert < 0) return mapping.summary;
  std::vector<std::string> readers;
  for (const std::string& name : mapping.balance_layers) {
    readers.push_back(without_expert(name_in_layer(name, layer)).first);
  }
  return fmt::format("{} -> {}", smooth, fmt::join(readers, ", "));
}

/// "0-5, 7".
std::string range_text(const std::vector<int64_t>& numbers) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin < numbers.size();) {
    size_t end = begin;
    while (end + 1 < numbers.size() && numbers[end + 1] == numbers[end] + 1) ++end;
    parts.push_back(begin == end ? fmt::format("{}", numbers[begin])
                                 : fmt::format("{}-{}", numbers[begin], numbers[end]));
    begin = end + 1;
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

/// "int4 asymmetric, group 128, observer mse (group_0: \"Linear\")"
std::string rule_text(const PlannedLinear& linear) {
  std::string text = describe(linear.scheme);
  if (linear.observer == Observer::minmax) text += ", observer minmax";
  if (linear.observer == Observer::mse) text += ", observer mse";
  if (linear.order == ActivationOrder::weight) text += ", strongest columns first";
  return fmt::format("{} ({}: \"{}\")", text, linear.group, linear.target);
}

/// Names of a layer's linears by rule; of experts that do not all have the same rule the numbers stand there.
std::vector<std::string> names_of_rule(const PlannedLayer& layer, const std::string& rule) {
  std::map<std::string, std::vector<int64_t>> experts;
  std::set<std::string> shared;  // names that have another rule as well
  std::vector<std::string> names;
  for (const PlannedLinear& linear : layer.linears) {
    const auto [name, expert] = without_expert(name_in_layer(linear.name, layer.layer));
    if (rule_text(linear) != rule) {
      shared.insert(name);
      continue;
    }
    add_once(names, name);
    experts[name].push_back(expert);
  }
  for (std::string& name : names) {
    if (shared.contains(name))
      name.replace(name.find('*'), 1, fmt::format("{{{}}}", range_text(experts[name])));
  }
  return names;
}

/// The lines that describe one layer.
std::vector<std::string> layer_lines(const PlannedLayer& layer) {
  std::vector<std::string> lines;
  for (const PlannedMapping& mapping : layer.mappings) {
    add_once(lines, "    smooth  " + mapping_line(mapping, layer.layer));
  }
  std::vector<std::string> rules;
  for (const PlannedLinear& linear : layer.linears) add_once(rules, rule_text(linear));
  for (const std::string& rule : rules) {
    lines.push_back(fmt::format("    {}  {}", rule, fmt::join(names_of_rule(layer, rule), ", ")));
  }
  return lines;
}

std::string memory_text(const MemoryPlan& memory) {
  const uint64_t allowance = program_allowance(memory.program);
  std::string text = fmt::format(
      "up to {} (program {}, hidden states {}, one layer {}, statistics {}, workspace {}",
      format_bytes(memory.sufficient_cap), format_bytes(allowance), format_bytes(memory.hidden_states),
      format_bytes(memory.layer), format_bytes(memory.statistics), format_bytes(memory.workspace));
  // Under a cap there is room for some threads more than a small machine has.
  const uint64_t planned = memory.peak - memory.program + allowance;
  constexpr uint64_t kMiB = uint64_t{1} << 20;
  if (memory.sufficient_cap > planned + kMiB)
    text += fmt::format(", room for more threads {}", format_bytes(memory.sufficient_cap - planned));
  if (memory.sampling > 0) text += fmt::format("; before that sampling {}", format_bytes(memory.sampling));
  text += fmt::format("); fits under --max-memory {}MiB", memory.sufficient_cap / kMiB);
  if (memory.cap == 0) return text;
  text +=
      fmt::format("; capped at {}: batches of {} tokens", format_bytes(memory.cap), memory.rows_per_batch);
  if (memory.storage == HiddenStates::bf16) text += ", hidden states in bf16";
  if (memory.storage == HiddenStates::spilled)
    text += fmt::format(", {} of hidden states in bf16 on disk", format_bytes(memory.spilled));
  if (memory.gram_block > 0)
    text += fmt::format(", Gram matrices in blocks of {} columns", memory.gram_block);
  if (memory.threads < thread_count()) text += fmt::format(", {} threads", memory.threads);
  return text;
}

/// "4096 tokens of a.txt, self"
std::string calibration_text(const OneshotPlan& plan, const CalibrationOptions& calibration) {
  std::vector<std::string> names;
  if (plan.calibration_tokens > 0) {
    for (const CalibrationDataset& dataset : calibration.datasets) names.push_back(dataset.data);
  }
  return fmt::format("{} tokens{}{}", plan.calibration_tokens, names.empty() ? "" : " of ",
                     fmt::join(names, ", "));
}

}  // namespace

std::string bits_text(const ChosenBits& bits) {
  std::map<int, int64_t> linears_of;
  for (const MeasuredWidths& unit : bits.units) {
    linears_of[unit.num_bits] += static_cast<int64_t>(unit.linears.size());
  }
  std::vector<std::string> parts;
  for (const auto& [num_bits, linears] : linears_of) {
    parts.push_back(fmt::format("{} at {}", linears, num_bits));
  }
  return fmt::format("{:.3f} per weight (at most {}): {} linears", bits.mean_bits, bits.target_bits,
                     fmt::join(parts, ", "));
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
    const bool one = layers_of[kind].size() == 1;
    fmt::print("  {} {}{}\n", one ? "layer" : "layers", range_text(layers_of[kind]),
               kinds[kind].empty() ? ": all dense" : "");
    for (const std::string& line : kinds[kind]) fmt::print("{}\n", line);
  }
}

void print_plan(const OneshotPlan& plan, const OneshotOptions& options) {
  fmt::print("Plan (nothing is written):\n");
  const bool scaled = plan.result == OneshotResult::scaled;
  std::vector<std::pair<std::string, std::string>> rows{
      {"model", fmt::format("{}, {} layers", plan.architecture, plan.layers.size())},
      {"device", plan.device},
      {"method", method_text(options)},
      {"format",
       scaled ? "dense, for another program to round" : std::string(to_string(options.integer_format()))},
      {"quantized", fmt::format("{} linears", plan.quantized_linears)},
      {"calibration", calibration_text(plan, options.calibration)},
      {"size", fmt::format("{} -> {}", format_bytes(plan.bytes_before), format_bytes(plan.bytes_after))},
      {"memory", memory_text(plan.memory)}};
  if (plan.bits) rows.emplace_back("bits", bits_text(*plan.bits));
  print_table(rows);
  fmt::print("Layers:\n");
  print_layers(plan.layers);
  if (plan.head) fmt::print("  output head\n    {}  {}\n", rule_text(*plan.head), plan.head->name);
  fmt::print("Stays dense (embeddings and norms always do):\n");
  for (const auto& module : plan.dense) fmt::print("  {}  ({})\n", module.name, module.reason);
  for (const auto& warning : plan.warnings) fmt::print("Warning: {}\n", warning);
}

}  // namespace salient::cli
