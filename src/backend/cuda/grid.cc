#include "backend/cuda/grid.h"

#include "base/error.h"
#include "quant/group_quantize.h"

namespace salient::cuda {

ScaleType scale_type(DType type) {
  if (type == DType::f16) return ScaleType::f16;
  if (type == DType::bf16) return ScaleType::bf16;
  if (type == DType::f32) return ScaleType::f32;
  fail(ErrorKind::internal, "cuda: scales of type {}", to_string(type));
}

GridRule grid_rule(const RoundingRule& rule) {
  const int top = max_code(rule.scheme);
  const ScaleRange range = scale_range(rule.scale_dtype, top);
  return {.top = top,
          .symmetric = rule.scheme.symmetric ? 1 : 0,
          .type = scale_type(rule.scale_dtype),
          .smallest = range.smallest,
          .largest = range.largest,
          .fixed = rule.grid ? 1 : 0};
}

}  // namespace salient::cuda
