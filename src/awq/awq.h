#pragma once

#include "awq/mapping.h"
#include "calibrate/layer_stream.h"
#include "model/weights.h"
#include "quant/group_quantize.h"
#include "salient/oneshot.h"

namespace salient {

/// How one linear becomes integers.
struct LinearRounding {
  QuantizationScheme scheme;
  Observer observer = Observer::automatic;
  ObserverSettings observer_settings{};
  ActivationOrder order = ActivationOrder::none;
};

/// How one decoder layer is to be quantized.
struct LayerJob {
  Backend& backend;  ///< for statistics and the search
  Backend& exact;    ///< f32 throughout, for the equivalence check
  const DecoderSpec& spec;
  int64_t layer;
  const PerLinear<LinearRounding>& linears;        ///< those that become integers; the others stay dense
  std::span<const ResolvedMapping> mappings = {};  ///< see default_mappings and resolve_mappings
  /// Type of everything that stays floating: scales, norms, biases, dense linears. Nothing: as each tensor is
  /// stored.
  std::optional<DType> storage;
  MatmulPrecision precision = MatmulPrecision::f32;
  Propagation propagation = Propagation::quantized;
  ExpertCalibration experts = ExpertCalibration::all;
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
