#pragma once

#include <optional>
#include <set>
#include <vector>

#include "awq/layer_job.h"
#include "calibrate/activation_statistics.h"
#include "runtime/layer.h"

namespace salient {

/// What the linears of one expert see.
struct ExpertStatistics {
  ActivationStatistics input;   ///< of gate and up
  ActivationStatistics hidden;  ///< of down
  bool pooled = false;          ///< too few tokens were routed to it: these are of all tokens
};

/// Widths of inputs whose Gram matrices stay whole, whatever LayerJob::gram_block says: that of a linear with
/// a grid for a whole row or matrix, whose rounding no block of columns can tell.
std::set<int64_t> whole_gram_widths(const DecoderSpec& spec, int64_t layer,
                                    const PerLinear<LinearRounding>& linears);

/// What the inputs of a layer's linears look like. Linears that read one tensor share an entry. Experts are
/// looked at one by one, from the recorded input of their block: neither their Gram matrices nor their
/// intermediate activations are ever there all at once.
class LayerStatistics {
 public:
  /// `original` must outlive this; `tokens` are those that the observer will see.
  LayerStatistics(const LayerJob& job, const LayerWeights& original, int64_t tokens);

  LinearObserver observer();

  /// Of a linear that belongs to no expert.
  const ActivationStatistics& of(const LinearId& id) const;
  /// The Gram matrix of what the linear reads, for whoever may change it. It is gone from here unless experts
  /// read the same.
  GramMatrix take_gram(const LinearId& id);
  /// Computed anew in each call. With ExpertCalibration::routed and at least min_tokens_per_expert tokens,
  /// those that the router sends there; else all.
  ExpertStatistics of_expert(int64_t expert) const;

 private:
  ActivationStatistics of_width(int64_t features) const;
  void record(const Tensor& rows);
  void assign_tokens() const;

  const LayerJob& job_;
  const LayerWeights& original_;
  PerLinear<LinearId> representatives_;
  std::set<int64_t> whole_widths_;
  PerLinear<ActivationStatistics> inputs_;
  PreparedLayer prepared_;    // of single linears, made when they are used
  HiddenStore expert_input_;  // [tokens, hidden], what router and experts read
  int64_t recorded_ = 0;      // rows of it
  mutable std::vector<std::vector<int32_t>> rows_of_expert_;  // found on first use
};

}  // namespace salient
