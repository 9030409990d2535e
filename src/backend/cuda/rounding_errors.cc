#include "backend/cuda/rounding_errors.h"

#include "backend/cuda/launch.h"
#include "quant/group_quantize.h"

namespace salient::cuda {
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
