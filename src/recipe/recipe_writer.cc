#include <algorithm>

#include <yaml-cpp/yaml.h>

#include "base/error.h"
#include "quant/scheme.h"
#include "recipe/calibration_data.h"
#include "recipe/effort.h"
#include "recipe/recipe_fields.h"
#include "recipe/resolve.h"
#include "recipe/schemes.h"

namespace salient {
namespace {

/// Writes one key after another, in flow or block style as it reads best.
class RecipeWriter {
 public:
  template <typename T>
  void put(std::string_view key, const T& value) {
    yaml_ << YAML::Key << std::string(key) << YAML::Value << value;
  }

  void put_texts(std::string_view key, const std::vector<std::string>& texts) {
    yaml_ << YAML::Key << std::string(key) << YAML::Value << YAML::Flow << YAML::BeginSeq;
    for (const std::string& text : texts) yaml_ << YAML::DoubleQuoted << text;
    yaml_ << YAML::EndSeq;
  }

  void open(std::string_view key) { yaml_ << YAML::Key << std::string(key) << YAML::Value << YAML::BeginMap; }
  void open() { yaml_ << YAML::BeginMap; }
  void close() { yaml_ << YAML::EndMap; }
  YAML::Emitter& yaml() { return yaml_; }

 private:
  YAML::Emitter yaml_;
};

void write_mappings(RecipeWriter& writer, const std::vector<AwqMapping>& mappings) {
  writer.yaml() << YAML::Key << "mappings" << YAML::Value << YAML::BeginSeq;
  for (const AwqMapping& mapping : mappings) {
    writer.open();
    writer.yaml() << YAML::Key << "smooth_layer" << YAML::Value << YAML::DoubleQuoted << mapping.smooth_layer;
    writer.put_texts("balance_layers", mapping.balance_layers);
    if (!mapping.activation_hook_target.empty()) {
      writer.put("activation_hook_target", mapping.activation_hook_target);
    }
    writer.close();
  }
  writer.yaml() << YAML::EndSeq;
}

void write_awq(RecipeWriter& writer, const AwqModifier& awq, const std::vector<AwqMapping>* mappings) {
  writer.open("AWQModifier");
  if (mappings != nullptr) write_mappings(writer, *mappings);
  if (awq.duo_scaling == DuoScaling::both) {
    writer.put("duo_scaling", "both");
  } else {
    writer.put("duo_scaling", awq.duo_scaling == DuoScaling::on);
  }
  writer.put("n_grid", awq.n_grid);
  writer.close();
}

void write_observer(RecipeWriter& writer, const QuantizationArgs& args) {
  if (args.observer == Observer::automatic) return;
  writer.put("observer", args.observer == Observer::mse ? "memoryless_mse" : "memoryless_minmax");
  if (args.observer != Observer::mse) return;
  writer.open("observer_kwargs");
  // The emitter would write 0.2 with seventeen digits.
  writer.put("maxshrink", fmt::format("{}", args.observer_kwargs.maxshrink));
  writer.put("grid", fmt::format("{}", args.observer_kwargs.grid));
  writer.put("norm", fmt::format("{}", args.observer_kwargs.norm));
  writer.put("patience", args.observer_kwargs.patience);
  writer.close();
}

void write_group(RecipeWriter& writer, const ConfigGroup& group) {
  const QuantizationScheme scheme = scheme_of(group.weights);
  const QuantizationArgs args = args_of(scheme);
  writer.open(group.name);
  writer.put_texts("targets", group.targets);
  writer.open("weights");
  writer.put("num_bits", args.num_bits);
  writer.put("type", "int");
  writer.put("symmetric", args.symmetric);
  writer.put("strategy", std::string(strategy_name(scheme)));
  if (args.group_size) writer.put("group_size", *args.group_size);
  writer.put("dynamic", false);
  if (group.weights.actorder == ActivationOrder::weight) writer.put("actorder", "weight");
  if (group.weights.actorder == ActivationOrder::none) writer.put("actorder", false);
  write_observer(writer, group.weights);
  writer.close();
  writer.close();
}

void write_quantization(RecipeWriter& writer, const QuantizationModifier& modifier) {
  writer.open("QuantizationModifier");
  writer.put_texts("ignore", modifier.ignore);
  writer.open("config_groups");
  for (const ConfigGroup& group : config_groups_of(modifier)) write_group(writer, group);
  writer.close();
  writer.close();
}

void write_dataset(RecipeWriter& writer, const CalibrationDataset& dataset) {
  writer.yaml() << YAML::Flow;
  writer.open();
  writer.yaml() << YAML::Key << "data" << YAML::Value << YAML::DoubleQuoted << dataset.data;
  writer.put("weight", fmt::format("{}", dataset.weight));
  if (!dataset.text_column.empty())
    writer.yaml() << YAML::Key << "text_column" << YAML::Value << YAML::DoubleQuoted << dataset.text_column;
  writer.close();
}

/// The names of files are whoever ran it's own, and mean nothing to those who get the model.
bool names_may_be_told(const CalibrationOptions& calibration) {
  return !calibration.datasets.empty() && std::ranges::all_of(calibration.datasets, [](const auto& dataset) {
    return dataset.data == kSelfData;
  });
}

void write_data(RecipeWriter& writer, const CalibrationOptions& calibration) {
  if (names_may_be_told(calibration)) {
    writer.yaml() << YAML::Key << "dataset" << YAML::Value << YAML::BeginSeq;
    for (const CalibrationDataset& dataset : calibration.datasets) write_dataset(writer, dataset);
    writer.yaml() << YAML::EndSeq;
    writer.yaml() << YAML::Key << "text_column" << YAML::Value << YAML::DoubleQuoted
                  << calibration.text_column;
  }
  if (calibration.documents != DocumentPolicy::automatic) {
    writer.put("concatenate_data", calibration.documents == DocumentPolicy::concatenate);
  }
  writer.put("shuffle_calibration_samples", calibration.shuffle);
  writer.put("seed", calibration.seed);
  writer.put("num_calibration_samples", calibration.num_samples);
  writer.put("max_seq_length", calibration.max_seq_length);
}

void write_extras(RecipeWriter& writer, const OneshotOptions& options) {
  const CalibrationOptions& calibration = options.calibration;
  writer.open("salient");
  const bool scaled = options.result == OneshotResult::scaled;
  if (scaled) {
    writer.put("result", "scaled");
  } else {
    writer.put("format", std::string(to_string(options.integer_format())));
  }
  if (options.recipe.awq) {
    if (has_clip_search(options.recipe.quantization)) {
      writer.put("apply_clip", options.recipe.awq->clip == ClipSearch::on);
    }
    if (!scaled) {
      writer.put("rounding", std::string(kRoundingWords[static_cast<size_t>(*options.recipe.awq->rounding)]));
      writer.put("sweeps", *options.recipe.awq->sweeps);
    }
    writer.put("objective", std::string(kObjectiveWords[static_cast<size_t>(options.recipe.awq->objective)]));
    write_data(writer, calibration);
    writer.put("propagate_error", calibration.propagation == Propagation::quantized);
    writer.put("moe_calibrate_all_experts", calibration.experts == ExpertCalibration::all);
    if (calibration.experts == ExpertCalibration::routed) {
      writer.put("min_tokens_per_expert", calibration.min_tokens_per_expert);
    }
    writer.put("precision", calibration.precision == CalibrationPrecision::f32 ? "f32" : "auto");
  }
  // What is done to keep the cap, such as hidden states in bf16, shows in the last digits.
  if (options.max_memory > 0) writer.put("max_memory", options.max_memory);
  writer.close();
}

}  // namespace

std::string recipe_to_yaml(const OneshotOptions& given, const DecoderSpec& spec, int64_t calibration_tokens) {
  const OneshotOptions options = settled(given);
  RecipeWriter writer;
  writer.open();
  writer.open("default_stage");
  writer.open("default_modifiers");
  if (options.recipe.awq) write_awq(writer, *options.recipe.awq, named_mappings(options, spec.architecture));
  write_quantization(writer, options.recipe.quantization);
  writer.close();
  writer.close();
  write_extras(writer, options);
  writer.close();
  std::string text =
      fmt::format("# Written by Salient {}, which made this checkpoint with this recipe.\n", SALIENT_VERSION);
  if (options.recipe.awq) text += fmt::format("# Calibrated on {} tokens.\n", calibration_tokens);
  if (options.target_bits) {
    text += fmt::format("# Its numbers of bits were chosen for target_bits {}.\n", *options.target_bits);
  }
  return text + writer.yaml().c_str() + "\n";
}

}  // namespace salient
