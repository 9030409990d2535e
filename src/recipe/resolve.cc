#include "recipe/resolve.h"

#include <algorithm>
#include <map>
#include <set>

#include "awq/mapping_patterns.h"
#include "base/error.h"
#include "quant/scheme.h"
#include "quant/scheme_groups.h"
#include "recipe/schemes.h"

namespace salient {
namespace {

std::string module_name(const std::string& tensor_name) {
  return tensor_name.substr(0, tensor_name.rfind('.'));  // without ".weight"
}

std::string last_word(const std::string& name) { return name.substr(name.rfind('.') + 1); }

bool is_router(const LinearSlot& slot) {
  return slot.id.role == LinearRole::router || slot.id.role == LinearRole::shared_router;
}

/// The names that a module's class goes by, where anybody could have one in mind.
std::span<const std::string_view> classes_of(const LinearSlot& slot) {
  if (is_router(slot)) return {};  // newer classes of transformers have a parameter there and no Linear
  if (slot.storage == LinearStorage::transposed) return kConvClasses;
  return kLinearClasses;
}

/// What a list of names, patterns and classes has matched so far.
class NameList {
 public:
  NameList(std::string key, std::span<const std::string> texts) : key_(std::move(key)) {
    for (const std::string& text : texts) with_context(key_, [&] { patterns_.emplace_back(text); });
    used_.resize(patterns_.size());
  }

  /// The first entry that matches; all that do count as used.
  const std::string* find(const std::string& name, std::span<const std::string_view> classes) {
    const std::string* found = nullptr;
    for (size_t i = 0; i < patterns_.size(); ++i) {
      const std::string& text = patterns_[i].text();
      const bool matches =
          patterns_[i].matches(name) || std::find(classes.begin(), classes.end(), text) != classes.end();
      if (!matches) continue;
      used_[i] = true;
      if (found == nullptr) found = &text;
    }
    return found;
  }

  /// What names modules beside the decoder, as those of a vision tower, is of use too.
  void check_used(const DecoderSpec& spec, std::span<const std::string> foreign) {
    for (const std::string& name : foreign) find(name, kLinearClasses);
    const auto unused = std::find(used_.begin(), used_.end(), false);
    if (unused == used_.end()) return;
    const std::string& text = patterns_[static_cast<size_t>(unused - used_.begin())].text();
    const std::string first = spec.linears(0).front().name;
    fail(ErrorKind::invalid_argument,
         "{}: \"{}\" matches no module of {}; leave it out, or write a name in full, as \"{}\", a pattern, "
         "\"re:.*{}$\", or the class Linear",
         key_, text, spec.architecture, first, last_word(first));
  }

 private:
  std::string key_;
  std::vector<NamePattern> patterns_;
  std::vector<bool> used_;
};

/// Linears by the reason why they do not fit, e.g. "3 x q_proj [576 columns]".
std::string list_misfits(const std::vector<const PlannedLinear*>& misfits) {
  std::map<std::string, int64_t> count_of;
  std::vector<std::string> order;
  for (const PlannedLinear* linear : misfits) {
    const auto key = fmt::format("{} [{} columns]", last_word(linear->name), linear->in_features);
    if (count_of[key]++ == 0) order.push_back(key);
  }
  std::vector<std::string> parts;
  for (const auto& key : order) parts.push_back(fmt::format("{} x {}", count_of[key], key));
  return fmt::format("{}, the first being {}", fmt::join(parts, ", "), misfits.front()->name);
}

std::vector<int64_t> fitting_group_sizes(const std::vector<const PlannedLinear*>& linears) {
  std::vector<int64_t> fitting;
  for (const int64_t size : group_sizes()) {
    const bool fits = std::all_of(linears.begin(), linears.end(), [&](const PlannedLinear* linear) {
      return size <= 0 || linear->in_features % size == 0;
    });
    if (fits) fitting.push_back(size);
  }
  return fitting;
}

/// A recipe on its way through the modules of a model.
class Resolver {
 public:
  Resolver(const OneshotOptions& options, const DecoderSpec& spec, std::span<const std::string> foreign)
      : options_(options),
        spec_(spec),
        foreign_(foreign),
        groups_(config_groups_of(options.recipe.quantization)),
        targets_(targets_of(groups_)),
        ignore_("ignore", options.recipe.quantization.ignore) {
    for (const ConfigGroup& group : groups_) {
      result_.groups.push_back({group.name, group.targets, scheme_of(group.weights)});
      named_.emplace_back(fmt::format("{}: targets", group.name), group.targets);
    }
    linears_of_group_.resize(groups_.size());
  }

