#pragma once

#include "calibrate/layer_stream.h"
#include "model/weights.h"
#include "quant/group_quantize.h"
#include "salient/oneshot.h"

namespace salient {

/// How one decoder layer is to be quantized.
struct LayerJob {
  Backend& backend;  ///< for statistics and the search
  Backend& exact;    ///< f32 throughout, for the equivalence check
  const DecoderSpec& spec;
  int64_t layer;
  const PerLinear<QuantizationScheme>&
      schemes;  ///< of the linears that become integers; the others stay dense
  /// Type of everything that stays floating: scales, norms, biases, dense linears. Nothing: as each tensor is
  /// stored.
  std::optional<DType> storage;
  MatmulPrecision precision = MatmulPrecision::f32;
  Propagation propagation = Propagation::quantized;
  const CancellationFlag* cancelled = nullptr;
};

struct QuantizedLayer {
  LayerWeights weights;  ///< as they are to be written
  LayerReport report;
};

/// Rounds to nearest, without data.
QuantizedLayer round_layer(const LayerJob& job, const LayerWeights& original);

/// AWQ: statistics of the layer's inputs from `stream`, which is moved behind the layer; scale search and
/// smoothing per mapping; check that the layer still computes the same (internal error above 1e-3); clip
/// search; rounding.
QuantizedLayer quantize_layer(const LayerJob& job, const AwqModifier& settings, const LayerWeights& original,
                              LayerStream& stream);

/// Relative change of a layer's function: |changed - reference| / |reference - input| (Euclidean norms over
/// all entries), the denominator being what the layer adds to the residual stream.
double equivalence_error(const Tensor& input, const Tensor& reference, const Tensor& changed);

}  // namespace salient
