#include "runtime/moe.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace salient {
namespace {

/// One token's scores on their way to a choice.
class TokenRouter {
 public:
  TokenRouter(const MoeSpec& moe, std::span<const float> correction)
      : moe_(moe),
        correction_(correction),
        scores_(static_cast<size_t>(moe.experts)),
        choice_(scores_.size()),
        order_(scores_.size()) {}

  /// Fills `experts` and `weights`, experts_per_token of each.
  void run(std::span<const float> logits, std::span<int32_t> experts, std::span<float> weights) {
    score(logits);
    for (size_t i = 0; i < choice_.size(); ++i) {
      choice_[i] = scores_[i] + (correction_.empty() ? 0.0 : static_cast<double>(correction_[i]));
      if (std::isnan(choice_[i])) choice_[i] = -INFINITY;  // sorting needs an order, also of damaged weights
    }
    if (moe_.groups > 1) keep_best_groups();
    std::iota(order_.begin(), order_.end(), 0);
    const auto better = [&](int32_t a, int32_t b) {
      const double x = choice_[static_cast<size_t>(a)];
      const double y = choice_[static_cast<size_t>(b)];
      return x != y ? x > y : a < b;
    };
    std::partial_sort(order_.begin(), order_.begin() + static_cast<ptrdiff_t>(experts.size()), order_.end(),
                      better);
    double sum = 0;
    for (size_t i = 0; i < experts.size(); ++i) {
      experts[i] = order_[i];
      sum += scores_[static_cast<size_t>(order_[i])];
    }
    const double factor = moe_.scale / (moe_.normalize ? std::max(sum + 1e-20, moe_.least_sum) : 1.0);
    for (size_t i = 0; i < experts.size(); ++i) {
      weights[i] = static_cast<float>(scores_[static_cast<size_t>(order_[i])] * factor);
    }
  }

 private:
  void score(std::span<const float> logits) {
    if (moe_.score == RouterScore::sigmoid) {
      for (size_t i = 0; i < logits.size(); ++i)
        scores_[i] = 1 / (1 + std::exp(-static_cast<double>(logits[i])));
      return;
    }
    const double largest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
    double sum = 0;
    for (size_t i = 0; i < logits.size(); ++i)
      sum += scores_[i] = std::exp(static_cast<double>(logits[i]) - largest);
    for (double& score : scores_) score /= sum;
  }

  /// The experts of the groups that are not among the best are out.
  void keep_best_groups() {
    const auto width = static_cast<size_t>(moe_.experts / moe_.groups);
    const ptrdiff_t counted = moe_.group_score == GroupScore::best_two ? 2 : 1;
    std::vector<std::pair<double, size_t>> groups;
    for (size_t group = 0; group < static_cast<size_t>(moe_.groups); ++group) {
      std::vector<double> members(choice_.begin() + static_cast<ptrdiff_t>(group * width),
                                  choice_.begin() + static_cast<ptrdiff_t>((group + 1) * width));
      std::partial_sort(members.begin(), members.begin() + counted, members.end(), std::greater<>());
      groups.emplace_back(-std::accumulate(members.begin(), members.begin() + counted, 0.0), group);
    }
    std::sort(groups.begin(), groups.end());
    for (size_t i = static_cast<size_t>(moe_.groups_per_token); i < groups.size(); ++i) {
      const auto begin = choice_.begin() + static_cast<ptrdiff_t>(groups[i].second * width);
      std::fill_n(begin, width, -INFINITY);
    }
  }

