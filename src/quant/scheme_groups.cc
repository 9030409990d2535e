#include "quant/scheme_groups.h"

#include <algorithm>

namespace salient {

TargetList::TargetList(std::span<const std::vector<std::string>> targets) {
  for (size_t entry = 0; entry < targets.size(); ++entry) {
    for (const std::string& text : targets[entry]) {
      std::erase_if(targets_, [&](const Target& target) { return target.pattern.text() == text; });
      targets_.push_back({NamePattern(text), entry});
    }
  }
  const auto rank = [](const Target& target) {
    return std::pair(target.pattern.is_regex(), std::string_view(target.pattern.text()));
  };
  std::sort(targets_.begin(), targets_.end(),
            [&](const Target& a, const Target& b) { return rank(a) < rank(b); });
}

std::optional<TargetList::Match> TargetList::find(std::string_view name,
                                                  std::span<const std::string_view> classes) const {
  for (const auto& [pattern, entry] : targets_) {
    if (pattern.matches(name)) return Match{entry, pattern.text()};
  }
  for (const auto& [pattern, entry] : targets_) {
    if (std::find(classes.begin(), classes.end(), pattern.text()) != classes.end()) {
      return Match{entry, pattern.text()};
    }
  }
  return std::nullopt;
}

}  // namespace salient