  ResolvedRecipe run() {
    for (int64_t layer = 0; layer < spec_.layers; ++layer) resolve_layer(layer);
    resolve_head();
    refuse_embedding();
    ignore_.check_used(spec_, foreign_);
    for (NameList& names : named_) names.check_used(spec_, {});
    check_groups();
    warn_of_losers();
    warn_of_conv();
    check_awq();
    check_format();
    warn_of_fused_sets();
    warn_of_widths();
    return std::move(result_);
  }

 private:
  static std::vector<std::vector<std::string>> targets_of(const std::vector<ConfigGroup>& groups) {
    std::vector<std::vector<std::string>> targets;
    for (const ConfigGroup& group : groups) targets.push_back(group.targets);
    return targets;
  }

  void resolve_layer(int64_t layer) {
    auto& linears = result_.linears.emplace_back();
    auto& planned = result_.planned.emplace_back();
    std::string last;
    std::optional<size_t> group;
    for (LinearSlot slot : spec_.linears(layer)) {
      slot.name = spec_.linear_name(layer, slot.id);
      if (slot.name != last) group = resolve_module(slot, planned);  // else another part of a fused module
      last = slot.name;
      if (group) linears[slot.id] = rounding_of(*group);
    }
  }

  LinearRounding rounding_of(size_t group) const {
    const QuantizationArgs& args = groups_[group].weights;
    return {.scheme = result_.groups[group].scheme,
            .observer = args.observer,
            .observer_settings = args.observer_kwargs,
            .order = order_of(args)};
  }

  ActivationOrder order_of(const QuantizationArgs& args) const {
    if (args.actorder != ActivationOrder::automatic) return args.actorder;
    const auto& awq = options_.recipe.awq;
    const bool compensated = awq && awq->rounding && awq->rounding != Rounding::nearest;
    return compensated ? ActivationOrder::weight : ActivationOrder::none;
  }

  /// Which targets choose something, and to whom the others lose.
  void note_targets(const LinearSlot& slot, const std::optional<TargetList::Match>& match) {
    for (size_t i = 0; i < named_.size(); ++i) {
      const std::string* own = named_[i].find(slot.name, classes_of(slot));
      if (own == nullptr || match->entry == i) continue;
      lost_.try_emplace(groups_[i].name, fmt::format("{} goes to {} (\"{}\")", slot.name,
                                                     groups_[match->entry].name, match->target));
    }
    if (match) winners_.emplace(match->target);
  }

  /// A target that chooses nothing was meant to: patterns go by their text, not by how much they say.
  void warn_of_losers() {
    for (const ConfigGroup& group : groups_) {
      for (const std::string& target : group.targets) {
        if (winners_.contains(target) || !lost_.contains(group.name)) continue;
        result_.warnings.push_back(fmt::format("{}: the target \"{}\" chooses nothing: {}", group.name,
                                               target, lost_.at(group.name)));
      }
    }
  }

  /// The group of a module; nothing when it stays dense.
  std::optional<size_t> resolve_module(const LinearSlot& slot, std::vector<PlannedLinear>& planned) {
    const std::string* ignored = ignore_.find(slot.name, classes_of(slot));
    const auto match = targets_.find(slot.name, classes_of(slot));
    note_targets(slot, match);
    std::string reason;
    if (ignored != nullptr) {
      reason = fmt::format("ignore: \"{}\"", *ignored);
    } else if (is_router(slot)) {
      if (match && match->target == slot.name) refuse_target(*match, slot.name, "routers always stay dense");
      reason = "a router's choice is worth more than its bytes";
    } else if (!match) {
      reason = "no target matches it";
    }
    if (!reason.empty()) {
      result_.dense.push_back({slot.name, reason});
      return std::nullopt;
    }
    const SchemeGroup& group = result_.groups[match->entry];
    if (group.scheme.group_size == QuantizationScheme::kWholeMatrix && slot.fused()) {
      fail(ErrorKind::unsupported,
           "{}: {} holds several linears, each with a scale of its own; strategy tensor has one", group.name,
           slot.name);
    }
    const bool stacked = slot.storage == LinearStorage::expert_stack;
    planned.push_back({.name = slot.name,
                       .out_features = stacked ? slot.out_features : slot.rows.count,
                       .in_features = slot.in_features,
                       .scheme = group.scheme,
                       .observer = groups_[match->entry].weights.observer,
                       .order = order_of(groups_[match->entry].weights),
                       .group = group.name,
                       .target = std::string(match->target)});
    ++linears_of_group_[match->entry];
    ++result_.quantized_linears;
    return match->entry;
  }

