#include "backend/cuda/norms.h"

#include "backend/cuda/launch.h"

namespace salient::cuda {

void normalize(Device& device, const Norm& problem) {
  constexpr int kWarps = kNormThreads / 32;
  if (problem.rows == 0) return;
  const NormArguments arguments{.x = problem.x,
                                .sum = problem.sum,
                                .weight = problem.weight,
                                .bias = problem.bias,
                                .y = problem.y,
                                .rows = problem.rows,
                                .features = static_cast<int>(problem.features),
                                .heads = static_cast<int>(problem.heads),
                                .epsilon = static_cast<float>(problem.epsilon),
                                .centered = problem.centered ? 1 : 0};
  const bool fits = arguments.features <= kWarpNormFeatures;
  const Grid grid{.x = blocks_for(arguments.rows, fits ? kWarps : 1)};
  launch(device, fits ? kNormOfWarp : kNormOfBlock, grid, arguments, 2 * kWarps * sizeof(float));
}

}  // namespace salient::cuda
