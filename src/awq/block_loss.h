#pragma once

#include <span>
#include <vector>

#include "awq/layer_job.h"
#include "awq/scaled_layer.h"
#include "calibrate/layer_stream.h"

namespace salient {

/// Objective::block_output of one mapping: the mean squared change of what attention or the MLP adds to the
/// hidden states of the calibration tokens (of both in a parallel block), by Q(W s) / s in place of the
/// weights that the mapping balances (Lin et al. 2023, eq. 4, for several linears and what lies behind them).
class BlockLoss {
 public:
  /// `stream` stands before the layer; everything must outlive this. Holds f32 [tokens, hidden].
  BlockLoss(const LayerJob& job, const LayerWeights& original, const ScaledLayer& scaled,
            const ResolvedMapping& mapping, LayerStream& stream);

  /// column_scales: s [in].
  double operator()(std::span<const float> column_scales);

 private:
  std::shared_ptr<const PreparedLinear> prepare(const LinearId& id, std::span<const float> column_scales);
  /// Runs all tokens through the block; `column_scales` empty: nothing is rounded.
  void run(std::span<const float> column_scales, const LayerStream::Outputs& visit);

  const LayerJob& job_;
  const LayerWeights& original_;
  const ScaledLayer& scaled_;
  const ResolvedMapping& mapping_;
  LayerStream& stream_;
  PerLinear<std::shared_ptr<const PreparedLinear>> kept_;  // those that no candidate changes, but for experts
  std::vector<Tensor> expected_;                           // of each batch
};

}  // namespace salient
