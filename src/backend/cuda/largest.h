#pragma once

#include "backend/cuda/device.h"

namespace salient::cuda {

/// The largest values of each row, in descending order, ties by the lower index; NaN is less than anything.
struct LargestArguments {
  const float* x;  ///< [rows, columns]
  int64_t columns;
  int parts;            ///< of a row, a block each: grid x
  int part_columns;     ///< a multiple of kLargestStep
  int wanted;           ///< of each row, at most kMostLargest
  uint64_t* workspace;  ///< [rows, parts, wanted], keys: see LargestKey
  uint32_t* counters;   ///< [rows], 0 before and after
  float* values;        ///< [rows, wanted]
  int32_t* indices;     ///< [rows, wanted]; -1 where a row has fewer columns
};

/// Of each row: sums[r] = sum over c of exp((x - the largest) scale), reaching[r] how many x are at least the
/// last one wanted. `values` is what LargestArguments gave.
struct LargestSumArguments {
  const float* x;  ///< [rows, columns]
  int64_t columns;
  int parts;  ///< as in LargestArguments
  int part_columns;
  int wanted;
  const float* values;  ///< [rows, wanted]
  const float* scales;  ///< [rows]
  uint32_t* workspace;  ///< [rows, parts, 2], a sum and a count
  uint32_t* counters;   ///< [rows], 0 before and after
  float* sums;
  int32_t* reaching;
};

inline constexpr int kLargestThreads = 256;
inline constexpr int kMostLargest = 64;
/// Values that a block looks at in one step: two a thread.
inline constexpr int kLargestStep = 2 * kLargestThreads;
inline constexpr Kernel kLargest{"largest_of_rows", kLargestThreads};
inline constexpr Kernel kLargestSums{"sums_of_rows", kLargestThreads};

/// Memory for `largest`: its first `counter_bytes` must be zero before the first use and stay so.
struct LargestWorkspace {
  size_t counter_bytes;
  size_t bytes;
};
LargestWorkspace largest_workspace(const Device& device, int64_t rows, int64_t columns, int64_t wanted);

struct Largest {
  const float* x;  ///< [rows, columns]
  int64_t rows;
  int64_t columns;
  int64_t wanted;  ///< 1 to kMostLargest
  float* values;   ///< [rows, wanted]
  int32_t* indices;
  void* workspace;
};
/// One launch. The result is the same for any number of parts.
void largest(Device& device, const Largest& problem);

/// See LargestSumArguments; a value that is not finite among those of a row makes its sum NaN or leaves it as
/// it is. Follows `largest` for the same problem.
struct LargestSums {
  const float* scales;  ///< [rows]
  float* sums;          ///< [rows]
  int32_t* reaching;    ///< [rows]
};
void sum_rows(Device& device, const Largest& problem, const LargestSums& wanted);

}  // namespace salient::cuda
