#include "recipe/effort.h"

#include <vector>

#include "base/error.h"
#include "recipe/recipe_fields.h"

namespace salient {
namespace {

struct EffortSettings {
  Rounding rounding;
  Propagation propagation;
  int sweeps;
};

/// Measured in docs/measurements.md.
EffortSettings settings_of(Effort effort) {
  switch (effort) {
    case Effort::fast:
      return {Rounding::nearest, Propagation::original, 0};
    case Effort::standard:
      return {Rounding::compensated, Propagation::quantized, 0};
    case Effort::best:
      return {Rounding::matched, Propagation::quantized, 2};
  }
  return {};
}

std::string_view word_of(Effort effort) { return kEffortWords[static_cast<size_t>(effort)]; }

/// `name`: what was said, "--effort best".
void require_choice(const std::string& name, const OneshotOptions& options) {
  if (!options.recipe.awq) {
    fail(ErrorKind::invalid_argument, "{} is for AWQ; rounding to nearest without it knows one way only",
         name);
  }
  if (options.result == OneshotResult::scaled) {
    fail(ErrorKind::invalid_argument,
         "{} is for integers, but the result is scaled: every weight stays dense; leave one of the two out",
         name);
  }
}

}  // namespace

OneshotOptions settled(OneshotOptions options) {
  const EffortSettings settings = settings_of(options.effort);
  auto& awq = options.recipe.awq;
  if (awq && options.result == OneshotResult::quantized) {
    if (!awq->rounding) awq->rounding = settings.rounding;
    if (!awq->sweeps) awq->sweeps = awq->rounding == Rounding::nearest ? 0 : settings.sweeps;
  }
  if (!options.calibration.propagation) options.calibration.propagation = settings.propagation;
  return options;
}

void check_effort(const OneshotOptions& options) {
  if (options.effort == Effort::standard) return;
  require_choice(fmt::format("effort {}", word_of(options.effort)), options);
}

void take_effort(std::string_view flag, Effort effort, OneshotOptions& options) {
  const std::string name = fmt::format("{} {}", flag, word_of(effort));
  require_choice(name, options);
  std::vector<std::string_view> named;
  if (options.recipe.awq->rounding) named.emplace_back("rounding");
  if (options.calibration.propagation) named.emplace_back("propagate_error");
  if (options.recipe.awq->sweeps) named.emplace_back("sweeps");
  if (!named.empty()) {
    fail(ErrorKind::invalid_argument,
         "{} stands beside {}, which names {} itself; leave {} out, or take {} out of the recipe", name,
         options.recipe_source.empty() ? "a recipe" : options.recipe_source, fmt::join(named, " and "), flag,
         named.size() == 1   ? "that"
         : named.size() == 2 ? "both"
                             : "all of them");
  }
  options.effort = effort;
}

}  // namespace salient
