#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/spelling.h"
#include "base/yaml.h"
#include "checkpoint/checkpoint_writer.h"
#include "quant/scheme.h"
#include "recipe/calibration_data.h"
#include "recipe/quantization_reader.h"
#include "recipe/recipe_fields.h"
#include "recipe/schemes.h"
#include "salient/oneshot.h"

// Recipe files are llm-compressor's (stages of modifiers), AutoAWQ's quant_config, or what `salient quantize`
// writes: the former with a section `salient` for what llm-compressor has no word for and does not look at.
namespace salient {
namespace {

constexpr std::string_view kModifiers[] = {"AWQModifier", "QuantizationModifier"};

/// Others of llm-compressor: known, so that a recipe with them is not told of a misspelling.
constexpr std::string_view kForeignModifiers[] = {"GPTQModifier",
                                                  "SmoothQuantModifier",
                                                  "SparseGPTModifier",
                                                  "WandaPruningModifier",
                                                  "ConstantPruningModifier",
                                                  "AutoRoundModifier",
                                                  "SpinQuantModifier",
                                                  "QuIPModifier",
                                                  "MagnitudePruningModifier",
                                                  "LogarithmicEqualizationModifier",
                                                  "IMatrixGatherer",
                                                  "REAPPruningModifier"};

/// What an AWQModifier of the first versions says about the weights itself.
struct Shorthands {
  std::optional<JsonView> bits;
  std::optional<JsonView> symmetric;
  std::optional<JsonView> group_size;

  bool any() const { return bits || symmetric || group_size; }
};

DuoScaling read_duo_scaling(const JsonView& view) {
  if (view.json().is_boolean()) return view.as_bool() ? DuoScaling::on : DuoScaling::off;
  if (view.json() == "both") return DuoScaling::both;
  reject_value(view, ErrorKind::invalid_argument, "is none of true, false and \"both\"");
}

AwqMapping read_mapping(const JsonView& view) {
  if (view.json().is_array()) {  // SmoothQuant's way: [[balance layers], smooth layer]
    const auto parts = view.elements();
    if (parts.size() != 2)
      reject_value(view, ErrorKind::invalid_argument, "is no [[balance layers], smooth layer]");
    return {.smooth_layer = parts[1].as_string(), .balance_layers = read_texts(parts[0])};
  }
  constexpr std::string_view kKeys[] = {"smooth_layer", "balance_layers", "activation_hook_target"};
  check_keys(view, kKeys);
  return {.smooth_layer = view.at("smooth_layer").as_string(),
          .balance_layers = read_texts(view.at("balance_layers")),
          .activation_hook_target = view.string_or("activation_hook_target", "")};
}

/// Everything that a recipe can say, collected from its parts.
class RecipeReader {
 public:
  explicit RecipeReader(OneshotOptions& options) : options_(options) {}

  void read(const JsonView& root) {
    if (root.json().is_array()) {  // a list of modifiers, as in Python
      for (const JsonView& element : root.elements()) read_modifiers(element);
    } else if (is_quant_config(root)) {
      read_quant_config(root);
      return;
    } else {
      read_document(root);
    }
    finish(root);
  }

 private:
  // ---- llm-compressor

  void read_document(const JsonView& root) {
    for (const auto& [key, value] : root.members()) {
      if (key.ends_with("_stage")) {
        read_stage(value);
      } else if (key == "salient") {
        read_extras(value);
      } else if (key == "args") {
        if (!value.json().empty()) unsupported(value, "is not supported; write the values where they belong");
      } else if (is_modifier(key)) {
        read_modifier(key, value);
      } else {
        constexpr std::string_view kKeys[] = {"default_stage",        "quant_stage", "AWQModifier",
                                              "QuantizationModifier", "salient",     "args"};
        reject_key(value, key, kKeys);
      }
    }
  }

  void read_stage(const JsonView& stage) {
    for (const auto& [key, value] : stage.members()) {
      if (key.ends_with("modifiers")) {
        if (value.json().is_array()) {
          for (const JsonView& element : value.elements()) read_modifiers(element);
        } else {
          read_modifiers(value);
        }
      } else if (key == "run_type") {
        constexpr std::string_view kTypes[] = {"oneshot"};
        read_word(value, kTypes);
      } else {
        constexpr std::string_view kKeys[] = {"default_modifiers", "quant_modifiers", "modifiers",
                                              "run_type"};
        reject_key(value, key, kKeys);
      }
    }
  }

