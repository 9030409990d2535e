#include "recipe/inspection.h"

#include <fmt/format.h>

#include "awq/mapping.h"
#include "quant/scheme.h"
#include "recipe/plan.h"
#include "recipe/report_json.h"

namespace salient {
namespace {

int64_t norm_parameters(const DecoderSpec& spec, int64_t weights) {
  return spec.norm.bias ? 2 * weights : weights;
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

Json ropes_json(const DecoderSpec& spec) {
  Json list = Json::array();
  for (const RopeSpec& rope : spec.ropes) {
    list.push_back({{"theta", rope.theta}, {"scaling", rope_name(rope.scaling)}});
  }
  return list;
}

Json quantization_json(const std::optional<QuantizationConfig>& quantization) {
  if (!quantization) return nullptr;
  Json groups = Json::array();
  for (const SchemeGroup& group : quantization->groups) groups.push_back(to_json(group));
  return {{"format", to_string(quantization->format)}, {"groups", groups}, {"ignore", quantization->ignore}};
}

}  // namespace

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

std::string position_kind(const DecoderSpec& spec) {
  if (spec.alibi) return "alibi";
  if (spec.positions) return "learned";
  std::vector<std::string> kinds;
  for (const RopeSpec& rope : spec.ropes) {
    kinds.push_back(fmt::format("rope theta {:g}, scaling {}", rope.theta, rope_name(rope.scaling)));
  }
  return kinds.empty() ? "none" : fmt::format("{}", fmt::join(kinds, "; "));
}

std::vector<PlannedLayer> mapped_layers(const DecoderSpec& spec) {
  std::vector<PlannedLayer> layers;
  for (int64_t layer = 0; layer < spec.layers; ++layer) {
    layers.push_back({.layer = layer, .mappings = plan_mappings(default_mappings(spec, layer), spec, layer)});
  }
  return layers;
}

Json inspection_json(const ModelWeights& weights) {
  const auto& spec = weights.spec();
  Json types = Json::object();
  for (const auto& [name, total] : totals_by_type(weights.checkpoint())) {
    types[name] = {{"tensors", total.tensors}, {"elements", total.elements}, {"bytes", total.bytes}};
  }
  return {{"architecture", spec.architecture},
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

Json tensors_json(const Checkpoint& checkpoint) {
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

}  // namespace salient
