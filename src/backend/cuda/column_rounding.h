#pragma once

#include "backend/cuda/device.h"
#include "backend/cuda/grid.h"

namespace salient {
struct QuantizationScheme;
}

namespace salient::cuda {

/// values, targets [rows, columns] = the columns of weight in `order`.
struct OrderArguments {
  const float* weight;
  const int32_t* order;
  float* values;
  float* targets;
  int64_t rows;
  int columns;
};

/// The columns [begin, end) in the order of rounding: codes of their targets, errors for their values, and
/// what these add to the targets of the columns behind them.
struct ColumnBlockArguments {
  const float* upper;    ///< U [columns, columns]
  const int32_t* order;  ///< [columns]
  float* values;         ///< [rows, columns], weights that become errors w - q
  const float* targets;  ///< [rows, columns]
  const void* scales;    ///< [rows, groups]
  const uint8_t* zeros;  ///< [rows, groups], or null for symmetric schemes
  uint8_t* codes;        ///< [rows, columns], columns as those of the weight
  int64_t rows;
  int columns;
  int begin;
  int end;
  int group_width;
  int groups;
  int top;  ///< the largest code
  ScaleType type;
};

/// Codes one to a byte [rows, columns] as QuantizedWeight keeps them: of up to 4 bits two to a byte, rows of
/// whole words.
struct PackCodesArguments {
  const uint8_t* codes;
  uint32_t* packed;  ///< [rows, words]
  int64_t rows;
  int columns;
  int words;
  int bits;  ///< 4 or 8, that a code takes
};

inline constexpr int kColumnThreads = 256;
/// Columns that are rounded before the rest learns of it.
inline constexpr int kColumnBlock = 128;
/// Rows of a warp, whose divisions wait for each other's results in turn.
inline constexpr int kRowsOfWarp = 4;
inline constexpr int kRowsOfColumnBlock = kColumnThreads / 32 * kRowsOfWarp;
inline constexpr size_t kColumnSharedBytes = size_t{kColumnBlock} * kColumnBlock * sizeof(float);
inline constexpr Kernel kOrderColumns{"order_columns", kColumnThreads};
inline constexpr Kernel kRoundColumns{"round_columns", kColumnThreads};
inline constexpr Kernel kPackCodes{"pack_codes", kColumnThreads};

/// Backend::round_compensated: column after column to the nearest code, the error of each carried over to
/// those that follow.
struct CompensatedRounding {
  const QuantizationScheme& scheme;
  const float* weight;   ///< [rows, columns]
  const float* upper;    ///< U [columns, columns]
  const int32_t* order;  ///< [columns]
  int64_t rows;
  int64_t columns;
  const void* scales;  ///< [rows, groups]
  DType scale_dtype;
  const uint8_t* zeros;  ///< [rows, groups]; null for a symmetric scheme
  uint8_t* codes;        ///< [rows, row bytes] as QuantizedWeight has them, on 4 bytes
  void* workspace;       ///< of compensated_rounding_bytes, on 16 bytes
};
size_t compensated_rounding_bytes(int64_t rows, int64_t columns);
void round_compensated(Device& device, const CompensatedRounding& problem);

}  // namespace salient::cuda
