#include "awq/mapping_patterns.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/name_pattern.h"

namespace salient {
namespace {

/// What a name in a layer stands for: a norm, or the linears that are rows of one matrix.
struct Module {
  std::string name;
  std::variant<NormRole, std::vector<LinearId>> parts;

  bool is_linear() const { return parts.index() == 1; }
};

std::vector<Module> modules_of(const DecoderSpec& spec, int64_t layer) {
  std::vector<Module> modules;
  for (size_t role = 0; role < kNormRoles; ++role) {
    const std::string name = spec.norm_name(layer, static_cast<NormRole>(role));
    if (!name.empty()) modules.push_back({name, static_cast<NormRole>(role)});
  }
  for (const LinearSlot& slot : spec.linears(layer)) {
    std::string name = spec.linear_name(layer, slot.id);
    if (modules.empty() || modules.back().name != name) {
      modules.push_back({std::move(name), std::vector<LinearId>{}});
    }
    std::get<std::vector<LinearId>>(modules.back().parts).push_back(slot.id);
  }
  return modules;
}

/// A pattern, and whether it has found anything yet.
struct UsedPattern {
  explicit UsedPattern(const std::string& text) : pattern(text) {}

  bool matches(const std::string& name) {
    const bool found = pattern.matches(name);
    used |= found;
    return found;
  }

  NamePattern pattern;
  bool used = false;
};

/// Characters of the names' common beginning, in whole words.
size_t shared_scope(const std::string& a, const std::string& b) {
  const auto [end, other] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  const auto length = static_cast<size_t>(end - a.begin());
  if (length == 0) return 0;
  const size_t dot = a.rfind('.', length - 1);
  return dot == std::string::npos ? 0 : dot + 1;
}

/// One user's mapping, looked for in layer after layer.
class MappingResolver {
 public:
  MappingResolver(const DecoderSpec& spec, const AwqMapping& mapping)
      : spec_(spec), mapping_(mapping), smooth_(mapping.smooth_layer) {
    for (const std::string& text : mapping.balance_layers) balance_.emplace_back(text);
    if (balance_.empty()) reject("balance_layers is empty");
  }

  void resolve(int64_t layer, std::vector<ResolvedMapping>& result) {
    std::vector<const Module*> smooth;
    std::vector<const Module*> balance;
    const std::vector<Module> modules = modules_of(spec_, layer);
    for (const Module& module : modules) {
      if (smooth_.matches(module.name)) smooth.push_back(&module);
      if (is_balance(module)) balance.push_back(&module);
    }
    for (const Module* candidate : smooth) {
      std::vector<const Module*> own;
      for (const Module* reader : balance) {
        if (nearest(smooth, *reader) == candidate) own.push_back(reader);
      }
      if (own.empty()) continue;
      result.push_back(checked(layer, *candidate, own));
      resolved_ = true;
    }
  }

  /// After all layers.
  void check_used() const {
    check_used(smooth_, "smooth_layer");
    for (const UsedPattern& pattern : balance_) check_used(pattern, "balance_layers");
    if (!resolved_) reject("no decoder layer has both a smooth layer and a balance layer");
  }

 private:
  bool is_balance(const Module& module) {
    bool found = false;
    for (UsedPattern& pattern : balance_) found |= pattern.matches(module.name);
    if (found && !module.is_linear()) {
      reject(fmt::format("the balance layer {} is no linear", module.name));
    }
    return found;
  }

  const Module* nearest(const std::vector<const Module*>& smooth, const Module& reader) const {
    const Module* best = nullptr;
    const Module* rival = nullptr;
    for (const Module* candidate : smooth) {
      const size_t scope = shared_scope(candidate->name, reader.name);
      const size_t best_scope = best == nullptr ? 0 : shared_scope(best->name, reader.name);
      if (best == nullptr || scope > best_scope) {
        best = candidate;
        rival = nullptr;
      } else if (scope == best_scope) {
        rival = candidate;
      }
    }
    if (rival != nullptr) {
      reject(fmt::format(
          "smooth_layer matches both {} and {}, and {} could belong to either; a set has one smooth "
          "layer",
          best->name, rival->name, reader.name));
    }
    return best;
  }

  /// The complete mapping that the data flow has for `smooth`, if `balance` is exactly its readers.
  ResolvedMapping checked(int64_t layer, const Module& smooth,
                          const std::vector<const Module*>& balance) const {
    const ResolvedMapping flow = flow_from(layer, smooth);
    std::set<std::string> readers;
    for (const LinearId& id : flow.balance) readers.insert(spec_.linear_name(layer, id));
    std::set<std::string> named;
    for (const Module* module : balance) named.insert(module->name);
    for (const std::string& name : named) {
      if (!readers.contains(name)) {
        reject(fmt::format("{} does not read the output of {}; {} would compute something else", name,
                           smooth.name, name));
      }
    }
    for (const std::string& name : readers) {
      if (!named.contains(name)) {
        reject(fmt::format(
            "{} reads the output of {} too but is not among balance_layers; layer {} would compute "
            "something else",
            name, smooth.name, layer));
      }
    }
    check_hook(layer, flow, named);
    return flow;
  }

