#include "model/rope_spec.h"

#include <cmath>

#include "base/error.h"
#include "model/config_keys.h"

namespace salient {
namespace {

/// A number within [minimum, maximum]; the bounds keep every later formula finite.
double bounded(const JsonView& value, double minimum, double maximum) {
  const double number = value.as_double();
  if (!(number >= minimum && number <= maximum)) {
    value.reject(fmt::format("{} is outside [{}, {}]", number, minimum, maximum));
  }
  return number;
}

double bounded_or(const JsonView& object, std::string_view key, double fallback, double maximum) {
  const auto value = object.find(key);
  return value ? bounded(*value, 0, maximum) : fallback;
}

/// transformers reads these with `value or default`: zero means absent.
std::optional<double> truthy(const JsonView& object, std::string_view key) {
  const double value = bounded_or(object, key, 0, 1e6);
  if (value == 0) return std::nullopt;
  return value;
}

RopeScaling scaling_kind(const JsonView& parameters, const RopeContext& context) {
  auto name = parameters.find("rope_type");
  if (!name) name = parameters.find("type");
  if (!name) return RopeScaling::none;
  const std::string& text = name->as_string();
  if (context.longrope_only && (text == "su" || text == "yarn")) return RopeScaling::longrope;
  if (context.multimodal && text == "mrope") return RopeScaling::none;
  static constexpr std::pair<std::string_view, RopeScaling> kKinds[] = {
      {"default", RopeScaling::none},  {"linear", RopeScaling::linear}, {"dynamic", RopeScaling::dynamic},
      {"llama3", RopeScaling::llama3}, {"yarn", RopeScaling::yarn},     {"longrope", RopeScaling::longrope},
  };
  for (const auto& [known, kind] : kKinds) {
    if (known == name->as_string()) return kind;
  }
  fail(ErrorKind::unsupported,
       "{}: rope type \"{}\" is not supported (default, linear, dynamic, llama3, yarn, longrope)",
       name->path(), name->as_string());
}

void read_factor(const JsonView& parameters, RopeSpec& rope) {
  // yarn and longrope may leave the factor out: it is then the ratio of the context lengths.
  const bool may_infer = rope.scaling == RopeScaling::yarn || rope.scaling == RopeScaling::longrope;
  if (may_infer && !parameters.find("factor")) {
    rope.factor = static_cast<double>(rope.max_position_embeddings) /
                  static_cast<double>(rope.original_max_position_embeddings);
  } else {
    rope.factor = bounded(parameters.at("factor"), 1e-3, 1e6);
  }
}

void read_original_length(const JsonView& config, const JsonView& parameters, RopeSpec& rope) {
  // Phi-like files keep the key outside, where transformers gives it priority.
  auto original = config.find("original_max_position_embeddings");
  if (!original) original = parameters.find("original_max_position_embeddings");
  rope.original_max_position_embeddings =
      original ? original->as_int(2, kMaximumPositions) : rope.max_position_embeddings;
  if (rope.original_max_position_embeddings < 2) {
    parameters.reject("original_max_position_embeddings is missing and max_position_embeddings is below 2");
  }
}

void read_llama3(const JsonView& parameters, RopeSpec& rope) {
  rope.low_frequency_factor = bounded(parameters.at("low_freq_factor"), 1e-3, 1e6);
  rope.high_frequency_factor = bounded(parameters.at("high_freq_factor"), 1e-3, 1e6);
  if (rope.high_frequency_factor <= rope.low_frequency_factor) {
    parameters.reject(fmt::format("high_freq_factor {} must be above low_freq_factor {}",
                                  rope.high_frequency_factor, rope.low_frequency_factor));
  }
}

void read_yarn(const JsonView& parameters, RopeSpec& rope) {
  rope.beta_fast = truthy(parameters, "beta_fast").value_or(32.0);
  rope.beta_slow = truthy(parameters, "beta_slow").value_or(1.0);
  rope.mscale = truthy(parameters, "mscale");
  rope.mscale_all_dim = truthy(parameters, "mscale_all_dim");
  rope.truncate = parameters.bool_or("truncate", true);
}

std::vector<double> read_frequency_factors(const JsonView& list, int64_t count) {
  std::vector<double> result;
  for (const JsonView& element : list.elements()) result.push_back(bounded(element, 1e-6, 1e9));
  if (static_cast<int64_t>(result.size()) != count) {
    list.reject(fmt::format("{} factors, but half the rotary dimension is {}", result.size(), count));
  }
  return result;
}

void read_scaling(const JsonView& config, const JsonView& parameters, RopeSpec& rope) {
  if (rope.scaling == RopeScaling::none) return;
  if (rope.scaling != RopeScaling::linear && rope.scaling != RopeScaling::dynamic) {
    read_original_length(config, parameters, rope);
  }
  read_factor(parameters, rope);
  if (parameters.find("attention_factor")) {
    rope.attention_factor = bounded(parameters.at("attention_factor"), 0, 1e6);
  }
  if (rope.scaling == RopeScaling::dynamic && rope.rotary_dim < 4) {
    parameters.reject(
        fmt::format("dynamic scaling needs a rotary dimension of at least 4, got {}", rope.rotary_dim));
  }
  if (rope.scaling == RopeScaling::dynamic && parameters.find("alpha")) {
    fail(ErrorKind::unsupported, "{}: dynamic rope scaling by \"alpha\" is not supported", parameters.path());
  }
  if (rope.scaling == RopeScaling::llama3) read_llama3(parameters, rope);
  if (rope.scaling == RopeScaling::yarn) read_yarn(parameters, rope);
  if (rope.scaling == RopeScaling::longrope) {
    rope.short_factor = read_frequency_factors(parameters.at("short_factor"), rope.rotary_dim / 2);
    rope.long_factor = read_frequency_factors(parameters.at("long_factor"), rope.rotary_dim / 2);
  }
}

/// The first of `parameters` and `config` that has the key.
std::optional<JsonView> find_either(const JsonView& parameters, const JsonView& config,
                                    std::string_view key) {
  auto value = parameters.find(key);
  return value ? value : config.find(key);
}

int64_t rotary_dimension(const std::optional<JsonView>& partial_factor, const JsonView& config,
                         const RopeContext& context) {
  const double share = partial_factor ? bounded(*partial_factor, 0, 1) : context.default_partial_factor;
  const auto rotary_dim = static_cast<int64_t>(static_cast<double>(context.head_dim) * share);
  if (rotary_dim < 2 || rotary_dim % 2 != 0) {
    config.reject(fmt::format(
        "a rotary dimension of {} (head_dim {}, partial_rotary_factor {}) cannot be rotated in pairs",
        rotary_dim, context.head_dim, share));
  }
  return rotary_dim;
}

/// The parameters of a layer type, where the file keeps several.
JsonView parameters_of_type(const JsonView& parameters, const RopeContext& context, const JsonView& empty) {
  bool nested = false;
  for (const auto& [key, value] : parameters.members()) {
    if (!value.json().is_object()) continue;
    nested = true;
    if (!context.layer_type.empty()) continue;
    fail(ErrorKind::unsupported, "{}: rope parameters per layer type are not supported", value.path());
  }
  if (context.layer_type.empty()) return parameters;
  if (nested) return parameters.find(context.layer_type).value_or(empty);
  return context.layer_type == "full_attention" ? parameters : empty;
}

}  // namespace

RopeSpec read_rope_spec(const JsonView& config, const RopeContext& context) {
  static const Json kEmpty = Json::object();
  const JsonView empty(kEmpty, config.path());
  auto found = config.find("rope_scaling");
  if (!found || found->json().empty()) found = config.find("rope_parameters");
  const JsonView parameters = parameters_of_type(found.value_or(empty), context, empty);
  const bool local = context.layer_type == "sliding_attention";
  RopeSpec rope;
  rope.max_position_embeddings = context.max_position_embeddings;
  rope.theta = local ? context.default_local_theta : context.default_theta;
  // Above 1, or the frequencies would not fall and yarn would divide by log(1).
  const auto theta = local && !parameters.find("rope_theta") ? config.find("rope_local_base_freq")
                                                             : find_either(parameters, config, "rope_theta");
  if (theta) rope.theta = bounded(*theta, 1.0 + 1e-6, 1e18);
  rope.rotary_dim =
      rotary_dimension(find_either(parameters, config, "partial_rotary_factor"), config, context);
  rope.scaling = scaling_kind(parameters, context);
  read_scaling(config, parameters, rope);
  return rope;
}

}  // namespace salient
