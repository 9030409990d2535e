#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "base/cancellation.h"
#include "calibrate/activation_statistics.h"
#include "quant/group_quantize.h"
#include "salient/recipe.h"

namespace salient {

/// A linear behind a smooth layer.
struct BalanceLayer {
  /// f32 [out, in]. Asked for anew in every pass: the linears of hundreds of experts need not be there at
  /// once.
  std::function<Tensor()> weight;
  /// A linear that stays dense is scaled too but has no rounding error.
  std::optional<RoundingRule> rounding;
};

struct ScaleSearchProblem {
  Backend& backend;
  std::span<const BalanceLayer> layers;
  const ActivationStatistics& input;
  /// Which entries of a scale vector are one number: channel_of[column] in [0, channels).
  std::span<const int64_t> channel_of;
  int64_t channels;
  /// Turns wanted scales [channels] into those that the smooth layer can really carry once it is stored in
  /// its own type.
  std::function<void(std::span<float> scales)> make_representable;
  DuoScaling duo_scaling = DuoScaling::on;
  int n_grid = 20;
  MatmulPrecision precision = MatmulPrecision::f32;  ///< of the candidates' output errors
  /// In place of the output error of the linears: another for the given column scales [in].
  std::function<double(std::span<const float> column_scales)> loss{};
  const CancellationFlag* cancelled = nullptr;
};

struct ScaleSearchResult {
  std::vector<float> scales;  ///< [channels]; all ones when the identity won
  double loss_identity = 0;
  double loss = 0;
  double ratio = 0;
  bool duo = false;
  bool identity = true;
};

/// Searches the scale vector s that minimises the summed output error of Q(W s) / s over the balance layers
/// (Lin et al. 2023, eq. 4 and 5; the mean over tokens is taken through the Gram matrix, so the cost does not
/// depend on their number). Of linears with many rows every so many-th takes part. The identity is always a
/// candidate; one with a non-finite loss never wins.
ScaleSearchResult search_scales(const ScaleSearchProblem& problem);

}  // namespace salient
