#include "evaluate/divergence.h"

#include <cmath>

#include "base/error.h"
#include "base/parallel.h"
#include "evaluate/window_scores.h"

namespace salient {
namespace {

/// One prediction, compared.
struct Score {
  double model_loss = 0;
  double reference_loss = 0;
  double kl = 0;
  bool same_top = false;
};

/// KL(p || q) = sum p (x - y) - log sum e^x + log sum e^y for logits x of p and y of q.
Score compare_row(std::span<const float> model, std::span<const float> reference, int32_t target) {
  const RowSummary q = summarize(model);
  const RowSummary p = summarize(reference);
  double difference = 0;
  for (size_t i = 0; i < model.size(); ++i) {
    const double probability = std::exp(static_cast<float>(static_cast<double>(reference[i]) - p.log_sum));
    difference += probability * (static_cast<double>(reference[i]) - static_cast<double>(model[i]));
  }
  const auto index = static_cast<size_t>(target);
  return {q.log_sum - static_cast<double>(model[index]), p.log_sum - static_cast<double>(reference[index]),
          difference - p.log_sum + q.log_sum, p.top == q.top};
}

struct Side {
  const DecoderSpec& spec;
  Tensor hidden;
  PreparedHead head;
};

}  // namespace

Divergence measure_divergence(Backend& backend, const ModelWeights& weights, const ModelWeights& reference,
                              const TokenWindows& windows, const EvaluationOptions& options) {
  check_windows(weights.spec(), windows);
  check_windows(reference.spec(), windows);
  if (weights.spec().vocab_size != reference.spec().vocab_size) {
    fail(ErrorKind::invalid_argument, "evaluation: the vocabularies differ: {} and {} tokens",
         weights.spec().vocab_size, reference.spec().vocab_size);
  }
  const auto stretches = scored_rows(windows);
  const int64_t layers = weights.spec().layers + reference.spec().layers;
  EvaluationSteps step(options, layers + static_cast<int64_t>(stretches.size()));
  const auto run = [&](const ModelWeights& which, KvType kv_type, LmHead lm_head) {
    return Side{which.spec(), run_all_layers({backend, which, windows, kv_type}, [&] { step(); }),
                prepare_head(backend, which, lm_head)};
  };
  const Side model = run(weights, options.kv_type, options.lm_head);
  const Side original = run(reference, KvType::fp32, LmHead::stored);
  Score total;
  int64_t same = 0;
  int64_t predictions = 0;
  for (const ScoredRows& rows : stretches) {
    const auto count = static_cast<int64_t>(rows.targets.size());
    const auto logits_of = [&](const Side& side) {
      return final_logits(backend, side.spec, side.head, side.hidden.slice(rows.begin, rows.begin + count));
    };
    const Tensor model_logits = logits_of(model);
    const Tensor reference_logits = logits_of(original);
    std::vector<Score> scores(rows.targets.size());
    parallel_for(scores.size(), 1, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) {
        const auto row = static_cast<int64_t>(i);
        scores[i] = compare_row(model_logits.slice(row, row + 1).values<float>(),
                                reference_logits.slice(row, row + 1).values<float>(), rows.targets[i]);
      }
    });
    for (const Score& score : scores) {
      total.model_loss += score.model_loss;
      total.reference_loss += score.reference_loss;
      total.kl += score.kl;
      same += score.same_top ? 1 : 0;
    }
    predictions += count;
    step();
  }
  const auto share = static_cast<double>(predictions);
  return {to_perplexity(total.model_loss, predictions), to_perplexity(total.reference_loss, predictions),
          total.kl / share, static_cast<double>(same) / share};
}

}  // namespace salient
