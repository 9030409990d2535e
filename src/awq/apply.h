#pragma once

#include <span>

#include "awq/mapping.h"
#include "calibrate/activation_statistics.h"
#include "model/weights.h"

namespace salient {

/// The tensors of a layer as owned f32 copies, to be changed by the smoothing.
LayerWeights to_f32(const LayerWeights& weights);

/// A floating tensor in the type in which it is written; the same memory when that is its own. Errors:
/// unsupported when a finite value leaves that type's range.
Tensor store_as(const std::string& name, const Tensor& tensor, DType dtype);

/// Changes `scales` [channels] into those that the smooth layer can carry exactly: a norm is stored in
/// `stored`, so the wanted s becomes w / round(w / s); a linear that will be rounded to integers anyway
/// carries any s, a dense one the nearest power of two (the only factors that its stored type takes without
/// rounding).
struct SmoothStorage {
  DType stored;           ///< type in which the smooth layer's tensor is written
  bool smooth_quantized;  ///< a linear that becomes integers
};
void make_representable(const LayerWeights& weights, const ResolvedMapping& mapping,
                        const SmoothStorage& storage, std::span<float> scales);

/// Divides the smooth layer's channels by `scales` and multiplies the balance layers' columns. All in place,
/// f32.
void apply_scales(const DecoderSpec& spec, const ResolvedMapping& mapping, std::span<const float> scales,
                  LayerWeights& weights);

/// `gram` of x / s, from the Gram matrix of x: G[i, j] / (s_i s_j). column_scales: [in].
Tensor scaled_gram(const Tensor& gram, std::span<const float> column_scales);

}  // namespace salient
