#include "recipe/schemes.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/error.h"
#include "quant/scheme.h"

namespace salient {
namespace {

constexpr std::string_view kDefaultPreset = "W4A16_ASYM";

QuantizationStrategy strategy_of(const QuantizationArgs& args) {
  if (args.strategy) return *args.strategy;
  if (!args.group_size) return QuantizationStrategy::tensor;
  return *args.group_size == -1 ? QuantizationStrategy::channel : QuantizationStrategy::group;
}

/// In-features that share a scale, as QuantizationScheme has it.
int64_t group_size_of(const QuantizationArgs& args) {
  const int64_t size = args.group_size.value_or(-1);
  switch (strategy_of(args)) {
    case QuantizationStrategy::group:
      if (size <= 0) fail(ErrorKind::invalid_argument, "strategy group needs a group_size above 0");
      return size;
    case QuantizationStrategy::channel:
      if (size > 0 || size < -1 || args.group_size == 0)
        fail(ErrorKind::invalid_argument, "group_size {} contradicts strategy channel", size);
      return QuantizationScheme::kWholeRow;
    case QuantizationStrategy::tensor:
      if (args.group_size)
        fail(ErrorKind::invalid_argument, "group_size {} contradicts strategy tensor", size);
      return QuantizationScheme::kWholeMatrix;
    case QuantizationStrategy::block:
      fail(ErrorKind::unsupported,
           "strategy block is not supported; weights are stored by group, channel or tensor");
    case QuantizationStrategy::token:
      fail(ErrorKind::unsupported, "strategy token is for activations, which Salient does not quantize");
  }
  return size;
}

void check_observer(const ObserverSettings& settings) {
  const auto require = [](bool good, std::string_view key, double value, std::string_view range) {
    if (!good)
      fail(ErrorKind::invalid_argument, "observer_kwargs: {} is {}; it must be {}", key, value, range);
  };
  require(settings.maxshrink > 0 && settings.maxshrink < 1, "maxshrink", settings.maxshrink,
          "between 0 and 1");
  require(settings.grid >= 1 && settings.grid <= 1000, "grid", settings.grid, "1 to 1000");
  require(settings.norm > 0 && settings.norm <= 16, "norm", settings.norm, "above 0, at most 16");
  require(settings.patience >= 1, "patience", settings.patience, "at least 1");
}

}  // namespace

QuantizationScheme scheme_of(const QuantizationArgs& args) {
  if (args.type == QuantizationType::floating) {
    fail(ErrorKind::unsupported, "type float is not supported; Salient stores weights as integers");
  }
  if (args.dynamic) {
    fail(ErrorKind::unsupported, "dynamic true is for activations; the scales of weights are static");
  }
  if (args.observer == Observer::mse) {
    check_observer(args.observer_kwargs);
    if (strategy_of(args) == QuantizationStrategy::tensor) {
      fail(ErrorKind::unsupported,
           "observer mse searches group by group, which strategy tensor does not have");
    }
  }
  const QuantizationScheme scheme{
      .num_bits = args.num_bits, .symmetric = args.symmetric, .group_size = group_size_of(args)};
  validate(scheme);
  return scheme;
}

QuantizationArgs args_of(const QuantizationScheme& scheme) {
  QuantizationArgs args{.num_bits = scheme.num_bits, .symmetric = scheme.symmetric};
  if (scheme.group_size > 0) args.group_size = scheme.group_size;
  args.strategy = scheme.group_size > 0                                ? QuantizationStrategy::group
                  : scheme.group_size == QuantizationScheme::kWholeRow ? QuantizationStrategy::channel
                                                                       : QuantizationStrategy::tensor;
  return args;
}

bool has_clip_search(const QuantizationModifier& modifier) {
  const auto& groups = modifier.config_groups;
  return groups.empty() || std::ranges::any_of(groups, [](const ConfigGroup& group) {
           return group.weights.observer == Observer::automatic;
         });
}

std::vector<ConfigGroup> config_groups_of(const QuantizationModifier& modifier) {
  if (modifier.config_groups.empty()) {
    QuantizationScheme scheme = scheme_by_name(modifier.scheme.empty() ? kDefaultPreset : modifier.scheme);
    if (modifier.group_size) scheme.group_size = *modifier.group_size;
    if (scheme.group_size == 0)
      fail(ErrorKind::invalid_argument,
           "group_size is 0; it must be 16, 32, 64, 128, 256 or -1 (the whole row)");
    validate(scheme);
    return {{.name = "group_0", .targets = modifier.targets, .weights = args_of(scheme)}};
  }
  if (!modifier.scheme.empty() || modifier.group_size) {
    fail(ErrorKind::invalid_argument, "config_groups stands beside {}; one of them says how to quantize",
         modifier.scheme.empty() ? "group_size" : "scheme");
  }
  std::map<std::string, std::string> group_of;
  std::set<std::string> names;
  for (const ConfigGroup& group : modifier.config_groups) {
    if (!names.insert(group.name).second) {
      fail(ErrorKind::invalid_argument, "config_groups: \"{}\" stands twice", group.name);
    }
    with_context(fmt::format("config_groups.{}", group.name), [&] {
      scheme_of(group.weights);
      if (group.targets.empty()) fail(ErrorKind::invalid_argument, "targets is empty");
      for (const std::string& target : group.targets) {
        const auto [other, is_new] = group_of.emplace(target, group.name);
        if (!is_new)
          fail(ErrorKind::invalid_argument, "the target \"{}\" stands in {} too", target, other->second);
      }
    });
  }
  return modifier.config_groups;
}

}  // namespace salient
