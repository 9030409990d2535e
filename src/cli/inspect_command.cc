#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "awq/mapping.h"
#include "base/error.h"
#include "base/json.h"
#include "cli/commands.h"
#include "cli/plan_report.h"
#include "cli/terminal.h"
#include "model/weights.h"
#include "quant/scheme.h"
#include "recipe/plan.h"

namespace salient::cli {
namespace {

struct InspectArguments {
  std::string model;
  bool tensors = false;
  bool mappings = false;
  bool json = false;
};

/// Parameters and bytes by element type.
struct TypeTotals {
  int64_t tensors = 0;
  int64_t elements = 0;
  uint64_t bytes = 0;
};

std::map<std::string, TypeTotals> totals_by_type(const Checkpoint& checkpoint) {
  std::map<std::string, TypeTotals> totals;
  for (const auto& name : checkpoint.tensor_names()) {
    const Tensor tensor = checkpoint.tensor(name);
    auto& entry = totals[std::string(to_string(tensor.dtype()))];
    ++entry.tensors;
    entry.elements += tensor.element_count();
    entry.bytes += tensor.byte_size();
  }
  return totals;
}

int64_t norm_parameters(const DecoderSpec& spec, int64_t weights) {
  return spec.norm.bias ? 2 * weights : weights;
}

int64_t parameter_count(const DecoderSpec& spec) {
  int64_t count = spec.vocab_size * spec.hidden_size * (spec.tie_word_embeddings ? 1 : 2);
  if (spec.positions) count += spec.positions->count * spec.hidden_size;
  for (const std::string& norm : {spec.embedding_norm_name, spec.final_norm_name})
    if (!norm.empty()) count += norm_parameters(spec, spec.hidden_size);
  for (int64_t layer = 0; layer < spec.layers; ++layer) {
    for (const auto& slot : spec.linears(layer))
      count += slot.out_features * (slot.in_features + (slot.bias ? 1 : 0));
    for (size_t role = 0; role < kNormRoles; ++role) {
      const auto norm = static_cast<NormRole>(role);
      if (spec.norm_name(layer, norm).empty()) continue;
      count += norm_parameters(spec, element_count(spec.norm_shape(norm)));
    }
    for (size_t i = 0; i < kStateTensors && spec.has_state(layer); ++i)
      count += element_count(spec.state_tensor_shape(static_cast<StateTensor>(i)));
    if (spec.has_experts(layer) && !spec.moe->correction_name.empty()) count += spec.moe->experts;
  }
  return count;
}

std::string_view rope_name(RopeScaling scaling) {
  switch (scaling) {
    case RopeScaling::none:
      return "default";
    case RopeScaling::linear:
      return "linear";
    case RopeScaling::dynamic:
      return "dynamic";
    case RopeScaling::llama3:
      return "llama3";
    case RopeScaling::yarn:
      return "yarn";
    case RopeScaling::longrope:
      return "longrope";
  }
  return "default";
}

/// "rope theta 10000, scaling default", "learned", "alibi".
std::string position_kind(const DecoderSpec& spec) {
  if (spec.alibi) return "alibi";
  if (spec.positions) return "learned";
  std::vector<std::string> kinds;
  for (const RopeSpec& rope : spec.ropes) {
    kinds.push_back(fmt::format("rope theta {:g}, scaling {}", rope.theta, rope_name(rope.scaling)));
  }
  return kinds.empty() ? "none" : fmt::format("{}", fmt::join(kinds, "; "));
}

Json ropes_json(const DecoderSpec& spec) {
  Json list = Json::array();
  for (const RopeSpec& rope : spec.ropes) {
    list.push_back({{"theta", rope.theta}, {"scaling", rope_name(rope.scaling)}});
  }
  return list;
}

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

Json tensor_list(const Checkpoint& checkpoint) {
  Json list = Json::array();
  for (const auto& name : checkpoint.tensor_names()) {
    const Tensor tensor = checkpoint.tensor(name);
    list.push_back({{"name", name},
                    {"dtype", to_string(tensor.dtype())},
                    {"shape", tensor.shape()},
                    {"bytes", tensor.byte_size()}});
  }
  return list;
}

Json quantization_json(const std::optional<QuantizationConfig>& quantization) {
  if (!quantization) return nullptr;
  Json groups = Json::array();
  for (const SchemeGroup& group : quantization->groups) groups.push_back(to_json(group));
  return {{"format", to_string(quantization->format)}, {"groups", groups}, {"ignore", quantization->ignore}};
}

/// What AWQ would smooth in each layer.
std::vector<PlannedLayer> mapped_layers(const DecoderSpec& spec) {
  std::vector<PlannedLayer> layers;
  for (int64_t layer = 0; layer < spec.layers; ++layer) {
    layers.push_back({.layer = layer, .mappings = plan_mappings(default_mappings(spec, layer), spec, layer)});
  }
  return layers;
}

Json mappings_json(const DecoderSpec& spec) {
  Json layers = Json::array();
  for (const PlannedLayer& layer : mapped_layers(spec)) {
    Json mappings = Json::array();
    for (const PlannedMapping& mapping : layer.mappings) mappings.push_back(to_json(mapping));
    layers.push_back(mappings);
  }
  return layers;
}

Json inspect_json(const ModelWeights& weights, const InspectArguments& arguments) {
  const auto& spec = weights.spec();
  Json types = Json::object();
  for (const auto& [name, total] : totals_by_type(weights.checkpoint())) {
    types[name] = {{"tensors", total.tensors}, {"elements", total.elements}, {"bytes", total.bytes}};
  }
  Json json = {{"architecture", spec.architecture},
               {"parameters", parameter_count(spec)},
               {"bytes", weights.checkpoint().byte_size()},
               {"layers", spec.layers},
               {"hidden_size", spec.hidden_size},
               {"intermediate_size", spec.intermediate_size},
               {"heads", spec.heads},
               {"kv_heads", spec.kv_heads},
               {"head_dim", spec.head_dim},
               {"vocab_size", spec.vocab_size},
               {"max_position_embeddings", spec.max_position_embeddings},
               {"positions", position_kind(spec)},
               {"ropes", ropes_json(spec)},
               {"tie_word_embeddings", spec.tie_word_embeddings},
               {"dtypes", types},
               {"quantization", quantization_json(weights.quantization())}};
  if (arguments.mappings) json["mappings"] = mappings_json(spec);
  if (arguments.tensors) json["tensors"] = tensor_list(weights.checkpoint());
  return json;
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
