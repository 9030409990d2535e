#pragma once

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/scratch.h"

namespace salient {

/// Keys or values of one head, f32 [count, dim], rows `stride` apart.
struct KvRows {
  const float* data;
  int64_t stride;
};

/// Positions [first, first + count) of a head.
struct KvRange {
  int64_t head;
  int64_t first;
  int64_t count;
};

/// A pointer into the page where it keeps f32 and the range does not leave it; else expanded into the calling
/// thread's scratch.
KvRows rows_of(const CpuKernels& kernels, const KvPages& pages, const KvRange& range, ScratchUse use);

/// Backend::store_rows on checked shapes.
void store_rows(const CpuKernels& kernels, const KvStore& problem);

}  // namespace salient
