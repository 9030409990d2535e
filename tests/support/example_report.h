#pragma once

#include <fmt/format.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "salient/oneshot.h"

namespace salient {

/// What a run on a model of `layers` layers might report; without experts where there are none.
class ExampleReport {
 public:
  explicit ExampleReport(int64_t layers, int64_t experts = 0) : experts_(experts) {
    report_.model = "/models/Example-1B";
    report_.method =
        "AWQ: duo_scaling true, 20 candidates, clip search, rounding compensated, next layer sees quantized "
        "outputs";
    for (int64_t layer = 0; layer < layers; ++layer) add_layer(layer, static_cast<double>(layer) / 30);
    report_.quantized_linears = layers * (experts > 0 ? 4 + 3 * experts : 7);
    report_.calibration_tokens = 65'536;
    report_.bytes_before = 2'471'645'608;
    report_.bytes_after = 812'345'678;
    report_.seconds = 83.4;
    report_.peak_memory = 1'912'602'624;
  }

  const OneshotReport& get() const { return report_; }

 private:
  double around(double center, double spread) { return center * std::exp(spread * normal_(random_)); }

  void add_layer(int64_t number, double depth) {
    LayerReport layer;
    layer.layer = number;
    const std::string prefix = fmt::format("model.layers.{}.", number);
    add_mapping(layer, "input_layernorm -> q_proj, k_proj, v_proj", 0.55, 3);
    add_mapping(layer, "v_proj -> o_proj", 0.3, 1.3);
    for (const char* name : {"q_proj", "k_proj", "v_proj"})
      add_linear(layer, prefix + "self_attn." + name, 19 + 4 * depth + (name[0] == 'v' ? -2.5 : 1.5));
    add_linear(layer, prefix + "self_attn.o_proj", 20 + 3 * std::sin(4 * depth));
    if (experts_ == 0) {
      add_mapping(layer, "post_attention_layernorm -> gate_proj, up_proj", 0.5, 2);
      add_mapping(layer, "up_proj -> down_proj", 0.4, 1.6);
      for (const char* name : {"gate_proj", "up_proj", "down_proj"})
        add_linear(layer, prefix + "mlp." + name, 18 - 2 * depth + (name[0] == 'd' ? 4 : 0));
    } else {
      add_mapping(layer, "post_attention_layernorm -> gate, experts.*.gate_proj, experts.*.up_proj", 0.5, 2);
    }
    for (int64_t expert = 0; expert < experts_; ++expert) {
      add_mapping(layer, fmt::format("experts.{0}.up_proj -> experts.{0}.down_proj", expert), 0.4, 1.6);
      for (const char* name : {"gate_proj", "up_proj", "down_proj"})
        add_linear(layer, fmt::format("{}mlp.experts.{}.{}", prefix, expert, name), 18 - depth);
    }
    layer.clip_loss_before = around(2e-4, 0.3);
    layer.clip_loss_after = 0.8 * layer.clip_loss_before;
    layer.equivalence_error = around(2e-6, 0.5);
    layer.seconds.total = around(2.6, 0.05);
    report_.layers.push_back(std::move(layer));
  }

  void add_linear(LayerReport& layer, const std::string& name, double db) {
    LinearReport linear;
    linear.name = name;
    linear.signal = around(0.2, 1);
    linear.loss_nearest = linear.signal * std::pow(10, -(db + 0.6 * normal_(random_)) / 10);
    linear.loss_scaled = linear.loss_nearest * std::min(1.0, around(0.86, 0.08));
    linear.loss_clipped = linear.loss_scaled * std::min(1.0, around(0.9, 0.04));
    linear.loss = linear.loss_clipped * around(0.7, 0.1);
    for (int i = 0; i < 5; ++i) {
      linear.largest_channels.push_back({.channel = static_cast<int64_t>(random_() % 2048),
                                         .mean_absolute = 10.0 / (i + 1),
                                         .times_median = around(60.0 / (i + 1), 0.1)});
    }
    layer.linears.push_back(std::move(linear));
  }

  void add_mapping(LayerReport& layer, const std::string& name, double ratio, double spread) {
    MappingReport mapping;
    mapping.mapping = name;
    mapping.loss_before = around(3e-3, 0.5);
    mapping.left_alone = random_() % 12 == 0;
    mapping.loss_after = mapping.loss_before * (mapping.left_alone ? 1 : around(0.8, 0.1));
    mapping.duo = random_() % 3 != 0;
    if (!mapping.left_alone) {
      mapping.ratio = std::round(20 * std::min(0.95, around(ratio, 0.2))) / 20;
      constexpr double kSteps[] = {-1.4, -0.6, -0.22, 0, 0.3, 0.9, 3};
      for (size_t i = 0; i < 7; ++i)
        mapping.scale_quantiles[i] = std::exp2(spread * kSteps[i] * mapping.ratio * 2);
    }
    layer.mappings.push_back(std::move(mapping));
  }

  OneshotReport report_;
  const int64_t experts_;
  std::mt19937 random_{7};
  std::normal_distribution<double> normal_;
};

}  // namespace salient
