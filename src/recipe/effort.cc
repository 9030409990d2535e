#include "recipe/effort.h"

namespace salient {
namespace {

struct EffortSettings {
  Rounding rounding;
  Propagation propagation;
};

/// Measured in docs/measurements.md.
EffortSettings settings_of(Effort effort) {
  switch (effort) {
    case Effort::fast:
      return {Rounding::nearest, Propagation::original};
    case Effort::standard:
      return {Rounding::compensated, Propagation::quantized};
    case Effort::best:
      return {Rounding::matched, Propagation::quantized};
  }
  return {};
}

}  // namespace

OneshotOptions settled(OneshotOptions options) {
  const EffortSettings settings = settings_of(options.effort);
  auto& awq = options.recipe.awq;
  if (awq && !awq->rounding && options.result == OneshotResult::quantized) awq->rounding = settings.rounding;
  if (!options.calibration.propagation) options.calibration.propagation = settings.propagation;
  return options;
}

}  // namespace salient
