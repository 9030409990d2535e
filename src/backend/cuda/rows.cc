#include "backend/cuda/rows.h"

#include "backend/cuda/launch.h"

namespace salient::cuda {
namespace {

Grid row_grid(int64_t count, int64_t features) {
  return {.x = blocks_for(count, 1), .y = blocks_for(features, kRowPiece)};
}

RowType row_type(DType type) {
  if (type == DType::f16) return RowType::f16;
  if (type == DType::bf16) return RowType::bf16;
  if (type == DType::f32) return RowType::f32;
  fail(ErrorKind::internal, "cuda: an embedding table of type {}", to_string(type));
}

}  // namespace

void embed(Device& device, const Embedding& problem) {
  if (problem.count == 0) return;
  const TakeRowsArguments arguments{.table = problem.table,
                                    .rows = problem.tokens,
                                    .y = problem.y,
                                    .features = static_cast<int>(problem.features),
                                    .type = row_type(problem.type)};
  launch(device, kTakeRows, row_grid(problem.count, problem.features), arguments);
}

void gather_rows(Device& device, const GatherRows& problem) {
  embed(device, {.table = problem.x,
                 .type = DType::f32,
                 .tokens = problem.rows,
                 .y = problem.y,
                 .count = problem.count,
                 .features = problem.features});
}

void scatter_add(Device& device, const ScatterAdd& problem) {
  if (problem.count == 0) return;
  const ScatterArguments arguments{.x = problem.x,
                                   .rows = problem.rows,
                                   .factors = problem.factors,
                                   .y = problem.y,
                                   .features = static_cast<int>(problem.features)};
  launch(device, kScatterRows, row_grid(problem.count, problem.features), arguments);
}

}  // namespace salient::cuda
