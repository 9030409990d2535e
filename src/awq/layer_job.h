#pragma once

#include <optional>
#include <span>

#include "awq/mapping.h"
#include "backend/backend.h"
#include "base/cancellation.h"
#include "calibrate/hidden_store.h"
#include "quant/group_quantize.h"
#include "runtime/batch.h"
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
  OneshotResult result = OneshotResult::quantized;
  Propagation propagation = Propagation::quantized;
  ExpertCalibration experts = ExpertCalibration::all;
  int64_t min_tokens_per_expert = 0;  ///< with fewer of its own an expert takes those of all
  /// Where what experts read waits for its turn, and how much of it runs through an expert together.
  HiddenPlace place{};
  int64_t rows_per_batch = kRowsPerBatch;
  int64_t gram_block = 0;         ///< see MemoryPlan
  bool follows_original = false;  ///< the stream has the original hidden states too, see Rounding::matched
  const CancellationFlag* cancelled = nullptr;
};

}  // namespace salient
