#include "awq/block_loss.h"

#include <algorithm>
#include <numeric>

#include "awq/layer_search.h"
#include "base/parallel.h"

namespace salient {
namespace {

/// Q(w s) / s for every row w of `weight`, in place.
void round_scaled(const RoundingRule& rule, std::span<const float> column_scales, Tensor& weight) {
  const RoundingRule own = rule_for_matrix(rule, weight, column_scales);
  const auto columns = static_cast<size_t>(weight.dim(1));
  const auto values = weight.mutable_values<float>();
  parallel_for(static_cast<size_t>(weight.dim(0)), 16, [&](size_t begin, size_t end) {
    for (size_t r = begin; r < end; ++r) {
      const auto row = values.subspan(r * columns, columns);
      for (size_t c = 0; c < columns; ++c) row[c] *= column_scales[c];
      fake_quantize_row(own, row, {}, row);
      for (size_t c = 0; c < columns; ++c) row[c] /= column_scales[c];
    }
  });
}

/// The sum of (a - b)^2, row by row in f64.
double squared_distance(const Tensor& a, const Tensor& b) {
  const auto columns = static_cast<size_t>(a.dim(1));
  const auto x = a.values<float>();
  const auto y = b.values<float>();
  std::vector<double> of_row(static_cast<size_t>(a.dim(0)));
  parallel_for(of_row.size(), 16, [&](size_t begin, size_t end) {
    for (size_t r = begin; r < end; ++r) {
      for (size_t i = r * columns; i < (r + 1) * columns; ++i) {
        const double difference = double{x[i]} - double{y[i]};
        of_row[r] += difference * difference;
      }
    }
  });
  return std::accumulate(of_row.begin(), of_row.end(), 0.0);
}

bool balances(const ResolvedMapping& mapping, const LinearId& id) {
  return std::ranges::find(mapping.balance, id) != mapping.balance.end();
}

bool in_attention(const LinearId& id) { return id.role < LinearRole::gate; }

}  // namespace

BlockLoss::BlockLoss(const LayerJob& job, const LayerWeights& original, const ScaledLayer& scaled,
                     const ResolvedMapping& mapping, LayerStream& stream)
    : job_(job), original_(original), scaled_(scaled), mapping_(mapping), stream_(stream) {
  run({}, [&](const Tensor& hidden) { expected_.push_back(hidden); });
}

double BlockLoss::operator()(std::span<const float> column_scales) {
  double sum = 0;
  size_t values = 0;
  size_t batch = 0;
  run(column_scales, [&](const Tensor& hidden) {
    throw_if_cancelled(job_.cancelled);
    sum += squared_distance(hidden, expected_[batch++]);
    values += hidden.values<float>().size();
  });
  return sum / static_cast<double>(std::max<size_t>(1, values));
}

std::shared_ptr<const PreparedLinear> BlockLoss::prepare(const LinearId& id,
                                                         std::span<const float> column_scales) {
  LinearWeight linear;
  linear.dense = scaled_.weight(id);
  linear.bias = scaled_.bias(id);
  const auto rule = rounding_rule(job_, id, original_);
  if (balances(mapping_, id) && rule && !column_scales.empty())
    round_scaled(*rule, column_scales, linear.dense);
  return job_.backend.prepare(linear);
}

void BlockLoss::run(std::span<const float> column_scales, const LayerStream::Outputs& visit) {
  PerLinear<std::shared_ptr<const PreparedLinear>> changed;
  PreparedLayer layer = scaled_.prepare(job_.backend);
  layer.make = [&](const LinearId& id) {
    if (is_expert(id.role)) return prepare(id, column_scales);  // never there all at once
    auto& own = (balances(mapping_, id) ? changed : kept_)[id];
    if (own == nullptr) own = prepare(id, column_scales);
    return own;
  };
  const bool attention = in_attention(mapping_.balance.front()) && !job_.spec.parallel_block;
  const auto stops = [&](const LinearId& id) { return attention && !in_attention(id); };
  stream_.outputs(job_.layer, layer, stops, visit);
}

}  // namespace salient