  void read_modifiers(const JsonView& view) {
    for (const auto& [name, modifier] : view.members()) read_modifier(name, modifier);
  }

  void read_modifier(const std::string& name, const JsonView& view) {
    if (name == kModifiers[0]) return read_awq(view);
    if (name == kModifiers[1]) return read_quantization_modifier(view);
    if (is_modifier(name)) {
      constexpr std::string_view kCompensated =
          "for its rounding write AWQModifier with mappings: [], a QuantizationModifier and salient: "
          "{rounding: compensated}";
      fail(ErrorKind::unsupported, "{}: Salient has no such modifier; {}", view.path(),
           name == "GPTQModifier" ? kCompensated : "it runs AWQModifier and QuantizationModifier");
    }
    constexpr auto known = std::span(kModifiers);
    fail(ErrorKind::invalid_argument, "{}: unknown modifier; {}", view.path(), suggest(name, known));
  }

  void read_awq(const JsonView& view) {
    if (awq_) reject_value(view, ErrorKind::unsupported, "is a second AWQModifier; a recipe has one");
    if (quantization_) {
      fail(ErrorKind::invalid_argument,
           "{}: stands behind the QuantizationModifier; AWQ comes before the rounding", view.path());
    }
    std::vector<std::string_view> known{
        "mappings", "duo_scaling", "n_grid",     "offload_device",           "apply_clip", "bits", "num_bits",
        "w_bit",    "symmetric",   "group_size", "requires_calibration_data"};
    known.insert(known.end(), quantization_keys().begin(), quantization_keys().end());
    if (const auto layers = view.find("sequential_targets")) {
      unsupported(*layers, "is not needed: every decoder layer is worked on by itself; leave it out");
    }
    check_keys(view, known);
    AwqModifier& awq = awq_.emplace();
    awq_path_ = view.path();
    if (const auto mappings = view.find("mappings")) {
      awq.mappings.emplace();
      for (const JsonView& mapping : mappings->elements()) awq.mappings->push_back(read_mapping(mapping));
    }
    if (const auto duo = view.find("duo_scaling")) awq.duo_scaling = read_duo_scaling(*duo);
    if (const auto grid = view.find("n_grid")) awq.n_grid = static_cast<int>(grid->as_int(2, 1000));
    if (const auto device = view.find("offload_device"); device && device->as_string() != "cpu") {
      unsupported(*device, "is not supported; what is not at work waits on the cpu");
    }
    if (!view.bool_or("requires_calibration_data", true)) {
      fail(ErrorKind::invalid_argument, "{}: requires_calibration_data: false, but AWQ does need data",
           view.path());
    }
    if (const auto clip = view.find("apply_clip")) set_clip(*clip);
    shorthands_ = {.bits = first_of(view, {"bits", "num_bits", "w_bit"}),
                   .symmetric = view.find("symmetric"),
                   .group_size = view.find("group_size")};
    own_quantization_ = read_quantization(view);
  }

  void read_quantization_modifier(const JsonView& view) {
    if (quantization_)
      reject_value(view, ErrorKind::unsupported, "is a second QuantizationModifier; a recipe has one");
    if (own_quantization_) {
      fail(ErrorKind::invalid_argument, "{}: the AWQModifier before it says how to quantize already",
           view.path());
    }
    std::vector<std::string_view> known(quantization_keys().begin(), quantization_keys().end());
    known.push_back("requires_calibration_data");
    check_keys(view, known);
    if (const auto data = view.find("requires_calibration_data"); data && data->as_bool())
      awq_only_.push_back(*data);
    quantization_ = read_quantization(view);
    if (!quantization_) quantization_.emplace().ignore.clear();
  }

