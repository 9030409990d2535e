#pragma once

#include "backend/cuda/device.h"
#include "tensor/dtype.h"

namespace salient::cuda {

enum class RowType { f32, f16, bf16 };

/// y[r] = table[rows[r]] as f32.
struct TakeRowsArguments {
  const void* table;    ///< [.., features]
  const int32_t* rows;  ///< [count]
  float* y;             ///< [count, features]
  int features;
  RowType type;
};
/// y[rows[r]] += factors[r] x[r], no row twice.
struct ScatterArguments {
  const float* x;        ///< [count, features]
  const int32_t* rows;   ///< [count]
  const float* factors;  ///< [count]
  float* y;              ///< [.., features]
  int features;
};

inline constexpr int kRowThreads = 128;
/// Elements of a row for each block: eight a thread.
inline constexpr int kRowPiece = 8 * kRowThreads;
inline constexpr Kernel kTakeRows{"take_rows", kRowThreads};
inline constexpr Kernel kScatterRows{"scatter_rows", kRowThreads};

/// Backend::embed; the tokens are on the device and inside the table.
struct Embedding {
  const void* table;  ///< [vocab, features]
  DType type;         ///< f32, f16 or bf16
  const int32_t* tokens;
  float* y;
  int64_t count;
  int64_t features;
};
void embed(Device& device, const Embedding& problem);

/// y[i] = x[rows[i]].
struct GatherRows {
  const float* x;
  const int32_t* rows;
  float* y;
  int64_t count;
  int64_t features;
};
void gather_rows(Device& device, const GatherRows& problem);

/// y[rows[i]] += factors[i] x[i]; no row twice.
struct ScatterAdd {
  const float* x;
  const int32_t* rows;
  const float* factors;
  float* y;
  int64_t count;
  int64_t features;
};
void scatter_add(Device& device, const ScatterAdd& problem);

}  // namespace salient::cuda
