#include "recipe/report_json.h"

#include <fmt/format.h>

#include "quant/scheme.h"

namespace salient {
namespace {

std::string_view result_name(OneshotResult result) {
  return result == OneshotResult::scaled ? "scaled" : "quantized";
}

Json observer_name(Observer observer) {
  if (observer == Observer::automatic) return nullptr;
  return observer == Observer::mse ? "mse" : "minmax";
}

Json to_json(const PlannedLinear& linear) {
  return {{"name", linear.name},
          {"shape", {linear.out_features, linear.in_features}},
          {"group", linear.group},
          {"target", linear.target},
          {"observer", observer_name(linear.observer)},
          {"actorder", linear.order == ActivationOrder::weight ? Json("weight") : Json()}};
}

Json to_json(const MappingReport& mapping) {
  return {{"mapping", mapping.mapping},
          {"loss_before", mapping.loss_before},
          {"loss_after", mapping.loss_after},
          {"ratio", mapping.ratio},
          {"duo", mapping.duo},
          {"left_alone", mapping.left_alone}};
}

Json to_json(const LayerReport& layer) {
  Json mappings = Json::array();
  for (const MappingReport& mapping : layer.mappings) mappings.push_back(to_json(mapping));
  return {{"layer", layer.layer},
          {"mappings", mappings},
          {"clip_loss_before", layer.clip_loss_before},
          {"clip_loss_after", layer.clip_loss_after},
          {"equivalence_error", layer.equivalence_error},
          {"pooled_experts", layer.pooled_experts},
          {"seconds", layer.seconds}};
}

Json to_json(const MemoryPlan& memory) {
  constexpr std::string_view kStorages[] = {"f32", "bf16", "spilled"};
  return {{"program", memory.program},
          {"hidden_states", memory.hidden_states},
          {"layer", memory.layer},
          {"statistics", memory.statistics},
          {"workspace", memory.workspace},
          {"peak", memory.peak},
          {"cap", memory.cap == 0 ? Json() : Json(memory.cap)},
          {"storage", kStorages[static_cast<size_t>(memory.storage)]},
          {"spilled", memory.spilled},
          {"rows_per_batch", memory.rows_per_batch}};
}

}  // namespace

std::string method_text(const OneshotOptions& options) {
  if (!options.recipe.awq) return "round to nearest";
  const AwqModifier& awq = *options.recipe.awq;
  constexpr std::string_view kDuo[] = {"false", "true", "both"};
  const bool scaled = options.result == OneshotResult::scaled;
  const std::string_view rounding =
      awq.rounding == Rounding::nearest ? "rounding nearest" : "rounding compensated";
  std::string text = fmt::format(
      "AWQ: duo_scaling {}, {} candidates, {}, {}, next layer sees {} outputs",
      kDuo[static_cast<size_t>(awq.duo_scaling)], awq.n_grid,
      awq.clip == ClipSearch::on ? "clip search" : "no clip search", scaled ? "no rounding" : rounding,
      options.calibration.propagation == Propagation::quantized ? "quantized" : "original");
  if (options.calibration.experts == ExpertCalibration::routed) text += ", experts see routed tokens";
  return text;
}

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

Json to_json(const OneshotPlan& plan, const OneshotOptions& options) {
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
  const bool scaled = plan.result == OneshotResult::scaled;
  return {{"result", result_name(plan.result)},
          {"architecture", plan.architecture},
          {"device", plan.device},
          {"format", scaled ? Json() : Json(to_string(options.integer_format()))},
          {"method", method_text(options)},
          {"groups", groups},
          {"layers", layers},
          {"head", plan.head ? to_json(*plan.head) : Json()},
          {"dense", dense},
          {"warnings", plan.warnings},
          {"quantized_linears", plan.quantized_linears},
          {"calibration_tokens", plan.calibration_tokens},
          {"bytes_before", plan.bytes_before},
          {"bytes_after", plan.bytes_after},
          {"memory", to_json(plan.memory)}};
}

Json to_json(const OneshotReport& report) {
  Json layers = Json::array();
  for (const LayerReport& layer : report.layers) layers.push_back(to_json(layer));
  return {{"result", result_name(report.result)},
          {"quantized_linears", report.quantized_linears},
          {"calibration_tokens", report.calibration_tokens},
          {"bytes_before", report.bytes_before},
          {"bytes_after", report.bytes_after},
          {"seconds", report.seconds},
          {"peak_memory", report.peak_memory},
          {"resumed_layers", report.resumed_layers},
          {"warnings", report.warnings},
          {"layers", layers}};
}

}  // namespace salient
