#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace salient {

/// What a thread's scratch memory is for. Two uses that are live at the same time must differ.
enum class ScratchUse {
  gemm,
  weights,
  rounded_weights,
  packed_weights,
  inputs,
  scores,
  queries,
  mixed,
  packed_queries,
  packed_keys,
  factors,
  columns,
  targets,
  grids,
  partial_sums,
  cached_rows,
};
inline constexpr size_t kScratchUses = 16;

/// Memory of the calling thread, 64-byte aligned, uninitialised, valid until the next call with the same use
/// in the same thread. It only grows, so that blocks of work do not pay for page faults again and again.
std::byte* scratch_bytes(ScratchUse use, size_t bytes);

template <typename T>
T* scratch(ScratchUse use, int64_t count) {
  return reinterpret_cast<T*>(scratch_bytes(use, static_cast<size_t>(count) * sizeof(T)));
}

}  // namespace salient
