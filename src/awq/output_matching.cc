#include "awq/output_matching.h"

#include "base/parallel.h"

namespace salient {
namespace {

/// y / scales - x; a new tensor.
Tensor lost_input(const Tensor& x, const Tensor& y, std::span<const float> scales) {
  Tensor result = Tensor::empty(DType::f32, x.shape());
  const auto columns = static_cast<size_t>(x.dim(1));
  const auto now = x.values<float>();
  const auto before = y.values<float>();
  const auto out = result.mutable_values<float>();
  parallel_for(static_cast<size_t>(x.dim(0)), 16, [&](size_t begin, size_t end) {
    for (size_t i = begin * columns; i < end * columns; ++i) {
      const float expected = scales.empty() ? before[i] : before[i] / scales[i % columns];
      out[i] = expected - now[i];
    }
  });
  return result;
}

}  // namespace

MatchedInput match_inputs(const MatchingProblem& problem, const LinearId& id) {
  MatchedInput matched{.input = {.gram = {}, .tokens = 0}, .lost = {}};
  problem.stream.compare(problem.layer, id, problem.weights, problem.original,
                         [&](const Tensor& x, const Tensor& y) {
                           if (!matched.lost.defined()) {
                             matched.input.gram = GramMatrix(x.dim(1));
                             matched.lost = Tensor::zeros(DType::f32, {x.dim(1), x.dim(1)});
                           }
                           matched.input.gram.add(problem.backend, problem.precision, x);
                           problem.backend.accumulate_product(lost_input(x, y, problem.column_scales), x,
                                                              problem.precision, matched.lost);
                           matched.input.tokens += x.dim(0);
                         });
  return matched;
}

Tensor output_correction(Backend& backend, MatchedInput& matched) {
  for (const double times : {1.0, 10.0, 100.0}) {
    Tensor shrunk = shrunk_gram(matched.input, times);
    Tensor rows = matched.lost.to(DType::f32);
    if (backend.solve(shrunk, rows)) return rows;
  }
  return {};
}

Tensor correct_outputs(Backend& backend, const Tensor& weight, const Tensor& correction) {
  LinearWeight factor;
  factor.dense = transposed(correction);
  Tensor result = Tensor::empty(DType::f32, weight.shape());
  backend.linear(*backend.prepare(factor), weight, result);
  backend.add(weight, result);
  return result;
}

}  // namespace salient