  /// Why the head cannot become integers; empty when it can.
  std::string_view dense_head_reason(const QuantizationScheme& scheme) const {
    if (spec_.text_part) return "the head of a model of more than text stays dense";
    if (options_.integer_format() == Format::autoawq_gemm) return "AutoAWQ's files keep the head dense";
    if (scheme.group_size == QuantizationScheme::kWholeMatrix) return "strategy tensor is not for the head";
    return {};
  }

  void resolve_head() {
    const std::string& name = spec_.head_name;
    const std::string* by_name = ignore_.find(name, kLinearClasses);
    // Recipes say lm_head whatever the file begins the name with.
    const std::string* by_word = ignore_.find(last_word(name), {});
    for (NameList& names : named_) names.find(name, kLinearClasses);
    const auto match = targets_.find(name, kLinearClasses);
    if (match) winners_.emplace(match->target);
    if (by_name != nullptr || by_word != nullptr) {
      result_.dense.push_back(
          {name, fmt::format("ignore: \"{}\"", by_name != nullptr ? *by_name : *by_word)});
      return;
    }
    if (!match) {
      result_.dense.push_back({name, "no target matches it"});
      return;
    }
    const SchemeGroup& group = result_.groups[match->entry];
    if (const std::string_view reason = dense_head_reason(group.scheme); !reason.empty()) {
      // A class was hardly meant to take in the head.
      const bool by_class = std::ranges::find(kLinearClasses, match->target) != std::end(kLinearClasses);
      if (!by_class) refuse_target(*match, name, reason);
      result_.warnings.push_back(fmt::format("{} is not ignored, but {}", name, reason));
      result_.dense.push_back({name, std::string(reason)});
      return;
    }
    if (spec_.tie_word_embeddings) {
      result_.warnings.push_back(fmt::format(
          "{} becomes integers and no longer shares the embedding's tensor; ignore it to keep them one",
          name));
    }
    result_.head = rounding_of(match->entry);
    result_.planned_head = PlannedLinear{.name = name,
                                         .out_features = spec_.vocab_size,
                                         .in_features = spec_.hidden_size,
                                         .scheme = group.scheme,
                                         .observer = result_.head->observer,
                                         .group = group.name,
                                         .target = std::string(match->target)};
    ++linears_of_group_[match->entry];
    ++result_.quantized_linears;
  }

  /// Embeddings are looked up, not multiplied: nothing here reads them as integers.
  void refuse_embedding() {
    const std::string name = module_name(spec_.embedding_name);
    const bool ignored = ignore_.find(name, {}) != nullptr;
    for (NameList& names : named_) names.find(name, {});
    const auto match = targets_.find(name, {});
    if (match && !ignored) refuse_target(*match, name, "embeddings always stay dense");
  }

  [[noreturn]] void refuse_target(const TargetList::Match& match, const std::string& name,
                                  std::string_view reason) const {
    fail(ErrorKind::unsupported, "{}: the target \"{}\" includes {}, but {}; add \"{}\" to ignore",
         groups_[match.entry].name, match.target, name, reason, name);
  }

  void check_groups() const {
    if (result_.quantized_linears == 0) {
      fail(ErrorKind::invalid_argument,
           "nothing is left to quantize: every linear that the targets match is ignored or a router, as {} "
           "({})",
           result_.dense.front().name, result_.dense.front().reason);
    }
    for (size_t i = 0; i < groups_.size(); ++i) {
      if (linears_of_group_[i] == 0) {
        fail(ErrorKind::invalid_argument, "{}: gets no linear: {}", groups_[i].name,
             lost_.contains(groups_[i].name)
                 ? lost_.at(groups_[i].name) + ", which is more specific or first in the alphabet"
                 : "all that its targets match are ignored, or are routers");
      }
      check_group_size(result_.groups[i]);
    }
  }