  const MoeSpec& moe_;
  std::span<const float> correction_;
  std::vector<double> scores_;  // what weighs
  std::vector<double> choice_;  // what chooses
  std::vector<int32_t> order_;
};

/// Rows of the batch that go to one expert, with their weights.
struct ExpertRows {
  std::vector<int32_t> rows;
  std::vector<float> weights;
};

std::vector<ExpertRows> rows_by_expert(const MoeSpec& moe, const Routing& routing) {
  std::vector<ExpertRows> result(static_cast<size_t>(moe.experts));
  for (size_t i = 0; i < routing.experts.size(); ++i) {
    auto& expert = result[static_cast<size_t>(routing.experts[i])];
    expert.rows.push_back(static_cast<int32_t>(i / static_cast<size_t>(moe.experts_per_token)));
    expert.weights.push_back(routing.weights[i]);
  }
  return result;
}

void add_shared_expert(const LayerRun& run, const PreparedLayer& weights, const Tensor& x, Tensor& y) {
  const MoeSpec& moe = *run.spec.moe;
  const Tensor shared =
      mlp_block(run, weights, {LinearRole::shared_gate, LinearRole::shared_up, LinearRole::shared_down}, x);
  std::vector<float> factors(static_cast<size_t>(x.dim(0)), 1.0f);
  if (moe.shared_router) {
    const Tensor scores = Linears(run, weights)(LinearRole::shared_router, x);
    const auto values = scores.values<float>();
    for (size_t i = 0; i < factors.size(); ++i) {
      factors[i] = static_cast<float>(1 / (1 + std::exp(-static_cast<double>(values[i]))));
    }
  }
  std::vector<int32_t> rows(factors.size());
  std::iota(rows.begin(), rows.end(), 0);
  run.backend.scatter_add(shared, rows, factors, y);
}

}  // namespace

Routing route(const MoeSpec& moe, const Tensor& scores, const Tensor& correction) {
  const auto rows = static_cast<size_t>(scores.dim(0));
  const auto chosen = static_cast<size_t>(moe.experts_per_token);
  const auto experts = static_cast<size_t>(moe.experts);
  Routing routing{std::vector<int32_t>(rows * chosen), std::vector<float>(rows * chosen)};
  TokenRouter router(moe, correction.defined() ? correction.values<float>() : std::span<const float>());
  for (size_t row = 0; row < rows; ++row) {
    router.run(scores.values<float>().subspan(row * experts, experts),
               std::span(routing.experts).subspan(row * chosen, chosen),
               std::span(routing.weights).subspan(row * chosen, chosen));
  }
  return routing;
}

Tensor mlp_hidden(const LayerRun& run, const PreparedLayer& weights, const MlpRoles& roles, const Tensor& x) {
  const Linears linear(run, weights);
  if (!run.spec.gated_mlp) {
    Tensor up = linear(roles.up, x);
    run.backend.activation(run.spec.activation, up);
    return up;
  }
  auto both = linear.of_one_input({roles.gate, roles.up}, x);
  run.backend.gated_activation(run.spec.activation, both[0], both[1], both[0]);
  return std::move(both[0]);
}

Tensor mlp_block(const LayerRun& run, const PreparedLayer& weights, const MlpRoles& roles, const Tensor& x) {
  return Linears(run, weights)(roles.down, mlp_hidden(run, weights, roles, x));
}

Tensor moe_block(const LayerRun& run, const PreparedLayer& weights, const Tensor& x) {
  const MoeSpec& moe = *run.spec.moe;
  const Tensor scores = Linears(run, weights)(LinearRole::router, x);
  const auto assigned = rows_by_expert(moe, route(moe, scores, weights.router_correction));
  Tensor y = Tensor::zeros(DType::f32, x.shape());
  for (int64_t expert = 0; expert < moe.experts; ++expert) {
    const ExpertRows& own = assigned[static_cast<size_t>(expert)];
    if (own.rows.empty()) continue;
    Tensor input = Tensor::empty(DType::f32, {static_cast<int64_t>(own.rows.size()), x.dim(1)});
    run.backend.gather_rows(x, own.rows, input);
    const MlpRoles roles{{LinearRole::expert_gate, expert},
                         {LinearRole::expert_up, expert},
                         {LinearRole::expert_down, expert}};
    run.backend.scatter_add(mlp_block(run, weights, roles, input), own.rows, own.weights, y);
  }
  if (moe.shared_intermediate > 0) add_shared_expert(run, weights, x, y);
  return y;
}

}  // namespace salient
