#include "recipe/report_json.h"

#include <fmt/format.h>

#include "quant/scheme.h"
#include "recipe/effort.h"
#include "recipe/recipe_fields.h"
#include "recipe/report_figures.h"

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
          {"left_alone", mapping.left_alone},
          {"failure", mapping.failure.empty() ? Json() : Json(mapping.failure)},
          {"scale_quantiles", mapping.scale_quantiles}};
}

Json db_or_null(double signal, double loss) {
  const std::optional<double> db = signal_to_noise_db(signal, loss);
  return db ? Json(*db) : Json();
}

/// Losses that are no finite numbers become null when the document is written.
Json to_json(const LinearReport& linear) {
  Json channels = Json::array();
  for (const ChannelReport& channel : linear.largest_channels) {
    channels.push_back({{"channel", channel.channel},
                        {"mean_absolute", channel.mean_absolute},
                        {"times_median", channel.times_median}});
  }
  return {{"name", linear.name},
          {"num_bits", linear.scheme.num_bits},
          {"symmetric", linear.scheme.symmetric},
          {"group_size", linear.scheme.group_size},
          {"signal", linear.signal},
          {"loss_nearest", linear.loss_nearest},
          {"loss_scaled", linear.loss_scaled},
          {"loss_clipped", linear.loss_clipped},
          {"loss", linear.loss},
          {"snr_db_nearest", db_or_null(linear.signal, linear.loss_nearest)},
          {"snr_db", db_or_null(linear.signal, linear.loss)},
          {"dead_channels", linear.dead_channels},
          {"largest_channels", channels}};
}

Json to_json(const LayerSeconds& seconds) {
  return {{"forward", seconds.forward}, {"statistics", seconds.statistics}, {"scales", seconds.scales},
          {"clips", seconds.clips},     {"rounding", seconds.rounding},     {"checks", seconds.checks},
          {"total", seconds.total}};
}

Json to_json(const LayerReport& layer) {
  Json mappings = Json::array();
  for (const MappingReport& mapping : layer.mappings) mappings.push_back(to_json(mapping));
  Json linears = Json::array();
  for (const LinearReport& linear : layer.linears) linears.push_back(to_json(linear));
  return {{"layer", layer.layer},
          {"mappings", mappings},
          {"linears", linears},
          {"clip_loss_before", layer.clip_loss_before},
          {"clip_loss_after", layer.clip_loss_after},
          {"equivalence_error", layer.equivalence_error},
          {"pooled_experts", layer.pooled_experts},
          {"seconds", to_json(layer.seconds)}};
}

/// Null where all Gram matrices are whole.
Json block_width(int64_t gram_block) { return gram_block == 0 ? Json() : Json(gram_block); }

Json to_json(const MemoryPlan& memory) {
  constexpr std::string_view kStorages[] = {"f32", "bf16", "spilled"};
  return {{"program", memory.program},
          {"hidden_states", memory.hidden_states},
          {"layer", memory.layer},
          {"statistics", memory.statistics},
          {"workspace", memory.workspace},
          {"sampling", memory.sampling},
          {"peak", memory.peak},
          {"sufficient_cap", memory.sufficient_cap},
          {"cap", memory.cap == 0 ? Json() : Json(memory.cap)},
          {"storage", kStorages[static_cast<size_t>(memory.storage)]},
          {"spilled", memory.spilled},
          {"rows_per_batch", memory.rows_per_batch},
          {"threads", memory.threads},
          {"gram_block", block_width(memory.gram_block)}};
}

Json to_json(const std::optional<ChosenBits>& bits) {
  if (!bits) return nullptr;
  Json units = Json::array();
  for (const MeasuredWidths& unit : bits->units) {
    Json errors = Json::object();
    for (size_t i = 0; i < unit.errors.size(); ++i)
      errors[std::to_string(kLeastBits + static_cast<int>(i))] = unit.errors[i];
    units.push_back({{"linears", unit.linears},
                     {"elements", unit.elements},
                     {"num_bits", unit.num_bits},
                     {"errors", errors}});
  }
  return {{"target_bits", bits->target_bits}, {"mean_bits", bits->mean_bits}, {"units", units}};
}

}  // namespace

std::string method_text(const OneshotOptions& given) {
  const OneshotOptions options = settled(given);
  if (!options.recipe.awq) return "round to nearest";
  const AwqModifier& awq = *options.recipe.awq;
  constexpr std::string_view kDuo[] = {"false", "true", "both"};
  const bool scaled = options.result == OneshotResult::scaled;
  std::string rounding = "no rounding";
  if (!scaled) rounding = fmt::format("rounding {}", kRoundingWords[static_cast<size_t>(*awq.rounding)]);
  if (const int sweeps = awq.sweeps.value_or(0); !scaled && sweeps > 0) {
    rounding += fmt::format(", {} sweeps", sweeps);
  }
  std::string text =
      fmt::format("AWQ: duo_scaling {}, {} candidates by {}, {}, {}, next layer sees {} outputs",
                  kDuo[static_cast<size_t>(awq.duo_scaling)], awq.n_grid,
                  kObjectiveWords[static_cast<size_t>(awq.objective)],
                  awq.clip == ClipSearch::on ? "clip search" : "no clip search", rounding,
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
          {"bits", to_json(plan.bits)},
          {"layers", layers},
          {"head", plan.head ? to_json(*plan.head) : Json()},
          {"dense", dense},
          {"warnings", plan.warnings},
          {"quantized_linears", plan.quantized_linears},
          {"calibration_tokens", plan.calibration_tokens},
          {"masked_tokens", plan.masked_tokens},
          {"bytes_before", plan.bytes_before},
          {"bytes_after", plan.bytes_after},
          {"memory", to_json(plan.memory)}};
}

Json to_json(const OneshotReport& report) {
  Json layers = Json::array();
  for (const LayerReport& layer : report.layers) layers.push_back(to_json(layer));
  return {{"result", result_name(report.result)},
          {"model", report.model},
          {"method", report.method},
          {"quantized_linears", report.quantized_linears},
          {"calibration_tokens", report.calibration_tokens},
          {"masked_tokens", report.masked_tokens},
          {"gram_block", block_width(report.gram_block)},
          {"bytes_before", report.bytes_before},
          {"bytes_after", report.bytes_after},
          {"seconds", report.seconds},
          {"peak_memory", report.peak_memory},
          {"bits", to_json(report.bits)},
          {"resumed_layers", report.resumed_layers},
          {"warnings", report.warnings},
          {"layers", layers}};
}

}  // namespace salient