  void check_group_size(const SchemeGroup& group) const {
    if (group.scheme.group_size <= 0) return;
    std::vector<const PlannedLinear*> own;
    std::vector<const PlannedLinear*> misfits;
    for (const auto& layer : result_.planned) {
      for (const PlannedLinear& linear : layer) {
        if (linear.group == group.name) own.push_back(&linear);
      }
    }
    if (result_.planned_head && result_.planned_head->group == group.name)
      own.push_back(&*result_.planned_head);
    std::ranges::copy_if(own, std::back_inserter(misfits), [&](const PlannedLinear* linear) {
      return linear->in_features % group.scheme.group_size != 0;
    });
    if (misfits.empty()) return;
    fail(ErrorKind::invalid_argument,
         "group size {} does not divide the columns of {} linears: {}; group sizes that fit: {}; or leave "
         "these linears "
         "dense with ignore",
         group.scheme.group_size, misfits.size(), list_misfits(misfits),
         fmt::join(fitting_group_sizes(own), ", "));
  }

  void check_awq() {
    const auto& awq = options_.recipe.awq;
    for (const ConfigGroup& group : groups_) {
      if (group.weights.actorder != ActivationOrder::weight) continue;
      if (awq && awq->rounding != Rounding::nearest) continue;
      fail(ErrorKind::invalid_argument,
           "{}: actorder is the order of compensated rounding, but the rounding is {}", group.name,
           awq ? "nearest" : "to nearest without AWQ");
    }
    if (!awq) return;
    if (awq->n_grid < 2 || awq->n_grid > 1000) {
      fail(ErrorKind::invalid_argument, "n_grid: {} is outside [2, 1000]", awq->n_grid);
    }
    result_.mappings = mappings_of_layers();
    for (size_t layer = 0; layer < result_.mappings.size(); ++layer) {
      // Scales serve what is rounded behind them.
      std::erase_if(result_.mappings[layer], [&](const ResolvedMapping& mapping) {
        return std::ranges::none_of(mapping.balance,
                                    [&](const LinearId& id) { return result_.linears[layer].contains(id); });
      });
    }
    if (awq->duo_scaling != DuoScaling::off) check_duo_scaling();
  }

  std::vector<std::vector<ResolvedMapping>> mappings_of_layers() const {
    if (const auto* named = named_mappings(options_, spec_.architecture))
      return resolve_mappings(spec_, *named);
    std::vector<std::vector<ResolvedMapping>> mappings;
    for (int64_t layer = 0; layer < spec_.layers; ++layer) mappings.push_back(default_mappings(spec_, layer));
    return mappings;
  }

  /// One scale for the whole matrix has no group to take mean|w| relative to.
  void check_duo_scaling() const {
    for (size_t layer = 0; layer < result_.mappings.size(); ++layer) {
      for (const ResolvedMapping& mapping : result_.mappings[layer]) {
        for (const LinearId& id : mapping.balance) {
          const auto found = result_.linears[layer].find(id);
          if (found == result_.linears[layer].end()) continue;
          if (found->second.scheme.group_size != QuantizationScheme::kWholeMatrix) continue;
          fail(ErrorKind::invalid_argument,
               "duo_scaling: needs groups or channels, but {} has the strategy tensor; set duo_scaling to "
               "false, or "
               "choose strategy group or channel",
               spec_.linear_name(static_cast<int64_t>(layer), id));
        }
      }
    }
  }

  void check_format() const {
    if (options_.integer_format() != Format::autoawq_gemm) return;
    const QuantizationScheme& first = result_.groups.front().scheme;
    for (const SchemeGroup& group : result_.groups) {
      if (group.scheme != first) {
        fail(ErrorKind::invalid_argument,
             "{}: autoawq-gemm has one scheme for all linears, and {} is not {}; write "
             "pack-quantized for several",
             group.name, describe(group.scheme), describe(first));
      }
    }
    if (first.num_bits != 4 || first.group_size == QuantizationScheme::kWholeMatrix) {
      fail(ErrorKind::invalid_argument,
           "autoawq-gemm holds 4-bit codes by group or channel only, not {}; write "
           "pack-quantized",
           describe(first));
    }
    for (const auto& layer : result_.planned) {
      for (const PlannedLinear& linear : layer) {
        if (linear.out_features % 8 != 0) {
          fail(ErrorKind::unsupported,
               "{}: autoawq-gemm packs 8 output rows into a word and {} is no multiple of 8", linear.name,
               linear.out_features);
        }
      }
    }
  }

