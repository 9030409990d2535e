#include "recipe/bit_choice.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "awq/width_errors.h"
#include "base/error.h"
#include "base/process.h"
#include "recipe/schemes.h"

namespace salient {
namespace {

/// Bits of the codes, scales and zeros of a linear [out, in].
int64_t stored_bits(const QuantizationScheme& scheme, const LinearSlot& slot, DType scale_dtype) {
  const bool one_grid = scheme.group_size == QuantizationScheme::kWholeMatrix;
  const int64_t grids = one_grid ? 1 : slot.out_features * group_count(scheme, slot.in_features);
  const int64_t zero = scheme.symmetric ? 0 : one_grid ? 8 : scheme.num_bits;
  return slot.out_features * slot.in_features * scheme.num_bits +
         grids * (static_cast<int64_t>(byte_size(scale_dtype)) * 8 + zero);
}

/// A linear of a unit, as it stands in the recipe that was asked for.
struct Member {
  int64_t layer;
  LinearId id;
  std::string name;
  std::string group;
};

/// Linears that must have the same number of bits.
struct Unit {
  std::vector<Member> members;
  int64_t elements = 0;
  BitUnit measured{};
};

/// Finds the units of a job, measures and chooses.
class BitChooser {
 public:
  BitChooser(const OneshotOptions& options, Job& job) : options_(options), job_(job) {
    for (int64_t layer = 0; layer < job.weights.spec().layers; ++layer) add_layer(layer);
  }

  /// The bits that all units may take together.
  int64_t checked_budget() const {
    const double target = *options_.target_bits;
    const auto count = static_cast<double>(elements());
    const double least = static_cast<double>(total_size(0)) / count;
    const double most = static_cast<double>(total_size(kBitWidths - 1)) / count;
    // In floating point a target that a scheme takes exactly may come out a bit short.
    constexpr double kSlack = 1e-9;
    if (target >= least - kSlack && target <= most + kSlack) {
      return static_cast<int64_t>(std::floor((target + kSlack) * count));
    }
    fail(ErrorKind::invalid_argument,
         "target_bits is {}; with {} to {} bits, scales and zeros counted, the linears of this recipe take "
         "{:.4f} "
         "to {:.4f} bits per weight",
         target, kLeastBits, kMostBits, least, most);
  }

  /// The groups that the choice comes to; the job knows the rest.
  QuantizationModifier run() {
    const int64_t budget = checked_budget();
    measure();
    std::vector<BitUnit> curves;
    for (const Unit& unit : units_) curves.push_back(unit.measured);
    bits_ = allocate_bits(curves, budget);
    job_.bits = report();
    return modifier();
  }

 private:
  // ---- units

  /// Parts of one stored matrix, and linears that loaders run as one.
  void add_layer(int64_t layer) {
    const DecoderSpec& spec = job_.weights.spec();
    const auto& linears = job_.resolved.linears[static_cast<size_t>(layer)];
    std::map<std::string, size_t> unit_of;
    for (const LinearSlot& slot : spec.linears(layer)) {
      const auto found = linears.find(slot.id);
      if (found == linears.end()) continue;
      const std::string name = spec.linear_name(layer, slot.id);
      const std::string set = set_of(slot.id.role);
      size_t unit = units_.size();
      if (const auto by_name = unit_of.find(name); by_name != unit_of.end()) {
        unit = by_name->second;
      } else if (const auto by_set = unit_of.find(set); !set.empty() && by_set != unit_of.end()) {
        unit = by_set->second;
      }
      unit_of.try_emplace(name, unit);
      if (!set.empty()) unit_of.try_emplace(set, unit);
      if (unit == units_.size()) units_.emplace_back();
      add_member(units_[unit], layer, slot, found->second.scheme);
    }
  }

  /// A name for the set of linears that a role belongs to; empty where it stands alone.
  static std::string set_of(LinearRole role) {
    const auto& sets = fused_sets();
    for (size_t i = 0; i < sets.size(); ++i) {
      if (std::ranges::find(sets[i], role) != sets[i].end()) return fmt::format("set {}", i);
    }
    return {};
  }

  void add_member(Unit& unit, int64_t layer, const LinearSlot& slot, QuantizationScheme scheme) const {
    const std::string name = job_.weights.spec().linear_name(layer, slot.id);
    unit.members.push_back({.layer = layer, .id = slot.id, .name = name, .group = group_of(layer, name)});
    unit.elements += slot.out_features * slot.in_features;
    for (size_t i = 0; i < kBitWidths; ++i) {
      scheme.num_bits = kLeastBits + static_cast<int>(i);
      unit.measured.size[i] += stored_bits(scheme, slot, job_.weights.storage_type(slot));
    }
  }

  std::string group_of(int64_t layer, const std::string& name) const {
    const auto& planned = job_.resolved.planned[static_cast<size_t>(layer)];
    return std::ranges::find(planned, name, &PlannedLinear::name)->group;
  }

  int64_t elements() const {
    int64_t sum = 0;
    for (const Unit& unit : units_) sum += unit.elements;
    return sum;
  }

  int64_t total_size(size_t width) const {
    int64_t sum = 0;
    for (const Unit& unit : units_) sum += unit.measured.size[width];
    return sum;
  }

  // ---- measuring

