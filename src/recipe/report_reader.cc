#include "recipe/report_reader.h"

#include <fmt/format.h>

#include <cmath>

#include "quant/scheme.h"

namespace salient {
namespace {

/// JSON has no other word than null for NaN and infinities.
double number_at(const JsonView& json, std::string_view key) {
  if (json.json().is_object() && json.json().contains(key) && !json.find(key)) return std::nan("");
  return json.double_or(key, 0);
}

int64_t count_at(const JsonView& json, std::string_view key) {
  const auto value = json.find(key);
  return value ? value->as_int(0) : 0;
}

uint64_t size_at(const JsonView& json, std::string_view key) {
  return static_cast<uint64_t>(count_at(json, key));
}

std::vector<JsonView> elements_at(const JsonView& json, std::string_view key) {
  const auto value = json.find(key);
  return value ? value->elements() : std::vector<JsonView>{};
}

void read_quantiles(const JsonView& json, std::array<double, 7>& quantiles) {
  const std::vector<JsonView> values = elements_at(json, "scale_quantiles");
  if (values.empty()) return;
  if (values.size() != quantiles.size())
    json.reject(fmt::format("scale_quantiles has {} numbers, not {}", values.size(), quantiles.size()));
  for (size_t i = 0; i < quantiles.size(); ++i)
    quantiles[i] = values[i].json().is_null() ? std::nan("") : values[i].as_double();
}

MappingReport read_mapping(const JsonView& json) {
  MappingReport mapping{.mapping = json.string_or("mapping", ""),
                        .loss_before = number_at(json, "loss_before"),
                        .loss_after = number_at(json, "loss_after"),
                        .ratio = number_at(json, "ratio"),
                        .duo = json.bool_or("duo", false),
                        .left_alone = json.bool_or("left_alone", false),
                        .failure = json.string_or("failure", "")};
  read_quantiles(json, mapping.scale_quantiles);
  return mapping;
}

LinearReport read_linear(const JsonView& json) {
  LinearReport linear{.name = json.string_or("name", ""),
                      .signal = number_at(json, "signal"),
                      .loss_nearest = number_at(json, "loss_nearest"),
                      .loss_scaled = number_at(json, "loss_scaled"),
                      .loss_clipped = number_at(json, "loss_clipped"),
                      .loss = number_at(json, "loss")};
  QuantizationScheme& scheme = linear.scheme;
  if (const auto bits = json.find("num_bits")) scheme.num_bits = static_cast<int>(bits->as_int(0, 64));
  scheme.symmetric = json.bool_or("symmetric", scheme.symmetric);
  scheme.group_size = json.int_or("group_size", scheme.group_size);
  linear.dead_channels = count_at(json, "dead_channels");
  for (const JsonView& channel : elements_at(json, "largest_channels")) {
    linear.largest_channels.push_back({.channel = channel.int_or("channel", 0),
                                       .mean_absolute = number_at(channel, "mean_absolute"),
                                       .times_median = number_at(channel, "times_median")});
  }
  return linear;
}

LayerSeconds read_seconds(const JsonView& json) {
  return {.forward = number_at(json, "forward"),
          .statistics = number_at(json, "statistics"),
          .scales = number_at(json, "scales"),
          .clips = number_at(json, "clips"),
          .rounding = number_at(json, "rounding"),
          .checks = number_at(json, "checks"),
          .total = number_at(json, "total")};
}

LayerReport read_layer(const JsonView& json) {
  LayerReport layer;
  constexpr int64_t kMostLayers = 1'000'000;  // plots count them in steps of one
  if (const auto number = json.find("layer")) layer.layer = number->as_int(0, kMostLayers);
  for (const JsonView& mapping : elements_at(json, "mappings"))
    layer.mappings.push_back(read_mapping(mapping));
  for (const JsonView& linear : elements_at(json, "linears")) layer.linears.push_back(read_linear(linear));
  layer.clip_loss_before = number_at(json, "clip_loss_before");
  layer.clip_loss_after = number_at(json, "clip_loss_after");
  layer.equivalence_error = number_at(json, "equivalence_error");
  for (const JsonView& expert : elements_at(json, "pooled_experts"))
    layer.pooled_experts.push_back(expert.as_int());
  if (const auto seconds = json.find("seconds")) layer.seconds = read_seconds(*seconds);
  return layer;
}

MeasuredWidths read_unit(const JsonView& json) {
  MeasuredWidths unit;
  for (const JsonView& name : elements_at(json, "linears")) unit.linears.push_back(name.as_string());
  unit.elements = count_at(json, "elements");
  unit.num_bits = static_cast<int>(json.at("num_bits").as_int(kLeastBits, kMostBits));
  for (size_t i = 0; i < unit.errors.size(); ++i)
    unit.errors[i] = number_at(json.at("errors"), std::to_string(kLeastBits + static_cast<int>(i)));
  return unit;
}

ChosenBits read_bits(const JsonView& json) {
  ChosenBits bits{
      .target_bits = number_at(json, "target_bits"), .mean_bits = number_at(json, "mean_bits"), .units = {}};
  for (const JsonView& unit : elements_at(json, "units")) bits.units.push_back(read_unit(unit));
  return bits;
}

}  // namespace

OneshotReport read_report(const JsonView& json) {
  OneshotReport report;
  if (json.string_or("result", "quantized") == "scaled") report.result = OneshotResult::scaled;
  report.model = json.string_or("model", "");
  report.method = json.string_or("method", "");
  report.quantized_linears = count_at(json, "quantized_linears");
  report.calibration_tokens = count_at(json, "calibration_tokens");
  report.gram_block = count_at(json, "gram_block");
  report.bytes_before = size_at(json, "bytes_before");
  report.bytes_after = size_at(json, "bytes_after");
  report.seconds = number_at(json, "seconds");
  report.peak_memory = size_at(json, "peak_memory");
  if (const auto bits = json.find("bits")) report.bits = read_bits(*bits);
  for (const JsonView& warning : elements_at(json, "warnings"))
    report.warnings.push_back(warning.as_string());
  for (const JsonView& layer : elements_at(json, "layers")) report.layers.push_back(read_layer(layer));
  return report;
}

}  // namespace salient
