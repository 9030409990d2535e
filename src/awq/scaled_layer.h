#pragma once

#include <array>
#include <span>
#include <vector>

#include "awq/mapping.h"
#include "runtime/layer.h"

namespace salient {

/// A decoder layer with the scales of its mappings: what it computes stays the same. Linears are kept as they
/// are stored, with a scale per column and row, and made when asked for: of a layer with hundreds of experts,
/// only those that are worked on need room as f32.
class ScaledLayer {
 public:
  /// `original` must outlive this.
  ScaledLayer(const DecoderSpec& spec, const LayerWeights& original);

  /// Divides the output channels of the mapping's smooth layer by `scales` and multiplies the input columns
  /// of its balance layers. `scales`: one per channel of the smooth layer, see smooth_channel.
  void apply(const ResolvedMapping& mapping, std::span<const float> scales);

  /// f32 [out, in], a new tensor.
  Tensor weight(const LinearId& id) const;
  /// f32 [out], or undefined.
  Tensor bias(const LinearId& id) const;
  /// f32.
  const NormWeight& norm(NormRole role) const { return norms_[static_cast<size_t>(role)]; }
  /// What each input column has been multiplied by, [in]; empty for a linear that no mapping balances.
  std::span<const float> column_scales(const LinearId& id) const;
  /// What each output row has been divided by, [out]; empty for a linear that smooths no other.
  std::span<const float> row_scales(const LinearId& id) const;

  /// The layer ready to run: each linear is prepared when it is used and forgotten behind that. Uses this
  /// layer as long as it lives.
  PreparedLayer prepare(Backend& backend) const;

 private:
  const DecoderSpec& spec_;
  const LayerWeights& original_;
  std::array<NormWeight, kNormRoles> norms_;
  PerLinear<std::vector<float>> column_scales_;
  PerLinear<std::vector<float>> row_scales_;  // what each output row has been divided by
};

}  // namespace salient