  /// Puts together what the parts have said.
  void finish(const JsonView& root) {
    if (own_quantization_) quantization_ = own_quantization_;
    if (shorthands_.any()) with_context(awq_path_, [&] { apply_shorthands(); });
    if (!quantization_) {
      if (!awq_)
        root.reject("names no modifier; a recipe has an AWQModifier, a QuantizationModifier or both");
      fail(ErrorKind::invalid_argument,
           "{}: AWQModifier alone does not say how to quantize; add a QuantizationModifier (scheme: "
           "W4A16_ASYM)",
           root.path());
    }
    if (quantization_->scheme.empty() && quantization_->config_groups.empty()) {
      fail(ErrorKind::invalid_argument,
           "{}: the modifiers do not say how to quantize; add scheme (W4A16_ASYM) or config_groups",
           root.path());
    }
    check_extras();
    if (clip_) awq_->clip = clip_->as_bool() ? ClipSearch::on : ClipSearch::off;
    if (rounding_) awq_->rounding = *rounding_;
    if (sweeps_) awq_->sweeps = *sweeps_;
    if (objective_) awq_->objective = *objective_;
    options_.recipe = {.awq = awq_, .quantization = *quantization_};
  }

  /// Nothing is accepted that would have no effect.
  void check_extras() const {
    if (!awq_ && !awq_only_.empty()) {
      reject_value(awq_only_.front(), ErrorKind::invalid_argument, "is for AWQ, but there is no AWQModifier");
    }
    if (min_tokens_ && options_.calibration.experts == ExpertCalibration::all) {
      reject_value(*min_tokens_, ErrorKind::invalid_argument, "is for moe_calibrate_all_experts: false");
    }
    if (clip_ && clip_->as_bool() && !has_clip_search(*quantization_)) {
      reject_value(*clip_, ErrorKind::invalid_argument,
                   "but every group has an observer that finds its ranges");
    }
  }

  void apply_shorthands() {
    if (!quantization_ || (quantization_->config_groups.empty() && quantization_->scheme.empty())) {
      QuantizationArgs args{.num_bits = 4, .symmetric = false, .group_size = 128};
      if (shorthands_.bits) args.num_bits = static_cast<int>(shorthands_.bits->as_int(1, 64));
      if (shorthands_.symmetric) args.symmetric = shorthands_.symmetric->as_bool();
      if (shorthands_.group_size) args.group_size = shorthands_.group_size->as_int();
      if (!quantization_) quantization_.emplace().ignore.clear();
      scheme_of(args);
      quantization_->config_groups = {
          {.name = "group_0", .targets = quantization_->targets, .weights = args}};
      return;
    }
    for (const ConfigGroup& group : config_groups_of(*quantization_)) {
      const QuantizationScheme scheme = scheme_of(group.weights);
      check_agrees(shorthands_.bits, scheme.num_bits, group, "num_bits");
      check_agrees(shorthands_.symmetric, scheme.symmetric, group, "symmetric");
      check_agrees(shorthands_.group_size, scheme.group_size, group, "group_size");
    }
  }

  static void check_agrees(const std::optional<JsonView>& shorthand, const Json& value,
                           const ConfigGroup& group, std::string_view key) {
    if (!shorthand || shorthand->json() == value) return;
    reject_value(*shorthand, ErrorKind::invalid_argument,
                 fmt::format("contradicts {}, where {} is {}", group.name, key, value.dump()));
  }

  // ---- what only Salient knows