  void measure() {
    const int64_t layers = job_.weights.spec().layers;
    LayerStream stream({.backend = *job_.backend,
                        .weights = job_.weights,
                        .windows = job_.data.sequences,
                        .masks = job_.data.masks,
                        .cancelled = options_.cancelled});
    for (int64_t layer = 0; layer < layers; ++layer) {
      throw_if_cancelled(options_.cancelled);
      const LayerWeights original = job_.weights.layer(layer);
      measure_layer(layer, original, stream);
      job_.weights.release_layer(layer);
      return_free_memory();
      if (options_.on_measured) options_.on_measured(layer + 1, layers);
    }
  }

  LayerJob layer_job(int64_t layer) const {
    return {.backend = *job_.backend,
            .exact = *job_.exact,
            .spec = job_.weights.spec(),
            .layer = layer,
            .linears = job_.resolved.linears[static_cast<size_t>(layer)],
            .mappings = job_.resolved.mappings[static_cast<size_t>(layer)],
            .storage = storage_type(job_),
            .precision = job_.precision,
            .experts = options_.calibration.experts,
            .min_tokens_per_expert = options_.calibration.min_tokens_per_expert,
            .cancelled = options_.cancelled};
  }

  void measure_layer(int64_t layer, const LayerWeights& original, LayerStream& stream) {
    std::vector<Unit*> units;
    std::vector<std::vector<LinearId>> sets;
    for (Unit& unit : units_) {
      if (unit.members.front().layer != layer) continue;
      units.push_back(&unit);
      std::vector<LinearId>& set = sets.emplace_back();
      for (const Member& member : unit.members) set.push_back(member.id);
      // Expert by expert, as their inputs are made.
      std::ranges::stable_sort(set, {}, &LinearId::expert);
    }
    const std::vector<WidthErrors> errors = measure_widths(layer_job(layer), original, sets, stream);
    for (size_t i = 0; i < units.size(); ++i) units[i]->measured.error = errors[i];
  }

  // ---- the result

  ChosenBits report() const {
    ChosenBits result{.target_bits = *options_.target_bits, .mean_bits = 0, .units = {}};
    int64_t size = 0;
    for (size_t i = 0; i < units_.size(); ++i) {
      const Unit& unit = units_[i];
      size += unit.measured.size[static_cast<size_t>(bits_[i] - kLeastBits)];
      result.units.push_back({.linears = names_of(unit),
                              .elements = unit.elements,
                              .num_bits = bits_[i],
                              .errors = unit.measured.error});
    }
    result.mean_bits = static_cast<double>(size) / static_cast<double>(elements());
    return result;
  }

  /// Of a matrix with several linears the name stands once.
  static std::vector<std::string> names_of(const Unit& unit) {
    std::vector<std::string> names;
    for (const Member& member : unit.members) {
      if (names.empty() || names.back() != member.name) names.push_back(member.name);
    }
    return names;
  }

  QuantizationModifier modifier() const {
    QuantizationModifier result;
    result.ignore = options_.recipe.quantization.ignore;
    for (const ConfigGroup& group : config_groups_of(options_.recipe.quantization)) {
      for (int bits = kLeastBits; bits <= kMostBits; ++bits) {
        std::vector<std::string> targets = targets_of(group, bits);
        if (targets.empty()) continue;
        ConfigGroup& chosen = result.config_groups.emplace_back(group);
        chosen.name = fmt::format("{}_{}_bits", group.name, bits);
        chosen.targets = std::move(targets);
        chosen.weights.num_bits = bits;
      }
    }
    return result;
  }

  /// The linears of a group that get so many bits; the head keeps what its group says.
  std::vector<std::string> targets_of(const ConfigGroup& group, int bits) const {
    std::vector<std::string> targets;
    for (size_t i = 0; i < units_.size(); ++i) {
      if (bits_[i] != bits) continue;
      for (const Member& member : units_[i].members) {
        if (member.group != group.name) continue;
        std::string target = target_of(units_[i], member);
        if (std::ranges::find(targets, target) == targets.end()) targets.push_back(std::move(target));
      }
    }
    const auto& head = job_.resolved.planned_head;
    if (head && head->group == group.name && head->scheme.num_bits == bits) targets.push_back(head->name);
    return targets;
  }

  /// The name of a linear, or, where all experts of a layer have one group, a pattern for them: loaders try
  /// every target on every module.
  std::string target_of(const Unit& unit, const Member& member) const {
    if (!is_expert(member.id.role)) return member.name;
    const auto alike = std::ranges::count_if(unit.members, [&](const Member& other) {
      return other.id.role == member.id.role && other.group == member.group;
    });
    if (alike != job_.weights.spec().moe->experts) return member.name;
    const std::string number = fmt::format(".{}.", member.id.expert);
    const size_t at = member.name.rfind(number);
    return fmt::format("re:{}\\.\\d+\\.{}$", escaped(member.name.substr(0, at)),
                       escaped(member.name.substr(at + number.size())));
  }

  static std::string escaped(std::string_view name) {
    std::string result;
    for (const char c : name) {
      if (c == '.') result += '\\';
      result += c;
    }
    return result;
  }

  const OneshotOptions& options_;
  Job& job_;
  std::vector<Unit> units_;
  std::vector<int> bits_;
};

}  // namespace

void check_bit_choice(const OneshotOptions& options, Job& job) {
  if (options.target_bits) BitChooser(options, job).checked_budget();
}

OneshotOptions choose_bits(const OneshotOptions& options, Job& job) {
  OneshotOptions applied = options;
  if (!options.target_bits) return applied;
  applied.recipe.quantization = BitChooser(options, job).run();
  job.resolved = resolve_recipe(applied, job.weights.spec(), job.foreign);
  return applied;
}

}  // namespace salient