  void warn_of_conv() {
    if (spec_.storage != LinearStorage::transposed) return;
    result_.warnings.push_back(
        fmt::format("{} keeps its linears as Conv1D, which compressed-tensors and AutoAWQ do not quantize: "
                    "the result is read by "
                    "Salient only",
                    spec_.architecture));
  }

  /// vLLM runs q, k and v as one matrix, gate and up as another, and all experts of a layer: it refuses a
  /// file in which their schemes differ.
  void warn_of_fused_sets() {
    for (const auto& set : fused_sets()) {
      std::vector<int64_t> layers;
      for (int64_t layer = 0; layer < spec_.layers; ++layer) {
        if (schemes_of(layer, set).size() > 1) layers.push_back(layer);
      }
      if (layers.empty()) continue;
      std::set<std::string> names;
      for (const LinearSlot& slot : spec_.linears(layers.front())) {
        if (std::ranges::find(set, slot.id.role) != set.end()) {
          names.insert(last_word(spec_.linear_name(layers.front(), slot.id)));
        }
      }
      result_.warnings.push_back(fmt::format(
          "{} differ in {} layers, the first being {} ({}); vLLM runs them as one matrix and refuses such a "
          "file",
          fmt::join(names, ", "), layers.size(), layers.front(),
          fmt::join(schemes_of(layers.front(), set), " and ")));
    }
  }

  /// vLLM has kernels for symmetric codes of 2 to 8 bits, with zeros for 4 and 8 only.
  void warn_of_widths() {
    for (const SchemeGroup& group : result_.groups) {
      const QuantizationScheme& scheme = group.scheme;
      if (scheme.symmetric || scheme.num_bits == 4 || scheme.num_bits == 8) continue;
      result_.warnings.push_back(fmt::format(
          "{}: vLLM loads asymmetric codes of 4 and 8 bits only, not {}; transformers and Salient do",
          group.name, describe(scheme)));
    }
  }

  std::set<std::string> schemes_of(int64_t layer, const std::vector<LinearRole>& roles) const {
    const auto& linears = result_.linears[static_cast<size_t>(layer)];
    std::set<std::string> schemes;
    for (const LinearSlot& slot : spec_.linears(layer)) {
      if (std::ranges::find(roles, slot.id.role) == roles.end()) continue;
      const auto found = linears.find(slot.id);
      schemes.insert(found == linears.end() ? "dense" : describe(found->second.scheme));
    }
    return schemes;
  }

  const OneshotOptions& options_;
  const DecoderSpec& spec_;
  std::span<const std::string> foreign_;
  std::vector<ConfigGroup> groups_;
  TargetList targets_;
  NameList ignore_;
  std::vector<NameList> named_;  // the targets of each group, to see whether all are used
  std::vector<int64_t> linears_of_group_;
  std::set<std::string, std::less<>> winners_;  // targets that chose a linear
  std::map<std::string, std::string> lost_;     // group -> a linear that it did not get, and who did
  ResolvedRecipe result_;
};

}  // namespace

const std::vector<std::vector<LinearRole>>& fused_sets() {
  using enum LinearRole;
  static const std::vector<std::vector<LinearRole>> sets{
      {q, k, v}, {gate, up}, {shared_gate, shared_up}, {q_a, kv_a}, {expert_gate, expert_up, expert_down}};
  return sets;
}

const std::vector<AwqMapping>* named_mappings(const OneshotOptions& options,
                                              const std::string& architecture) {
  if (options.recipe.awq->mappings) return &*options.recipe.awq->mappings;
  const auto registered = options.mapping_registry.find(architecture);
  return registered == options.mapping_registry.end() ? nullptr : &registered->second;
}

ResolvedRecipe resolve_recipe(const OneshotOptions& options, const DecoderSpec& spec,
                              std::span<const std::string> foreign) {
  const auto resolve = [&] { return Resolver(options, spec, foreign).run(); };
  return options.recipe_source.empty() ? resolve() : with_context(options.recipe_source, resolve);
}

}  // namespace salient
