#include "backend/cuda/rounding_errors.h"

#include <algorithm>

#include "backend/cuda/launch.h"
#include "quant/group_quantize.h"

namespace salient::cuda {

RoundingCandidate rounding_candidate(const RoundingRule& rule, const float* column_scales,
                                     const float* clip) {
  const GroupGrid grid = rule.grid.value_or(GroupGrid{});
  return {.column_scales = column_scales,
          .clip = clip,
          .scale = grid.scale,
          .zero = static_cast<float>(grid.zero)};
}

void rounding_errors(Device& device, const RoundingErrors& problem) {
  if (problem.rows == 0 || problem.candidates.empty()) return;
  const int64_t width = group_width(problem.rule.scheme, problem.columns);
  const int64_t groups = group_count(problem.rule.scheme, problem.columns);
  RoundingErrorArguments arguments{.weight = problem.weight,
                                   .errors = problem.errors,
                                   .rows = problem.rows,
                                   .row_step = problem.row_step,
                                   .columns = static_cast<int>(problem.columns),
                                   .group_width = static_cast<int>(width),
                                   .groups = static_cast<int>(groups),
                                   .rule = grid_rule(problem.rule),
                                   .candidates = {}};
  std::ranges::copy(problem.candidates, arguments.candidates);
  constexpr int kWarps = kRoundingThreads / 32;
  const auto candidates = static_cast<int>(problem.candidates.size());
  if (width <= kWarpGroupWidth) {
    const Grid grid{.x = blocks_for(problem.rows * groups, kWarps), .y = candidates};
    launch(device, kErrorsOfGroups, grid, arguments);
  } else {
    const Grid grid{.x = blocks_for(problem.rows, 1), .y = candidates};
    launch(device, kErrorsOfRows, grid, arguments, 2 * kWarps * sizeof(float));
  }
}

}  // namespace salient::cuda
