#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace salient {

/// Which formula proposes the smoothing scales (awq.md names it as both incumbents do).
enum class DuoScaling {
  off,   ///< mean|x|^r
  on,    ///< mean|x|^r / mean|w|^(1-r)
  both,  ///< half of the grid each
};

enum class ClipSearch { off, on };

/// How weights become codes once scales and zeros are chosen.
enum class Rounding {
  nearest,      ///< each on its own, as both incumbents do
  compensated,  ///< each making up for the errors of the columns before it (GPTQ)
};

/// Activation-aware weight quantization (Lin et al. 2023, section 3): scales every input channel of a linear
/// up and the layer before it down, so that the weights that matter most are rounded least.
struct AwqModifier {
  DuoScaling duo_scaling = DuoScaling::on;
  /// Candidate exponents per mapping; the identity is always one of them.
  int n_grid = 20;
  /// Search the largest weight of each group as well (AutoAWQ's apply_clip).
  ClipSearch clip = ClipSearch::on;
  Rounding rounding = Rounding::compensated;
};

/// Which linears become integers, and how.
struct QuantizationModifier {
  std::string scheme = "W4A16_ASYM";
  /// Replaces the scheme's group size; -1: one scale for a whole output row.
  std::optional<int64_t> group_size;
  /// Linears that stay dense, as compressed-tensors resolves them: full names ("lm_head",
  /// "model.layers.0.mlp.down_proj") or "re:" patterns matched from the start ("re:.*v_proj$").
  std::vector<std::string> ignore = {"lm_head"};
};

/// What to do to a model: AWQ before the rounding, or rounding to nearest alone.
struct Recipe {
  std::optional<AwqModifier> awq = AwqModifier{};
  QuantizationModifier quantization;
};

}  // namespace salient
