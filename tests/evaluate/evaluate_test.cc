#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/json.h"
#include "evaluate/divergence.h"
#include "runtime/decoder.h"
#include "support/golden_model.h"
#include "support/shared_data.h"

namespace salient {
namespace {

std::vector<double> log_softmax(std::span<const float> logits) {
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
  std::vector<double> result;
  for (const float logit : logits) result.push_back(static_cast<double>(logit) - std::log(sum));
  return result;
}

/// The definition, from the golden logits of one window.
TEST(Perplexity, IsTheExponentialOfTheMeanLoss) {
  const GoldenModel golden("qwen2_window");
  const auto ids = golden.input_ids();
  const Tensor logits = golden.logits();
  double loss = 0;
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    loss -= log_softmax(logits.slice(row, row + 1).values<float>())[static_cast<size_t>(ids[i + 1])];
  }
  const auto backend = make_cpu_backend();
  const auto result = measure_perplexity(*backend, ModelWeights(golden.directory().string()), {ids, ids});
  EXPECT_EQ(result.predictions, 78);
  EXPECT_NEAR(result.mean_loss, loss / 39, 1e-5);
  EXPECT_NEAR(result.perplexity, std::exp(loss / 39), 1e-3);
}

TEST(Divergence, IsTheMeanOverThePredictions) {
  const GoldenModel model("rope_yarn");
  const GoldenModel reference("rope_linear");
  const auto ids = model.input_ids();
  const auto backend = make_cpu_backend();
  const Decoder a = Decoder::load(model.directory().string(), *backend);
  const Decoder b = Decoder::load(reference.directory().string(), *backend);
  const auto logits = [&](const Decoder& which) {
    KvCache cache = which.make_cache();
    return which.forward(ids, cache, {LogitRows::all});
  };
  const Tensor x = logits(a);
  const Tensor y = logits(b);
  double kl = 0;
  double same = 0;
  for (int64_t row = 0; row < 39; ++row) {
    const auto q = log_softmax(x.slice(row, row + 1).values<float>());
    const auto p = log_softmax(y.slice(row, row + 1).values<float>());
    for (size_t i = 0; i < p.size(); ++i) kl += std::exp(p[i]) * (p[i] - q[i]) / 39;
    const auto top = [](const auto& v) { return std::max_element(v.begin(), v.end()) - v.begin(); };
    same += (top(p) == top(q)) / 39.0;
  }
  int64_t steps_seen = 0;
  const auto result = measure_divergence(
      *backend, a.weights(), b.weights(), {ids}, {.on_progress = [&](int64_t step, int64_t steps) {
        EXPECT_EQ(step, ++steps_seen);
        EXPECT_EQ(steps, 5);  // two layers of each model and one stretch of predictions
      }});
  EXPECT_EQ(steps_seen, 5);
  EXPECT_GT(result.mean_kl, 0.01);
  EXPECT_NEAR(result.mean_kl, kl, 1e-5);
  EXPECT_NEAR(result.same_top_share, same, 1e-12);
}

TEST(Divergence, OfAModelFromItselfIsZero) {
  const GoldenModel golden("llama_gqa");
  const ModelWeights weights(golden.directory().string());
  const auto backend = make_cpu_backend();
  const auto result = measure_divergence(*backend, weights, weights, {golden.input_ids()});
  EXPECT_NEAR(result.mean_kl, 0, 1e-12);
  EXPECT_EQ(result.same_top_share, 1.0);
  EXPECT_EQ(result.model.perplexity, result.reference.perplexity);
}

TEST(Perplexity, RefusesTextThatPredictsNothing) {
  const GoldenModel golden("llama_gqa");
  const ModelWeights weights(golden.directory().string());
  const auto backend = make_cpu_backend();
  EXPECT_THROW(measure_perplexity(*backend, weights, {}), Error);
  EXPECT_THROW(measure_perplexity(*backend, weights, {{1, 2}, {3}}), Error);
  EXPECT_THROW(measure_perplexity(*backend, weights, {{1, 96}}), Error);
}

TEST(Perplexity, StopsOnRequest) {
  const GoldenModel golden("llama_gqa");
  const ModelWeights weights(golden.directory().string());
  const auto backend = make_cpu_backend();
  const CancellationFlag flag = true;
  try {
    measure_perplexity(*backend, weights, {{1, 2}}, {.cancelled = &flag});
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::cancelled);
  }
}

TEST(Perplexity, AgreesWithTransformersOnTrainedModels) {
  SALIENT_SHARED_OR_SKIP(models, "models");
  const Json golden = read_json_file((GoldenModel::root() / "trained.json").string());
  const auto backend = make_cpu_backend();
  for (const auto& [name, expected] : golden.items()) {
    const ModelWeights weights((models / name).string());
    const auto result = measure_perplexity(*backend, weights, expected.at("windows").get<TokenWindows>());
    EXPECT_NEAR(result.perplexity, expected.at("perplexity").get<double>(), 1e-4) << name;
  }
}

}  // namespace
}  // namespace salient
