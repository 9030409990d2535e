#include "backend/cuda/column_rounding.h"

#include <algorithm>

#include "backend/cuda/launch.h"
#include "backend/cuda/products.h"
#include "quant/quantized_weight.h"

namespace salient::cuda {
namespace {

/// What lies in the workspace, one after the other.
struct Workspace {
  float* values;
  float* targets;
  uint8_t* codes;
};

size_t matrix_elements(int64_t rows, int64_t columns) {
  return static_cast<size_t>(rows * columns + 3) / 4 * 4;
}

Workspace workspace_of(const CompensatedRounding& problem) {
  const size_t elements = matrix_elements(problem.rows, problem.columns);
  auto* values = static_cast<float*>(problem.workspace);
  return {.values = values,
          .targets = values + elements,
          .codes = reinterpret_cast<uint8_t*>(values + 2 * elements)};
}

void order_columns(Device& device, const CompensatedRounding& problem, const Workspace& workspace) {
  const OrderArguments arguments{.weight = problem.weight,
                                 .order = problem.order,
                                 .values = workspace.values,
                                 .targets = workspace.targets,
                                 .rows = problem.rows,
                                 .columns = static_cast<int>(problem.columns)};
  launch(device, kOrderColumns, {.x = blocks_for(problem.rows * problem.columns, kColumnThreads)}, arguments);
}

void round_block(Device& device, const CompensatedRounding& problem, const Workspace& workspace,
                 int64_t begin) {
  const int64_t end = std::min(problem.columns, begin + kColumnBlock);
  const ColumnBlockArguments arguments{
      .upper = problem.upper,
      .order = problem.order,
      .values = workspace.values,
      .targets = workspace.targets,
      .scales = problem.scales,
      .zeros = problem.zeros,
      .codes = workspace.codes,
      .rows = problem.rows,
      .columns = static_cast<int>(problem.columns),
      .begin = static_cast<int>(begin),
      .end = static_cast<int>(end),
      .group_width = static_cast<int>(group_width(problem.scheme, problem.columns)),
      .groups = static_cast<int>(group_count(problem.scheme, problem.columns)),
      .top = max_code(problem.scheme),
      .type = scale_type(problem.scale_dtype)};
  launch(device, kRoundColumns, {.x = blocks_for(problem.rows, kRowsOfColumnBlock)}, arguments,
         kColumnSharedBytes);
}

void carry_errors(Device& device, const CompensatedRounding& problem, const Workspace& workspace,
                  int64_t begin) {
  const int64_t end = begin + kColumnBlock;
  if (end >= problem.columns) return;
  multiply(device, {.a = {workspace.values + begin, problem.columns},
                    .b = {problem.upper + begin * problem.columns + end, problem.columns},
                    .c = workspace.targets + end,
                    .c_stride = problem.columns,
                    .m = problem.rows,
                    .n = problem.columns - end,
                    .k = kColumnBlock,
                    .use = ProductUse::add});
}

void pack_codes(Device& device, const CompensatedRounding& problem, const Workspace& workspace) {
  const int64_t words = QuantizedWeight::row_bytes(problem.scheme.num_bits, problem.columns) / 4;
  const PackCodesArguments arguments{.codes = workspace.codes,
                                     .packed = reinterpret_cast<uint32_t*>(problem.codes),
                                     .rows = problem.rows,
                                     .columns = static_cast<int>(problem.columns),
                                     .words = static_cast<int>(words),
                                     .bits = QuantizedWeight::code_bits(problem.scheme.num_bits)};
  launch(device, kPackCodes, {.x = blocks_for(problem.rows * words, kColumnThreads)}, arguments);
}

}  // namespace

size_t compensated_rounding_bytes(int64_t rows, int64_t columns) {
  return matrix_elements(rows, columns) * (2 * sizeof(float) + 1);
}

void round_compensated(Device& device, const CompensatedRounding& problem) {
  if (problem.rows == 0) return;
  const Workspace workspace = workspace_of(problem);
  order_columns(device, problem, workspace);
  for (int64_t begin = 0; begin < problem.columns; begin += kColumnBlock) {
    round_block(device, problem, workspace, begin);
    carry_errors(device, problem, workspace, begin);
  }
  pack_codes(device, problem, workspace);
}

}  // namespace salient::cuda