  void read_extras(const JsonView& view) {
    constexpr std::string_view kKeys[] = {"apply_clip",
                                          "effort",
                                          "rounding",
                                          "sweeps",
                                          "objective",
                                          "format",
                                          "num_calibration_samples",
                                          "max_seq_length",
                                          "max_calib_samples",
                                          "max_calib_seq_len",
                                          "dataset",
                                          "text_column",
                                          "concatenate_data",
                                          "shuffle_calibration_samples",
                                          "seed",
                                          "propagate_error",
                                          "precision",
                                          "moe_calibrate_all_experts",
                                          "min_tokens_per_expert",
                                          "max_memory",
                                          "target_bits",
                                          "result"};
    check_keys(view, kKeys);
    for (const auto& [key, value] : view.members()) {
      const bool for_all = key == "format" || key == "result" || key == "max_memory";
      if (!for_all && !value.json().is_null()) awq_only_.push_back(value);
    }
    min_tokens_ = view.find("min_tokens_per_expert");
    if (const auto clip = view.find("apply_clip")) set_clip(*clip);
    if (const auto rounding = view.find("rounding"))
      rounding_ = static_cast<Rounding>(read_word(*rounding, kRoundingWords));
    if (const auto sweeps = view.find("sweeps")) sweeps_ = static_cast<int>(sweeps->as_int(0, kMostSweeps));
    if (const auto objective = view.find("objective"))
      objective_ = static_cast<Objective>(read_word(*objective, kObjectiveWords));
    if (const auto effort = view.find("effort"))
      options_.effort = static_cast<Effort>(read_word(*effort, kEffortWords));
    if (const auto result = view.find("result")) {
      constexpr std::string_view kWords[] = {"quantized", "scaled"};
      options_.result = static_cast<OneshotResult>(read_word(*result, kWords));
    }
    if (const auto bits = view.find("target_bits")) options_.target_bits = bits->as_double();
    if (const auto format = view.find("format")) {
      options_.format = with_context(format->path(), [&] { return format_by_name(format->as_string()); });
    }
    if (const auto memory = view.find("max_memory")) options_.max_memory = read_bytes(*memory);
    read_calibration(view, options_.calibration);
  }

  /// A number, or "4GiB".
  static uint64_t read_bytes(const JsonView& view) {
    if (!view.json().is_string()) return static_cast<uint64_t>(view.as_int(1));
    return with_context(view.path(), [&] { return parse_byte_size(view.as_string()); });
  }

  static void read_calibration(const JsonView& view, CalibrationOptions& calibration) {
    read_calibration_data(view, calibration);
    if (const auto propagate = view.find("propagate_error")) {
      calibration.propagation = propagate->as_bool() ? Propagation::quantized : Propagation::original;
    }
    if (const auto experts = view.find("moe_calibrate_all_experts")) {
      calibration.experts = experts->as_bool() ? ExpertCalibration::all : ExpertCalibration::routed;
    }
    if (const auto tokens = view.find("min_tokens_per_expert")) {
      calibration.min_tokens_per_expert = tokens->as_int(1, int64_t{1} << 40);
    }
    if (const auto precision = view.find("precision")) {
      constexpr std::string_view kWords[] = {"auto", "f32"};
      calibration.precision = static_cast<CalibrationPrecision>(read_word(*precision, kWords));
    }
  }

  static void read_calibration_data(const JsonView& view, CalibrationOptions& calibration) {
    if (const auto samples = first_of(view, {"num_calibration_samples", "max_calib_samples"})) {
      calibration.num_samples = samples->as_int(1, int64_t{1} << 40);
    }
    if (const auto length = first_of(view, {"max_seq_length", "max_calib_seq_len"}))
      calibration.max_seq_length = length->as_int(1, 1 << 20);
    if (const auto dataset = view.find("dataset")) calibration.datasets = read_datasets(*dataset);
    if (const auto column = view.find("text_column")) calibration.text_column = column->as_string();
    if (const auto joined = view.find("concatenate_data")) {
      calibration.documents = joined->as_bool() ? DocumentPolicy::concatenate : DocumentPolicy::truncate;
    }
    if (const auto shuffle = view.find("shuffle_calibration_samples"))
      calibration.shuffle = shuffle->as_bool();
    if (const auto seed = view.find("seed")) calibration.seed = seed->as_int(0);
  }

  void set_clip(const JsonView& view) {
    if (clip_ && clip_->as_bool() != view.as_bool())
      reject_value(view, ErrorKind::invalid_argument, "contradicts the other apply_clip");
    clip_ = view;
  }

  // ---- AutoAWQ

  static bool is_quant_config(const JsonView& root) {
    constexpr std::string_view kMarks[] = {"w_bit", "q_group_size", "zero_point", "bits", "quant_method"};
    return std::any_of(std::begin(kMarks), std::end(kMarks),
                       [&](auto key) { return root.json().contains(key); });
  }

