#pragma once

#include "backend/cuda/device.h"
#include "backend/cuda/grid.h"

namespace salient {
struct RoundingRule;
}

namespace salient::cuda {

/// D = Q(W s) / s - W of the rows 0, row_step, 2 row_step, ... of W: see Backend::rounding_loss.
struct RoundingErrorArguments {
  const float* weight;         ///< W [.., columns]
  const float* column_scales;  ///< s [columns], or null
  const float* clip;           ///< [.., groups], or null
  float* errors;               ///< D [rows, columns]
  int64_t rows;
  int64_t row_step;
  int columns;
  int group_width;
  int groups;
  GridRule rule;
};

inline constexpr int kRoundingThreads = 256;
/// A group for each warp: up to kWarpGroupWidth columns.
inline constexpr Kernel kErrorsOfGroups{"errors_of_groups", kRoundingThreads};
inline constexpr int kWarpGroupWidth = 256;
/// A row for each block.
inline constexpr Kernel kErrorsOfRows{"errors_of_rows", kRoundingThreads};

/// The same bits that the CPU's arithmetic gives.
struct RoundingErrors {
  const RoundingRule& rule;  ///< for kWholeMatrix with its grid
  const float* weight;
  const float* column_scales;  ///< or null
  const float* clip;           ///< or null
  float* errors;
  int64_t rows;  ///< that count
  int64_t row_step;
  int64_t columns;
};
void rounding_errors(Device& device, const RoundingErrors& problem);

}  // namespace salient::cuda
