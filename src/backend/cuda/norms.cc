#include "backend/cuda/norms.h"

#include "backend/cuda/launch.h"

namespace salient::cuda {
namespace {

void normalize(Device& device, const NormArguments& arguments) {
  constexpr int kWarps = kNormThreads / 32;
  if (arguments.rows == 0) return;
  const bool fits = arguments.features <= kWarpNormFeatures;
  const Grid grid{.x = blocks_for(arguments.rows, fits ? kWarps : 1)};
  launch(device, fits ? kNormOfWarp : kNormOfBlock, grid, arguments, 2 * kWarps * sizeof(float));
}

}  // namespace

void rms_norm(Device& device, const RmsNorm& problem) {
  normalize(device, {.x = problem.x,
                     .sum = nullptr,
                     .weight = problem.weight,
                     .bias = nullptr,
                     .y = problem.y,
                     .rows = problem.rows,
                     .features = static_cast<int>(problem.features),
                     .heads = 1,
                     .epsilon = static_cast<float>(problem.epsilon),
                     .centered = 0});
}

void add_rms_norm(Device& device, const AddRmsNorm& problem) {
  normalize(device, {.x = problem.x,
                     .sum = problem.sum,
                     .weight = problem.weight,
                     .bias = nullptr,
                     .y = problem.y,
                     .rows = problem.rows,
                     .features = static_cast<int>(problem.features),
                     .heads = 1,
                     .epsilon = static_cast<float>(problem.epsilon),
                     .centered = 0});
}

void layer_norm(Device& device, const LayerNorm& problem) {
  normalize(device, {.x = problem.x,
                     .sum = nullptr,
                     .weight = problem.weight,
                     .bias = problem.bias,
                     .y = problem.y,
                     .rows = problem.rows,
                     .features = static_cast<int>(problem.features),
                     .heads = static_cast<int>(problem.heads),
                     .epsilon = static_cast<float>(problem.epsilon),
                     .centered = 1});
}

}  // namespace salient::cuda