  void read_quant_config(const JsonView& root) {
    constexpr std::string_view kKeys[] = {
        "zero_point", "q_group_size",           "group_size",  "w_bit", "bits", "version",
        "format",     "modules_to_not_convert", "quant_method"};
    check_keys(root, kKeys);
    constexpr std::string_view kMethods[] = {"awq"};
    if (const auto method = root.find("quant_method")) read_word(*method, kMethods);
    if (const auto version = first_of(root, {"version", "format"})) {
      constexpr std::string_view kVersions[] = {"gemm",    "gemv",      "gemv_fast", "marlin",
                                                "exllama", "exllamav2", "ipex",      "llm-awq"};
      if (read_word(*version, kVersions) != 0) {
        unsupported(*version,
                    "is not written by Salient; GEMM is, which every loader of AutoAWQ's files reads");
      }
    }
    if (const auto zeros = root.find("zero_point"); zeros && !zeros->as_bool()) {
      reject_value(
          *zeros, ErrorKind::invalid_argument,
          "does not go with the GEMM layout, which stores a zero for every group; leave it true, or write "
          "compressed-tensors with the scheme W4A16");
    }
    QuantizationArgs args{.num_bits = 4, .symmetric = false, .group_size = 128};
    if (const auto bits = first_of(root, {"w_bit", "bits"}))
      args.num_bits = static_cast<int>(bits->as_int(1, 64));
    if (const auto size = first_of(root, {"q_group_size", "group_size"})) args.group_size = size->as_int();
    with_context(root.path(), [&] { scheme_of(args); });
    QuantizationModifier quantization;
    quantization.config_groups = {{.name = "group_0", .weights = args}};
    if (const auto dense = root.find("modules_to_not_convert")) {
      for (const std::string& name : read_texts(*dense)) quantization.ignore.push_back(pattern_of_part(name));
    }
    options_.recipe = {.awq = AwqModifier{}, .quantization = std::move(quantization)};
    options_.recipe_format = Format::autoawq_gemm;
  }

  /// AutoAWQ looks for the entry anywhere in a name, so that "gate" also keeps gate_proj dense. Here it must
  /// be whole words of the name: "gate" is mlp.gate, "visual" everything below visual.
  static std::string pattern_of_part(const std::string& part) {
    std::string escaped;
    for (const char c : part) {
      if (std::string_view("\\^$.|?*+()[]{}").find(c) != std::string_view::npos) escaped += '\\';
      escaped += c;
    }
    return fmt::format("re:(.*\\.)?{}(\\..*)?$", escaped);
  }

  // ---- small things

  static std::optional<JsonView> first_of(const JsonView& view,
                                          std::initializer_list<std::string_view> keys) {
    std::optional<JsonView> found;
    for (const std::string_view key : keys) {
      const auto value = view.find(key);
      if (!value) continue;
      if (found && found->json() != value->json()) {
        reject_value(*value, ErrorKind::invalid_argument, fmt::format("contradicts {}", found->path()));
      }
      if (!found) found = value;
    }
    return found;
  }

  static bool is_modifier(std::string_view name) {
    const auto is_in = [&](const auto& list) {
      return std::find(std::begin(list), std::end(list), name) != std::end(list);
    };
    return is_in(kModifiers) || is_in(kForeignModifiers);
  }

  [[noreturn]] static void unsupported(const JsonView& view, std::string_view reason) {
    reject_value(view, ErrorKind::unsupported, reason);
  }

  OneshotOptions& options_;
  std::optional<AwqModifier> awq_;
  std::optional<QuantizationModifier> quantization_;
  std::optional<QuantizationModifier> own_quantization_;  // the one-modifier form
  Shorthands shorthands_;
  std::string awq_path_;
  std::vector<JsonView> awq_only_;  // has no meaning without AWQ
  std::optional<JsonView> min_tokens_;
  std::optional<JsonView> clip_;
  std::optional<Rounding> rounding_;
  std::optional<int> sweeps_;
  std::optional<Objective> objective_;
};

}  // namespace

void parse_recipe(std::string_view text, std::string_view source, OneshotOptions& options) {
  const bool is_json = source.ends_with(".json");
  const Json document = is_json ? parse_json(text, source, DuplicateKeys::refuse) : parse_yaml(text, source);
  if (document.is_null()) fail(ErrorKind::bad_format, "{}: the file is empty", source);
  RecipeReader(options).read(JsonView(document, std::string(source)));
  options.recipe_source = source;
}

void read_recipe_file(const std::string& path, OneshotOptions& options) {
  parse_recipe(read_text_file(path), path, options);
}

}  // namespace salient
