#pragma once

#include <map>
#include <optional>

#include "awq/compensated_rounding.h"
#include "awq/layer_job.h"
#include "awq/layer_statistics.h"
#include "awq/scale_search.h"
#include "awq/scaled_layer.h"
#include "calibrate/layer_stream.h"

namespace salient {

/// Linears as they are to be written, but for their biases.
using FinishedLinears = PerLinear<LinearWeight>;

/// The type in which `original`, or what replaces it, is written.
DType storage_of(const LayerJob& job, const Tensor& original);

/// How a linear is rounded; nothing for one that stays dense.
std::optional<RoundingRule> rounding_rule(const LayerJob& job, const LinearId& id,
                                          const LayerWeights& original);

/// The largest weight of each group where an observer finds it in the weights alone; undefined where there is
/// no such search.
Tensor clip_by_weights(const RoundingRule& rule, const Tensor& weight, const LinearRounding& rounding);

/// One layer on its way through the search: scales are found for mapping after mapping, then its linears are
/// clipped and rounded. Experts come one by one, with statistics of their own.
class LayerSearch {
 public:
  /// `stream` stands before the layer; `prepared` is the original, of which Rounding::matched asks alone,
  /// else it may be null. Everything must outlive this.
  LayerSearch(const LayerJob& job, const AwqModifier& settings, const LayerWeights& original,
              const PreparedLayer* prepared, LayerStatistics& statistics, LayerStream& stream);

  void run(LayerReport& report);

  const ScaledLayer& scaled() const { return scaled_; }
  FinishedLinears take_finished() { return std::move(finished_); }

 private:
  /// What the linears that read one tensor share, in the coordinates of their scaled weights.
  struct SharedInput {
    LinearId reader;  ///< one of them
    RoundingInput input;
    int64_t to_round = 0;  ///< linears that read it and are not rounded yet
    Tensor correction{};   ///< see output_correction
    std::map<ActivationOrder, FeedbackFactor> factors{};
  };

  static int64_t expert_of(const ResolvedMapping& mapping);
  void run_expert(int64_t expert, LayerReport& report);
  bool any_quantized(const ResolvedMapping& mapping) const;

  void smooth(const ResolvedMapping& mapping, const ActivationStatistics& input, LayerReport& report);
  ScaleSearchResult search(const ResolvedMapping& mapping, const ActivationStatistics& input) const;
  BalanceLayer balance_layer(const LinearId& id) const;
  void represent(const ResolvedMapping& mapping, std::span<float> scales) const;

  void finish(const LinearId& id, const ActivationStatistics& statistics, LayerReport& report);
  SharedInput& shared_input(const LinearId& id, const ActivationStatistics& statistics, LayerReport& report);
  std::vector<LinearId> finishing_order() const;
  int64_t quantized_readers(const LinearId& reader) const;
  SharedInput matched_input(const LinearId& id, LayerReport& report);
  PreparedLayer prepare_so_far() const;
  QuantizedWeight round(const LinearId& id, const RoundingRule& rule, const Tensor& weight,
                        const Tensor& clip, SharedInput& shared) const;
  bool may_clip(LinearRole role, const QuantizationScheme& scheme) const;
  Tensor clip_of(const LinearId& id, const RoundingRule& rule, const Tensor& weight,
                 const RoundingInput& input, LayerReport& report) const;

  const LayerJob& job_;
  const AwqModifier& settings_;
  const LayerWeights& original_;
  const PreparedLayer* prepared_;  // the original
  LayerStatistics& statistics_;
  LayerStream& stream_;
  PerLinear<LinearId> representatives_;
  ScaledLayer scaled_;
  FinishedLinears finished_;
  std::optional<SharedInput> shared_;  // of the linear at hand
};

}  // namespace salient
