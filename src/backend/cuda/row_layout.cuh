#pragma once

#include "backend/cuda/kv_rows.h"
#include "backend/cuda/simt.h"

namespace salient::cuda {

/// Where row 0 of a page stands.
SALIENT_DEVICE std::byte* head_of_page(const RowLayout& layout, int page, int head) {
  const auto rows = static_cast<int64_t>(kPageRows);
  std::byte* base = layout.blocks != nullptr
                        ? layout.blocks[page] + layout.offset
                        : const_cast<std::byte*>(layout.rows) + int64_t{page} * rows * layout.row_stride;
  return base + head * layout.head_stride;
}

SALIENT_DEVICE std::byte* row_of_page(const RowLayout& layout, std::byte* head, int row) {
  return head + row * layout.row_stride;
}

/// Of int8.
SALIENT_DEVICE float* scales_of_page(const RowLayout& layout, std::byte* head) {
  return reinterpret_cast<float*>(head + kPageRows * layout.row_stride);
}

}  // namespace salient::cuda
