#include "recipe/quantization_reader.h"

#include <algorithm>
#include <array>
#include <set>

#include "base/error.h"
#include "quant/scheme.h"
#include "quant/scheme_groups.h"
#include "recipe/recipe_fields.h"
#include "recipe/schemes.h"

namespace salient {
namespace {

constexpr std::string_view kQuantizationKeys[] = {
    "scheme",          "config_groups",  "targets",         "ignore",   "kv_cache_scheme",
    "weight_observer", "input_observer", "output_observer", "observer", "bypass_divisibility_checks"};

constexpr std::string_view kArgsKeys[] = {"num_bits",    "type",     "symmetric", "group_size",
                                          "strategy",    "dynamic",  "actorder",  "block_structure",
                                          "scale_dtype", "zp_dtype", "observer",  "observer_kwargs"};

[[noreturn]] void unsupported(const JsonView& view, std::string_view reason) {
  reject_value(view, ErrorKind::unsupported, reason);
}

/// The strategies of compressed-tensors, those that Salient knows first, in the order of the enum.
constexpr std::string_view kStrategies[] = {"tensor", "channel",      "group",    "block",
                                            "token",  "tensor_group", "attn_head"};
constexpr size_t kKnownStrategies = 5;

QuantizationStrategy read_strategy(const JsonView& view) {
  const size_t index = read_word(view, kStrategies);
  if (index >= kKnownStrategies)
    unsupported(view, "is not supported; weights are stored by group, channel or tensor");
  return static_cast<QuantizationStrategy>(index);
}

ActivationOrder read_order(const JsonView& view) {
  if (view.json().is_boolean()) {
    if (!view.as_bool()) return ActivationOrder::none;
    unsupported(view,
                "meant columns stored in activation order, which is not supported; \"weight\" rounds them in "
                "that order and stores them as they are");
  }
  constexpr std::string_view kOrders[] = {"weight", "static", "group", "dynamic"};
  if (read_word(view, kOrders) < 2) return ActivationOrder::weight;
  unsupported(
      view,
      "stores columns in activation order, which is not supported; \"weight\" rounds them in that order "
      "and stores them as they are");
}

Observer read_observer(const JsonView& view) {
  constexpr std::string_view kObservers[] = {
      "minmax",         "memoryless_minmax", "static_minmax",      "mse",
      "memoryless_mse", "imatrix_mse",       "nvfp4_expanded_mse", "fouroversix"};
  const size_t index = read_word(view, kObservers);
  if (index < 3) return Observer::minmax;
  if (index < 5) return Observer::mse;
  unsupported(view,
              "is not supported; leave the observer out for Salient's search with calibration data, or use "
              "minmax or mse");
}

ObserverSettings read_observer_settings(const JsonView& view) {
  constexpr std::string_view kKeys[] = {"maxshrink", "grid", "norm", "patience"};
  check_keys(view, kKeys);
  ObserverSettings settings;
  settings.maxshrink = view.double_or("maxshrink", settings.maxshrink);
  settings.grid = view.double_or("grid", settings.grid);
  settings.norm = view.double_or("norm", settings.norm);
  if (const auto patience = view.find("patience"))
    settings.patience = static_cast<int>(patience->as_int(1, 1'000'000));
  return settings;
}

/// What only one value is supported of: anything else is refused, null is the same as leaving it out.
void require_absent(const JsonView& view, std::string_view key, std::string_view reason) {
  if (const auto value = view.find(key)) unsupported(*value, reason);
}

bool read_dynamic(const JsonView& view) {
  if (view.json().is_boolean()) return view.as_bool();
  constexpr std::string_view kWords[] = {"local"};
  read_word(view, kWords);
  unsupported(view, "is not supported; weights have static scales");
}

void read_types(const JsonView& view, QuantizationArgs& args) {
  constexpr std::string_view kTypes[] = {"int", "float"};
  if (const auto type = view.find("type"))
    args.type = static_cast<QuantizationType>(read_word(*type, kTypes));
  require_absent(view, "scale_dtype", "is not supported; scales have the type of the checkpoint's weights");
  if (const auto type = view.find("zp_dtype"); type && type->as_string() != "torch.int8") {
    unsupported(*type, "is not supported; zero points are torch.int8");
  }
}

}  // namespace

std::span<const std::string_view> quantization_keys() { return kQuantizationKeys; }

QuantizationArgs read_quantization_args(const JsonView& view) {
  check_keys(view, kArgsKeys);
  QuantizationArgs args;
  if (const auto bits = view.find("num_bits")) args.num_bits = static_cast<int>(bits->as_int(1, 64));
  read_types(view, args);
  args.symmetric = view.bool_or("symmetric", args.symmetric);
  if (const auto size = view.find("group_size")) args.group_size = size->as_int();
  if (const auto strategy = view.find("strategy")) args.strategy = read_strategy(*strategy);
  if (const auto dynamic = view.find("dynamic")) args.dynamic = read_dynamic(*dynamic);
  if (const auto order = view.find("actorder")) args.actorder = read_order(*order);
  if (const auto observer = view.find("observer")) args.observer = read_observer(*observer);
  if (const auto settings = view.find("observer_kwargs"); settings && !settings->json().empty()) {
    args.observer_kwargs = read_observer_settings(*settings);
    if (args.observer == Observer::minmax)
      reject_value(*settings, ErrorKind::invalid_argument, "is for the observer mse");
  }
  require_absent(view, "block_structure", "is not supported; weights are stored by group, channel or tensor");
  // Contradictions within the arguments, which objects made in C++ are checked for too.
  with_context(view.path(), [&] { scheme_of(args); });
  return args;
}

namespace {

constexpr std::string_view kActivations =
    "is not supported; Salient stores weights as integers and computes with "
    "floating activations";

ConfigGroup read_group(const std::string& name, const JsonView& view) {
  if (view.json().is_array() || view.json().is_string()) {  // {"W4A16": ["Linear"]}
    return with_context(view.path(), [&] {
      return ConfigGroup{.name = name, .targets = read_texts(view), .weights = args_of(scheme_by_name(name))};
    });
  }
  constexpr std::string_view kKeys[] = {"targets", "weights", "input_activations", "output_activations",
                                        "format"};
  check_keys(view, kKeys);
  require_absent(view, "input_activations", kActivations);
  require_absent(view, "output_activations", kActivations);
  if (const auto format = view.find("format"); format && format->as_string() != "pack-quantized") {
    unsupported(*format, "is not supported; groups are stored as pack-quantized");
  }
  return {.name = name,
          .targets = read_texts(view.at("targets")),
          .weights = read_quantization_args(view.at("weights"))};
}

/// scheme: a preset for all targets, or {preset: targets}.
void read_scheme(const JsonView& view, QuantizationModifier& modifier) {
  if (view.json().is_object()) {
    for (const auto& [name, targets] : view.members()) {
      if (targets.json().is_object())
        reject_value(targets, ErrorKind::invalid_argument, "must be a list of targets");
      modifier.config_groups.push_back(read_group(name, targets));
    }
    return;
  }
  modifier.scheme = view.as_string();
  with_context(view.path(), [&] { scheme_by_name(modifier.scheme); });
}

/// Beside config_groups, targets may only repeat what they say, as llm-compressor's own recipe files do.
void check_targets(const JsonView& view, const QuantizationModifier& modifier) {
  if (modifier.config_groups.empty() || modifier.targets == std::vector<std::string>{"Linear"}) return;
  std::set<std::string> of_groups;
  for (const ConfigGroup& group : modifier.config_groups)
    of_groups.insert(group.targets.begin(), group.targets.end());
  if (std::set<std::string>(modifier.targets.begin(), modifier.targets.end()) == of_groups) return;
  reject_value(view, ErrorKind::invalid_argument,
               "contradicts the targets of the groups, which are what counts");
}

void set_observer(const JsonView& view, QuantizationModifier& modifier) {
  const Observer observer = read_observer(view);
  if (modifier.config_groups.empty() && modifier.scheme.empty()) {
    reject_value(view, ErrorKind::invalid_argument, "stands without a scheme or config_groups");
  }
  if (modifier.config_groups.empty()) {  // a preset with an observer is a group of its own
    modifier.config_groups = {{.name = "group_0",
                               .targets = modifier.targets,
                               .weights = args_of(scheme_by_name(modifier.scheme))}};
    modifier.scheme.clear();
  }
  for (ConfigGroup& group : modifier.config_groups) {
    Observer& own = group.weights.observer;
    if (own != Observer::automatic && own != observer) {
      reject_value(view, ErrorKind::invalid_argument,
                   fmt::format("contradicts the observer of {}", group.name));
    }
    own = observer;
  }
}

/// weight_observer, or observer: {weights: ...}.
void read_observers(const JsonView& view, QuantizationModifier& modifier) {
  constexpr std::string_view kNone = "is not supported; activations are not quantized";
  require_absent(view, "input_observer", kNone);
  require_absent(view, "output_observer", kNone);
  auto chosen = view.find("weight_observer");
  if (const auto observers = view.find("observer")) {
    constexpr std::string_view kKeys[] = {"weights", "input", "output"};
    check_keys(*observers, kKeys);
    require_absent(*observers, "input", kNone);
    require_absent(*observers, "output", kNone);
    const auto weights = observers->find("weights");
    if (weights && chosen) {
      reject_value(*weights, ErrorKind::invalid_argument,
                   "stands beside weight_observer; one of them is enough");
    }
    if (weights) chosen = weights;
  }
  if (chosen) set_observer(*chosen, modifier);
  for (const ConfigGroup& group : modifier.config_groups) {
    if (group.weights.observer == Observer::mse || group.weights.observer_kwargs == ObserverSettings{})
      continue;
    fail(ErrorKind::invalid_argument, "{}: the observer_kwargs of {} are for the observer mse", view.path(),
         group.name);
  }
}

}  // namespace

std::optional<QuantizationModifier> read_quantization(const JsonView& view) {
  const bool any = std::any_of(std::begin(kQuantizationKeys), std::end(kQuantizationKeys),
                               [&](std::string_view key) { return view.find(key).has_value(); });
  if (!any) return std::nullopt;
  QuantizationModifier modifier;
  modifier.ignore.clear();
  if (const auto ignore = view.find("ignore")) modifier.ignore = read_texts(*ignore);
  const auto scheme = view.find("scheme");
  const auto groups = view.find("config_groups");
  if (scheme && groups) {
    reject_value(*scheme, ErrorKind::invalid_argument,
                 "stands beside config_groups; one of them says how to quantize");
  }
  if (scheme) read_scheme(*scheme, modifier);
  if (groups) {
    for (const auto& [name, group] : groups->members())
      modifier.config_groups.push_back(read_group(name, group));
    if (modifier.config_groups.empty()) reject_value(*groups, ErrorKind::invalid_argument, "has no group");
  }
  if (const auto targets = view.find("targets")) {
    modifier.targets = read_texts(*targets);
    if (modifier.targets.empty()) reject_value(*targets, ErrorKind::invalid_argument, "names no target");
    check_targets(*targets, modifier);
  }
  read_observers(view, modifier);
  require_absent(view, "kv_cache_scheme",
                 "is not supported; the kv cache of a checkpoint's reader is its own");
  if (const auto bypass = view.find("bypass_divisibility_checks"); bypass && bypass->as_bool()) {
    unsupported(
        *bypass,
        "is not supported; every group has its full size, and linears that do not fit go into ignore");
  }
  return modifier;
}

}  // namespace salient
