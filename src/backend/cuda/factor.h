#pragma once

#include "backend/cuda/device.h"

namespace salient::cuda {

/// A square block on the diagonal of S, [size, size] from (begin, begin) on, becomes R of S = R R^T, an upper
/// triangle.
struct FactorBlockArguments {
  float* matrix;  ///< S [k, k]
  int64_t k;
  int begin;
  int size;            ///< at most kFactorBlock
  float* inverse;      ///< R^-1 [kFactorBlock, kFactorBlock]
  float* reciprocals;  ///< [k], of R's diagonal
  uint32_t* failures;  ///< += 1 where a pivot is not positive
};
/// U of R = U sqrt(D): each column divided by its element on the diagonal.
struct UnitArguments {
  float* matrix;  ///< [k, k]
  int64_t k;
  const float* reciprocals;
};
/// to [rows, columns] = from where that has elements, else those of the unit matrix.
struct PadArguments {
  const float* from;
  float* to;
  int64_t from_stride;
  int64_t from_rows;
  int64_t from_columns;
  int64_t rows;
  int64_t columns;
};

inline constexpr int kFactorThreads = 256;
inline constexpr int kFactorBlock = 64;
/// The block and its inverse in double, rows one longer than they need be.
inline constexpr size_t kFactorSharedBytes = size_t{2} * kFactorBlock * (kFactorBlock + 1) * sizeof(double);
inline constexpr Kernel kFactorDiagonal{"factor_block", kFactorThreads};
inline constexpr Kernel kUnitTriangle{"unit_triangle", kFactorThreads};
inline constexpr Kernel kPadMatrix{"pad_matrix", kFactorThreads};

/// Backend::factorize; waits for the result. S is undefined where it is not positive definite.
struct Factorization {
  float* symmetric;  ///< S [k, k], then U
  int64_t k;
  void* workspace;  ///< of factorization_bytes, on 16 bytes
};
size_t factorization_bytes(int64_t k);
bool factorize(Device& device, const Factorization& problem);

/// Backend::solve; waits for the result.
struct Solution {
  float* symmetric;  ///< S [k, k], used up
  float* values;     ///< [rows, k], times S^-1
  int64_t rows;
  int64_t k;
  void* workspace;  ///< of solution_bytes, on 16 bytes
};
size_t solution_bytes(int64_t rows, int64_t k);
bool solve(Device& device, const Solution& problem);

}  // namespace salient::cuda