  ResolvedMapping flow_from(int64_t layer, const Module& smooth) const {
    for (const ResolvedMapping& flow : default_mappings(spec_, layer)) {
      const auto* norm = std::get_if<NormRole>(&flow.smooth);
      if (norm != nullptr && !smooth.is_linear() && std::get<NormRole>(smooth.parts) == *norm) return flow;
      if (norm != nullptr || !smooth.is_linear()) continue;
      // Of a fused matrix only the rows count whose output reaches a linear by products alone.
      const auto& parts = std::get<std::vector<LinearId>>(smooth.parts);
      if (std::find(parts.begin(), parts.end(), std::get<LinearId>(flow.smooth)) != parts.end()) return flow;
    }
    reject(fmt::format(
        "the output of {} does not go into linears through products alone, so no scale can be taken "
        "out of it; possible in this layer: {}",
        smooth.name, possible_mappings(layer)));
  }

  /// The first of a layer's mappings; one for every expert would fill pages.
  std::string possible_mappings(int64_t layer) const {
    std::vector<std::string> texts;
    for (const ResolvedMapping& flow : default_mappings(spec_, layer)) texts.push_back(flow.describe(spec_));
    constexpr size_t kMost = 6;
    if (texts.size() > kMost) texts.resize(kMost);
    return fmt::format("{}", fmt::join(texts, "; "));
  }

  /// activation_hook_target must lead to the smoothed tensor: it is that tensor which is measured.
  void check_hook(int64_t layer, const ResolvedMapping& flow, const std::set<std::string>& balance) const {
    const std::string& target = mapping_.activation_hook_target;
    if (target.empty()) return;
    std::string parent = *balance.begin() + ".";
    for (const std::string& name : balance) {
      if (name + "." != parent) parent.resize(shared_scope(parent, name + "."));
    }
    const std::string hooked = parent + target;
    const bool found = std::any_of(flow.balance.begin(), flow.balance.end(), [&](const LinearId& id) {
      const std::string name = spec_.linear_name(layer, id);
      return name == hooked || name.starts_with(hooked + ".");
    });
    if (!found) {
      reject(fmt::format("activation_hook_target \"{}\" leads to {}, which does not read the smoothed tensor",
                         target, hooked));
    }
  }

  void check_used(const UsedPattern& pattern, std::string_view key) const {
    if (pattern.used) return;
    reject(fmt::format(
        "{}: \"{}\" matches no module of {}; is the recipe for another family? The mappings of this "
        "one: {}",
        key, pattern.pattern.text(), spec_.architecture, possible_mappings(spec_.layers - 1)));
  }

  [[noreturn]] void reject(std::string_view message) const {
    fail(ErrorKind::invalid_argument, "mapping {} -> {}: {}", mapping_.smooth_layer,
         fmt::join(mapping_.balance_layers, ", "), message);
  }

  const DecoderSpec& spec_;
  const AwqMapping& mapping_;
  UsedPattern smooth_;
  std::vector<UsedPattern> balance_;
  bool resolved_ = false;
};

/// The scales of two mappings would both be divided out of one tensor.
void check_distinct(const DecoderSpec& spec, int64_t layer, const std::vector<ResolvedMapping>& mappings) {
  for (size_t i = 0; i < mappings.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (mappings[i].smooth != mappings[j].smooth) continue;
      fail(ErrorKind::invalid_argument, "mappings: layer {} has {} twice", layer, mappings[i].describe(spec));
    }
  }
}

}  // namespace

std::vector<std::vector<ResolvedMapping>> resolve_mappings(const DecoderSpec& spec,
                                                           std::span<const AwqMapping> mappings) {
  std::vector<std::vector<ResolvedMapping>> result(static_cast<size_t>(spec.layers));
  for (const AwqMapping& mapping : mappings) {
    MappingResolver resolver(spec, mapping);
    for (int64_t layer = 0; layer < spec.layers; ++layer) {
      resolver.resolve(layer, result[static_cast<size_t>(layer)]);
    }
    resolver.check_used();
  }
  for (int64_t layer = 0; layer < spec.layers; ++layer) {
    check_distinct(spec, layer, result[static_cast<size_t>(layer)]);
  }
  return result;
}

}  // namespace salient
