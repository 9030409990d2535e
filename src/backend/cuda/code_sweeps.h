#pragma once

#include "backend/cuda/device.h"
#include "backend/cuda/grid.h"

namespace salient {
struct QuantizationScheme;
}

namespace salient::cuda {

struct SweepShape {
  int64_t rows;
  int columns;
  int group_width;
  int groups;
};

/// Rows as QuantizedWeight keeps them.
struct StoredRows {
  uint32_t* codes;  ///< [rows, words]
  int words;
  int bits;              ///< 4 or 8, that a code takes
  void* scales;          ///< [rows, groups]
  const uint8_t* zeros;  ///< [rows, groups], or null for symmetric schemes
  ScaleType type;
  int top;  ///< the largest code
};

/// Steps c = code - zero and scales s, so that Q = c s.
struct LoadStepsArguments {
  SweepShape shape;
  StoredRows stored;
  float* steps;   ///< [rows, columns]
  float* scales;  ///< [rows, groups]
};

/// E = W - Q, and what the ridge makes of it.
struct SweepErrorArguments {
  SweepShape shape;
  const float* weight;   ///< W [rows, columns]
  const float* steps;    ///< [rows, columns]
  const float* scales;   ///< [rows, groups]
  const float* ridge;    ///< [columns]
  float* errors;         ///< E [rows, columns]
  float* residuals;      ///< E times the ridge [rows, columns], or null
  double* ridge_losses;  ///< sums of E^2 times the ridge [rows]
};

/// One group's scales, each to where the loss of its row is least, and by what that changes E.
struct FitScalesArguments {
  SweepShape shape;
  GridRule rule;
  int group;
  const float* steps;        ///< [rows, columns]
  const float* ridge;        ///< [columns]
  const double* curvatures;  ///< c G c^T of each group, [rows, groups]
  float* scales;             ///< [rows, groups]
  float* residuals;          ///< R [rows, columns], to which the ridge's share is added
  float* changes;            ///< of the columns of the group, as E lies
};

/// The codes of the columns [begin, end), one column after the other, and by what they change E.
struct SweepColumnsArguments {
  SweepShape shape;
  int begin;
  int end;
  int top;               ///< the largest code
  const float* gram;     ///< G [columns, columns]
  const float* ridge;    ///< [columns]
  const float* scales;   ///< [rows, groups]
  const uint8_t* zeros;  ///< [rows, groups], or null for symmetric schemes
  float* steps;          ///< [rows, columns]
  float* residuals;      ///< R [rows, columns], to which the ridge's share is added
  float* changes;        ///< of those columns, as E lies
};

struct SweepLosses {
  double* form;   ///< E G E^T of each row
  double* ridge;  ///< what the ridge adds
};

/// Codes and scales of the rows whose loss fell.
struct StoreSweepArguments {
  SweepShape shape;
  StoredRows stored;
  const float* steps;   ///< [rows, columns]
  const float* scales;  ///< [rows, groups]
  SweepLosses before;
  SweepLosses after;
};

inline constexpr int kSweepThreads = 256;
/// Columns that are swept before the rest learns of it.
inline constexpr int kSweepBlock = 128;
/// Rows of a warp, whose divisions wait for each other's results in turn.
inline constexpr int kSweptRowsOfWarp = 2;
inline constexpr int kRowsOfSweepBlock = kSweepThreads / 32 * kSweptRowsOfWarp;
inline constexpr size_t kSweepSharedBytes = size_t{kSweepBlock} * kSweepBlock * sizeof(float);
inline constexpr Kernel kLoadSteps{"load_steps", kSweepThreads};
inline constexpr Kernel kSweepErrors{"sweep_errors", kSweepThreads};
inline constexpr Kernel kFitScales{"fit_scales", kSweepThreads};
inline constexpr Kernel kSweepColumns{"sweep_columns", kSweepThreads};
inline constexpr Kernel kStoreSweep{"store_sweep", kSweepThreads};

/// Backend::sweep_codes. Losses before and after are both computed anew, in f64 where they are summed, so
/// that no row becomes worse.
struct CodeSweep {
  const QuantizationScheme& scheme;
  const float* weight;  ///< W [rows, columns]
  const float* gram;    ///< [columns, columns]
  const float* ridge;   ///< [columns]
  int64_t rows;
  int64_t columns;
  int64_t sweeps;
  uint8_t* codes;  ///< [rows, row bytes] as QuantizedWeight has them, on 4 bytes
  void* scales;    ///< [rows, groups]
  DType scale_dtype;
  const uint8_t* zeros;  ///< [rows, groups]; null for a symmetric scheme
  void* workspace;       ///< of code_sweep_bytes, on 16 bytes
};
size_t code_sweep_bytes(const QuantizationScheme& scheme, int64_t rows, int64_t columns);
void sweep_codes(Device& device, const CodeSweep& problem);

}  // namespace salient::cuda
