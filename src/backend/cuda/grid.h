#pragma once

#include "tensor/dtype.h"

namespace salient {
struct RoundingRule;
}

namespace salient::cuda {

enum class ScaleType { f32, f16, bf16 };

/// A RoundingRule as kernels read it.
struct GridRule {
  int top;         ///< the largest code
  int symmetric;   ///< 1: zeros are (top + 1) / 2
  ScaleType type;  ///< in which scales are stored
  float smallest;  ///< scale
  float largest;   ///< scale
  int fixed;       ///< 1: every group has the grid of the rule
};
GridRule grid_rule(const RoundingRule& rule);

/// Errors: internal for other types than f32, f16 and bf16.
ScaleType scale_type(DType type);

}  // namespace salient::cuda
