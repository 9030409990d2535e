#include "evaluate/perplexity.h"

#include <numeric>

#include "base/parallel.h"
#include "evaluate/window_scores.h"

namespace salient {

Perplexity measure_perplexity(Backend& backend, const ModelWeights& weights, const TokenWindows& windows,
                              const EvaluationOptions& options) {
  check_windows(weights.spec(), windows);
  const auto stretches = scored_rows(windows);
  EvaluationSteps step(options, weights.spec().layers + static_cast<int64_t>(stretches.size()));
  const Tensor hidden = run_all_layers({backend, weights, windows, options.kv_type}, [&] { step(); });
  const PreparedHead head = prepare_head(backend, weights, options.lm_head);
  double loss = 0;
  int64_t predictions = 0;
  for (const ScoredRows& rows : stretches) {
    const auto count = static_cast<int64_t>(rows.targets.size());
    const Tensor logits =
        final_logits(backend, weights.spec(), head, hidden.slice(rows.begin, rows.begin + count));
    std::vector<double> losses(rows.targets.size());
    parallel_for(losses.size(), 1, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) {
        const Tensor row = logits.slice(static_cast<int64_t>(i), static_cast<int64_t>(i) + 1);
        const auto values = row.values<float>();
        losses[i] =
            summarize(values).log_sum - static_cast<double>(values[static_cast<size_t>(rows.targets[i])]);
      }
    });
    loss = std::accumulate(losses.begin(), losses.end(), loss);
    predictions += count;
    step();
  }
  return to_perplexity(loss, predictions);
}

}  // namespace salient
