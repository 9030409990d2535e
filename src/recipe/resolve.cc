#include "recipe/resolve.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <map>
#include <regex>

#include "base/error.h"
#include "quant/scheme.h"

namespace salient {
namespace {

QuantizationScheme resolve_scheme(const QuantizationModifier& modifier) {
  QuantizationScheme scheme = scheme_by_name(modifier.scheme);
  if (modifier.group_size) scheme.group_size = *modifier.group_size;
  validate(scheme);
  return scheme;
}

/// One entry of an ignore list.
class IgnorePattern {
 public:
  explicit IgnorePattern(const std::string& text) : text_(text), is_regex_(text.starts_with("re:")) {
    if (!is_regex_) return;
    try {
      regex_.assign(text.substr(3));
    } catch (const std::regex_error& error) {
      fail(ErrorKind::invalid_argument, "ignore: \"{}\" is not a regular expression: {}", text, error.what());
    }
  }

  /// Python's re.match: anchored at the start only.
  bool matches(const std::string& name) const {
    if (!is_regex_) return name == text_;
    return std::regex_search(name, regex_, std::regex_constants::match_continuous);
  }

  const std::string& text() const { return text_; }
  bool used = false;

 private:
  std::string text_;
  bool is_regex_;
  std::regex regex_;
};

std::string module_name(const std::string& tensor_name) {
  return tensor_name.substr(0, tensor_name.rfind('.'));  // without ".weight"
}

[[noreturn]] void fail_unmatched(const IgnorePattern& pattern, const DecoderSpec& spec) {
  const auto first = spec.linears(0).front().name;
  fail(
      ErrorKind::invalid_argument,
      "ignore: \"{}\" matches no module; names are written in full, as \"{}\", or as a pattern, \"re:.*{}$\"",
      pattern.text(), first, first.substr(first.rfind('.') + 1));
}

/// Linears by the reason why they cannot be quantized, e.g. "q_proj (576 columns)" -> how many layers.
std::string list_misfits(const std::vector<const LinearSlot*>& misfits) {
  std::map<std::string, int64_t> layers_of;
  std::vector<std::string> order;
  for (const auto* slot : misfits) {
    const auto key =
        fmt::format("{} [{} columns]", slot->name.substr(slot->name.rfind('.') + 1), slot->in_features);
    if (layers_of[key]++ == 0) order.push_back(key);
  }
  std::vector<std::string> parts;
  for (const auto& key : order) parts.push_back(fmt::format("{} in {} layers", key, layers_of[key]));
  return fmt::format("{}, the first being {}", fmt::join(parts, ", "), misfits.front()->name);
}

/// Why a linear stays dense; empty when it does not.
std::string dense_reason(const LinearSlot& slot, const IgnorePattern* pattern) {
  if (pattern != nullptr) return fmt::format("ignore: \"{}\"", pattern->text());
  const bool routes = slot.id.role == LinearRole::router || slot.id.role == LinearRole::shared_router;
  return routes ? "a router's choice is worth more than its bytes" : "";
}

void check_group_size(const QuantizationScheme& scheme, const std::vector<LinearSlot>& slots) {
  if (scheme.group_size == QuantizationScheme::kWholeRow) return;
  std::vector<const LinearSlot*> misfits;
  for (const auto& slot : slots) {
    if (slot.in_features % scheme.group_size != 0) misfits.push_back(&slot);
  }
  if (misfits.empty()) return;
  std::vector<int64_t> fitting;
  for (const int64_t size : group_sizes()) {
    const bool fits = std::all_of(slots.begin(), slots.end(), [&](const LinearSlot& slot) {
      return size == QuantizationScheme::kWholeRow || slot.in_features % size == 0;
    });
    if (fits) fitting.push_back(size);
  }
  fail(ErrorKind::invalid_argument,
       "group size {} does not divide the columns of {} linears: {}; group sizes that fit: {}; or leave "
       "these linears dense "
       "with ignore",
       scheme.group_size, misfits.size(), list_misfits(misfits), fmt::join(fitting, ", "));
}

void check_format(Format format, const std::vector<LinearSlot>& slots) {
  if (format != Format::autoawq_gemm) return;
  for (const auto& slot : slots) {
    if (slot.out_features % 8 != 0) {
      fail(ErrorKind::unsupported,
           "{}: autoawq-gemm packs 8 output rows into a word and {} is no multiple of 8", slot.name,
           slot.out_features);
    }
  }
}

void check_awq(const Recipe& recipe) {
  if (!recipe.awq) return;
  if (recipe.awq->n_grid < 2 || recipe.awq->n_grid > 1000) {
    fail(ErrorKind::invalid_argument, "n_grid: {} is outside [2, 1000]", recipe.awq->n_grid);
  }
}

}  // namespace

ResolvedRecipe resolve_recipe(const Recipe& recipe, Format format, const DecoderSpec& spec) {
  check_awq(recipe);
  ResolvedRecipe resolved{.scheme = resolve_scheme(recipe.quantization), .schemes = {}, .dense = {}};
  std::vector<IgnorePattern> patterns;
  for (const auto& text : recipe.quantization.ignore) patterns.emplace_back(text);
  const auto ignored_by = [&](const std::string& name) -> const IgnorePattern* {
    const IgnorePattern* found = nullptr;
    for (auto& pattern : patterns) {
      if (!pattern.matches(name)) continue;
      pattern.used = true;
      if (found == nullptr) found = &pattern;
    }
    return found;
  };
  std::vector<LinearSlot> to_quantize;
  for (int64_t layer = 0; layer < spec.layers; ++layer) {
    auto& schemes = resolved.schemes.emplace_back();
    std::string last;
    for (LinearSlot slot : spec.linears(layer)) {
      slot.name = spec.linear_name(layer, slot.id);
      const std::string reason = dense_reason(slot, ignored_by(slot.name));
      if (reason.empty()) schemes[slot.id] = resolved.scheme;
      if (slot.name == last) continue;  // another part of a fused module
      last = slot.name;
      if (slot.storage != LinearStorage::expert_stack) slot.out_features = slot.rows.count;
      if (reason.empty()) {
        to_quantize.push_back(slot);
      } else {
        resolved.dense.push_back({slot.name, reason});
      }
    }
  }
  const std::string& head = spec.head_name;
  const auto* head_pattern = ignored_by(head);
  resolved.dense.push_back({head, head_pattern != nullptr
                                      ? fmt::format("ignore: \"{}\"", head_pattern->text())
                                      : "the output head always stays dense"});
  ignored_by("lm_head");  // what recipes call the head, whatever a file begins its name with
  ignored_by(module_name(spec.embedding_name));  // embeddings stay dense anyway, naming them is no mistake
  for (const auto& pattern : patterns) {
    if (!pattern.used) fail_unmatched(pattern, spec);
  }
  if (to_quantize.empty())
    fail(ErrorKind::invalid_argument, "ignore: every linear is ignored, nothing is left to quantize");
  check_group_size(resolved.scheme, to_quantize);
  check_format(format, to_quantize);
  resolved.quantized_linears = static_cast<int64_t>(to_quantize.size());
  return resolved;
}

std::string recipe_to_yaml(const OneshotOptions& options, const QuantizationScheme& scheme,
                           int64_t calibration_tokens, const std::string& head) {
  std::vector<std::string> ignore = options.recipe.quantization.ignore;
  if (std::find(ignore.begin(), ignore.end(), head) == ignore.end()) ignore.push_back(head);
  YAML::Emitter yaml;
  yaml << YAML::BeginMap << YAML::Key << "default_stage" << YAML::Value << YAML::BeginMap;
  yaml << YAML::Key << "default_modifiers" << YAML::Value << YAML::BeginMap;
  if (options.recipe.awq) {
    yaml << YAML::Key << "AWQModifier" << YAML::Value << YAML::BeginMap << YAML::Key << "duo_scaling"
         << YAML::Value;
    switch (options.recipe.awq->duo_scaling) {
      case DuoScaling::off:
        yaml << false;
        break;
      case DuoScaling::on:
        yaml << true;
        break;
      case DuoScaling::both:
        yaml << "both";
        break;
    }
    yaml << YAML::Key << "n_grid" << YAML::Value << options.recipe.awq->n_grid << YAML::EndMap;
  }
  yaml << YAML::Key << "QuantizationModifier" << YAML::Value << YAML::BeginMap;
  yaml << YAML::Key << "ignore" << YAML::Value << YAML::Flow << ignore;
  const bool whole_row = scheme.group_size == QuantizationScheme::kWholeRow;
  yaml << YAML::Key << "config_groups" << YAML::Value << YAML::BeginMap << YAML::Key << "group_0"
       << YAML::Value << YAML::BeginMap << YAML::Key << "targets" << YAML::Value << YAML::Flow
       << std::vector<std::string>{"Linear"} << YAML::Key << "weights" << YAML::Value << YAML::BeginMap;
  yaml << YAML::Key << "num_bits" << YAML::Value << scheme.num_bits << YAML::Key << "type" << YAML::Value
       << "int" << YAML::Key << "symmetric" << YAML::Value << scheme.symmetric << YAML::Key << "strategy"
       << YAML::Value << (whole_row ? "channel" : "group");
  if (!whole_row) yaml << YAML::Key << "group_size" << YAML::Value << scheme.group_size;
  yaml << YAML::Key << "dynamic" << YAML::Value << false << YAML::EndMap << YAML::EndMap << YAML::EndMap
       << YAML::EndMap;
  yaml << YAML::EndMap << YAML::EndMap << YAML::EndMap;

  std::string text =
      fmt::format("# Written by Salient {}, which made this checkpoint with this recipe.\n", SALIENT_VERSION);
  if (options.recipe.awq) {
    text += fmt::format(
        "# Beside it: clip search {}; rounding {}; calibration on {} tokens in windows of {}; propagation "
        "{}.\n",
        options.recipe.awq->clip == ClipSearch::on ? "on" : "off",
        options.recipe.awq->rounding == Rounding::nearest ? "nearest" : "compensated", calibration_tokens,
        options.calibration.max_seq_length,
        options.calibration.propagation == Propagation::quantized ? "quantized" : "original");
  }
  return text + yaml.c_str() + "\n";
}

}  // namespace salient
