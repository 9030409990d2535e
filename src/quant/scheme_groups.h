#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/name_pattern.h"
#include "salient/scheme.h"

namespace salient {

/// Finds a module among targets. Of several that match, the most specific one counts, as compressed-tensors
/// 0.19 has it: the module's own name, then patterns in alphabetical order, then a class name.
class TargetList {
 public:
  /// `targets[i]` belong to entry i. A target that stands in several entries belongs to the last. Errors:
  /// invalid_argument for a broken pattern.
  explicit TargetList(std::span<const std::vector<std::string>> targets);

  struct Match {
    size_t entry;
    std::string_view target;
  };
  /// Nothing when no target matches. `classes`: the names that the module's class goes by.
  std::optional<Match> find(std::string_view name, std::span<const std::string_view> classes) const;

 private:
  struct Target {
    NamePattern pattern;
    size_t entry;
  };
  std::vector<Target> targets_;  // in the order in which they are tried by name
};

/// What a linear's class goes by. Conv1D is GPT-2's, the same thing stored the other way round; recipes that
/// say Linear mean it too, and Salient writes it as one.
inline constexpr std::string_view kLinearClasses[] = {"Linear"};
inline constexpr std::string_view kConvClasses[] = {"Conv1D", "Linear"};

}  // namespace salient
