#include <fmt/format.h>

#include <algorithm>

#include "cli/commands.h"
#include "cli/plan_report.h"
#include "cli/terminal.h"
#include "model/weights.h"
#include "quant/scheme.h"
#include "recipe/inspection.h"

namespace salient::cli {
namespace {

struct InspectArguments {
  std::string model;
  bool tensors = false;
  bool mappings = false;
  bool json = false;
};

std::string expert_text(const DecoderSpec& spec) {
  const MoeSpec& moe = *spec.moe;
  const auto layers = std::count(moe.layers.begin(), moe.layers.end(), true);
  return fmt::format("{} in {} layers, {} per token, intermediate size {}{}", moe.experts, layers,
                     moe.experts_per_token, moe.intermediate_size,
                     moe.shared_intermediate > 0 ? fmt::format(", shared {}", moe.shared_intermediate) : "");
}

std::string linear_attention_text(const LinearAttention& state) {
  const auto layers = std::count(state.layers.begin(), state.layers.end(), true);
  return fmt::format("linear attention in {} layers, {} value heads of {}, {} key heads of {}", layers,
                     state.value_heads, state.value_dim, state.key_heads, state.key_dim);
}

/// "int4 asymmetric, group 128", and where there are several groups for whom.
std::string group_text(const SchemeGroup& group) {
  return fmt::format("{} ({}: {})", describe(group.scheme), group.name, fmt::join(group.targets, ", "));
}

std::string quantization_text(const std::optional<QuantizationConfig>& quantization) {
  if (!quantization) return "none";
  std::vector<std::string> schemes;
  for (const SchemeGroup& group : quantization->groups) schemes.push_back(group_text(group));
  return fmt::format("{}: {}; {} modules stay dense", to_string(quantization->format),
                     fmt::join(schemes, "; "), quantization->ignore.size());
}

Json inspect_json(const ModelWeights& weights, const InspectArguments& arguments) {
  Json json = inspection_json(weights);
  if (arguments.mappings) json["mappings"] = mappings_json(weights.spec());
  if (arguments.tensors) json["tensors"] = tensors_json(weights.checkpoint());
  return json;
}

void print_inspection(const ModelWeights& weights, const InspectArguments& arguments) {
  const auto& spec = weights.spec();
  std::vector<std::pair<std::string, std::string>> rows{
      {"architecture", spec.architecture},
      {"parameters", fmt::format("{:.2f} M", static_cast<double>(parameter_count(spec)) / 1e6)},
      {"size", format_bytes(weights.checkpoint().byte_size())},
      {"layers", fmt::format("{} of hidden size {}, intermediate size {}", spec.layers, spec.hidden_size,
                             spec.intermediate_size)},
      {"attention",
       fmt::format("{} heads, {} kv heads, head_dim {}", spec.heads, spec.kv_heads, spec.head_dim)},
      {"vocabulary",
       fmt::format("{}{}", spec.vocab_size, spec.tie_word_embeddings ? ", tied embeddings" : "")},
      {"positions", fmt::format("{}, {}", spec.max_position_embeddings, position_kind(spec))},
      {"quantization", quantization_text(weights.quantization())}};
  if (spec.moe) rows.insert(rows.begin() + 4, {"experts", expert_text(spec)});
  if (spec.linear_attention) {
    rows.insert(rows.begin() + 4, {"state", linear_attention_text(*spec.linear_attention)});
  }
  for (const auto& [name, total] : totals_by_type(weights.checkpoint())) {
    rows.emplace_back(name, fmt::format("{} tensors, {}", total.tensors, format_bytes(total.bytes)));
  }
  print_table(rows);
  if (arguments.mappings) {
    fmt::print("Mappings of AWQ:\n");
    print_layers(mapped_layers(spec));
  }
  if (!arguments.tensors) return;
  for (const auto& name : weights.checkpoint().tensor_names()) {
    const Tensor tensor = weights.checkpoint().tensor(name);
    fmt::print("  {}  {} {}\n", name, to_string(tensor.dtype()), to_string(tensor.shape()));
  }
}

}  // namespace

void add_inspect_command(CLI::App& app) {
  auto arguments = std::make_shared<InspectArguments>();
  auto* command = app.add_subcommand("inspect", "Say what a model directory holds");
  command->add_option("model", arguments->model, "Model directory")->required();
  command->add_flag("--mappings", arguments->mappings, "List what AWQ smooths in each layer, and for whom");
  command->add_flag("--tensors", arguments->tensors, "List every tensor");
  command->add_flag("--json", arguments->json, "Report as JSON");
  command->callback([arguments] {
    const ModelWeights weights(arguments->model);
    if (arguments->json) fmt::print("{}\n", inspect_json(weights, *arguments).dump(2));
    if (!arguments->json) print_inspection(weights, *arguments);
  });
}

}  // namespace salient::cli
