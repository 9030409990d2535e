#include "backend/cuda/rounding_errors.h"

#include "backend/cuda/launch.h"
#include "quant/group_quantize.h"

namespace salient::cuda {
namespace {

ScaleType scale_type(DType type) {
  if (type == DType::f16) return ScaleType::f16;
  if (type == DType::bf16) return ScaleType::bf16;
  if (type == DType::f32) return ScaleType::f32;
  fail(ErrorKind::internal, "cuda: scales of type {}", to_string(type));
}

}  // namespace

GridRule grid_rule(const RoundingRule& rule) {
  const int top = max_code(rule.scheme);
  const ScaleRange range = scale_range(rule.scale_dtype, top);
  const GroupGrid grid = rule.grid.value_or(GroupGrid{});
  return {.top = top,
          .symmetric = rule.scheme.symmetric ? 1 : 0,
          .type = scale_type(rule.scale_dtype),
          .smallest = range.smallest,
          .largest = range.largest,
          .fixed = rule.grid ? 1 : 0,
          .scale = grid.scale,
          .zero = static_cast<float>(grid.zero)};
}

void rounding_errors(Device& device, const RoundingErrors& problem) {
  if (problem.rows == 0) return;
  const int64_t width = group_width(problem.rule.scheme, problem.columns);
  const int64_t groups = group_count(problem.rule.scheme, problem.columns);
  const RoundingErrorArguments arguments{.weight = problem.weight,
                                         .column_scales = problem.column_scales,
                                         .clip = problem.clip,
                                         .errors = problem.errors,
                                         .rows = problem.rows,
                                         .row_step = problem.row_step,
                                         .columns = static_cast<int>(problem.columns),
                                         .group_width = static_cast<int>(width),
                                         .groups = static_cast<int>(groups),
                                         .rule = grid_rule(problem.rule)};
  constexpr int kWarps = kRoundingThreads / 32;
  if (width <= kWarpGroupWidth) {
    launch(device, kErrorsOfGroups, {.x = blocks_for(problem.rows * groups, kWarps)}, arguments);
  } else {
    launch(device, kErrorsOfRows, {.x = blocks_for(problem.rows, 1)}, arguments, 2 * kWarps * sizeof(float));
  }
}

}  // namespace salient::cuda
