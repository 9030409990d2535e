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

/// What is read after a range: as many rows of a head, in a page that may not be there.
struct KvNext {
  const KvPages* pages = nullptr;  ///< null: nothing
  int64_t head = 0;
  int64_t first = 0;
};

/// A pointer into the page where it keeps f32 and the range does not leave it; else expanded into the calling
/// thread's scratch, while the memory of what is read next is on its way.
KvRows rows_of(const CpuKernels& kernels, const KvPages& pages, const KvRange& range, ScratchUse use,
               const KvNext& next);

/// Rows of a cache's keys or values: x f32 [count, heads * dim] is kept as positions [first, first + count).
struct KvStore {
  const Tensor& x;
  int64_t first;
  const KvPages& pages;
};

void store_rows(const CpuKernels& kernels, const KvStore& problem);

}  // namespace salient
