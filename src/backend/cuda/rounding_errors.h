#pragma once

#include <span>

#include "backend/cuda/device.h"
#include "backend/cuda/grid.h"

namespace salient {
struct RoundingRule;
}

namespace salient::cuda {

/// One of several ways to round the same rows.
struct RoundingCandidate {
  const float* column_scales;  ///< s [columns], or null
  const float* clip;           ///< [.., groups], or null
  float scale;                 ///< of every group where the rule has a fixed grid
  float zero;
};
/// That one launch takes.
inline constexpr int kMostCandidates = 32;

/// D = Q(W s) / s - W of the rows 0, row_step, 2 row_step, ... of W: see Backend::rounding_loss.
struct RoundingErrorArguments {
  const float* weight;  ///< W [.., columns]
  float* errors;        ///< D [candidates, rows, columns]
  int64_t rows;
  int64_t row_step;
  int columns;
  int group_width;
  int groups;
  GridRule rule;
  RoundingCandidate candidates[kMostCandidates];
};

inline constexpr int kRoundingThreads = 256;
/// A group for each warp: up to kWarpGroupWidth columns.
inline constexpr Kernel kErrorsOfGroups{"errors_of_groups", kRoundingThreads};
inline constexpr int kWarpGroupWidth = 256;
/// A row for each block.
inline constexpr Kernel kErrorsOfRows{"errors_of_rows", kRoundingThreads};

/// The same bits that the CPU's arithmetic gives.
struct RoundingErrors {
  const RoundingRule& rule;  ///< that of the first candidate; others may have another grid of the matrix
  const float* weight;
  std::span<const RoundingCandidate> candidates;  ///< 1 to kMostCandidates
  float* errors;
  int64_t rows;  ///< that count
  int64_t row_step;
  int64_t columns;
};
RoundingCandidate rounding_candidate(const RoundingRule& rule, const float* column_scales, const float* clip);
void rounding_errors(Device& device, const RoundingErrors& problem);

}  // namespace salient::cuda
