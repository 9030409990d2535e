#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace salient {

/// Which formula proposes the smoothing scales.
enum class DuoScaling {
  off,   ///< mean|x|^r
  on,    ///< mean|x|^r / mean|w|^(1-r)
  both,  ///< half of the grid each
};

enum class ClipSearch { off, on };

/// By which error the search judges candidate scales.
enum class Objective {
  linear_output,  ///< of the outputs of the linears behind the scale, through their Gram matrix
  block_output,  ///< of what the attention or the MLP that they belong to adds to the hidden states, with the
                 ///< tokens run through it for every candidate (what both incumbents do; many times slower)
};

/// How weights become codes once scales and zeros are chosen.
enum class Rounding {
  nearest,      ///< each on its own, as both incumbents do
  compensated,  ///< each making up for the errors of the columns before it (GPTQ)
  matched,      ///< the same, and linear after linear makes up for what its input lost by the rounding of all
                ///< before it (GPTAQ); needs Propagation::quantized and two more passes
};

/// A smoothing as users write it: the output channels of `smooth_layer` are divided by scales, the input
/// columns of all `balance_layers` multiplied by them. Entries are module names or "re:" patterns that must
/// match from the start of a name; they are resolved decoder layer by decoder layer. A mapping must name
/// every linear that reads the smoothed tensor.
struct AwqMapping {
  std::string smooth_layer;
  std::vector<std::string> balance_layers;
  /// A module below the common parent of the balance layers whose input is measured instead of that of the
  /// first balance layer; empty: that one.
  std::string activation_hook_target{};

  bool operator==(const AwqMapping&) const = default;
};

/// Activation-aware weight quantization (Lin et al. 2023, section 3): scales every input channel of a linear
/// up and the layer before it down, so that the weights that matter most are rounded least.
struct AwqModifier {
  /// Absent: those that the data flow of the model allows.
  std::optional<std::vector<AwqMapping>> mappings;
  DuoScaling duo_scaling = DuoScaling::on;
  /// Candidate exponents per mapping; the identity is always one of them.
  int n_grid = 20;
  Objective objective = Objective::linear_output;
  /// Search the largest weight of each group as well (AutoAWQ's apply_clip). A linear whose
  /// QuantizationArgs name an observer follows that instead.
  ClipSearch clip = ClipSearch::on;
  /// Absent: what OneshotOptions::effort says. Not for OneshotResult::scaled.
  std::optional<Rounding> rounding{};
  /// Sweeps over scales and codes behind compensated or matched rounding, at most 16. Absent: what
  /// OneshotOptions::effort says; 0 with Rounding::nearest. Not for OneshotResult::scaled.
  std::optional<int> sweeps{};
};

enum class QuantizationType { integer, floating };

/// Which weights share a scale.
enum class QuantizationStrategy { tensor, channel, group, block, token };

/// How the range of a group is found.
enum class Observer {
  automatic,  ///< not named: the clip search of AwqModifier, or minmax
  minmax,     ///< from the smallest to the largest weight
  mse,        ///< shrunk until the rounding error of the weights is least
};

/// In which order compensated rounding takes the columns. Files are the same either way.
enum class ActivationOrder {
  automatic,  ///< not named: weight where the rounding is compensated
  none,       ///< as they are stored
  weight,     ///< those with the strongest inputs first (GPTQ's act-order; also called static)
};

/// Settings of Observer::mse: candidates are max|w| (1 - i / grid) for i / grid up to maxshrink, the error is
/// the sum of |error|^norm, and `patience` candidates without improvement end the search.
struct ObserverSettings {
  double maxshrink = 0.20;
  double grid = 100;
  double norm = 2.4;
  int patience = 5;

  bool operator==(const ObserverSettings&) const = default;
};

/// How weights are stored: names and defaults of compressed-tensors' QuantizationArgs.
struct QuantizationArgs {
  int num_bits = 8;
  QuantizationType type = QuantizationType::integer;
  bool symmetric = true;
  std::optional<int64_t> group_size{};
  /// Absent: it follows from group_size (above 0 group, -1 channel, none tensor).
  std::optional<QuantizationStrategy> strategy{};
  bool dynamic = false;
  ActivationOrder actorder = ActivationOrder::automatic;
  Observer observer = Observer::automatic;
  ObserverSettings observer_kwargs{};
};

/// An entry of config_groups (compressed-tensors' QuantizationScheme).
struct ConfigGroup {
  std::string name;  ///< "group_0"
  /// Full names, "re:" patterns or the class name Linear. A linear that several groups match belongs to the
  /// one with the most specific target: its name, then a pattern, then its class.
  std::vector<std::string> targets = {"Linear"};
  QuantizationArgs weights{};
};

/// Which linears become integers, and how.
struct QuantizationModifier {
  /// A preset for all targets: W2A16 to W8A16 or W4A16_ASYM. Empty: W4A16_ASYM, unless there are
  /// config_groups.
  std::string scheme{};
  /// Replaces the preset's group size; -1: one scale for a whole output row.
  std::optional<int64_t> group_size{};
  std::vector<std::string> targets = {"Linear"};
  std::vector<ConfigGroup> config_groups{};
  /// Modules that stay dense, written as targets are.
  std::vector<std::string> ignore = {"lm_head"};
};

/// What to do to a model: AWQ before the rounding, or rounding to nearest alone.
struct Recipe {
  std::optional<AwqModifier> awq = AwqModifier{};
  QuantizationModifier quantization{};
};

}  // namespace salient
