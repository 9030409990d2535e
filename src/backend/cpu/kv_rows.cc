#include "backend/cpu/kv_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/parallel.h"

namespace salient {
namespace {

/// Elements that are worth a piece of parallel work.
constexpr int64_t kPieceElements = 16384;

template <typename To, typename Byte>
auto* as(Byte* bytes) {
  return reinterpret_cast<std::conditional_t<std::is_const_v<Byte>, const To, To>*>(bytes);
}

/// One head of one page, to be read (const std::byte) or written.
template <typename Byte>
struct PageHead {
  Byte* bytes;
  const KvFormat& format;

  auto* floats(int64_t row) const { return as<float>(bytes) + row * format.dim; }
  auto* halves(int64_t row) const { return as<uint16_t>(bytes) + row * format.dim; }
  auto* codes(int64_t row) const { return as<int8_t>(bytes) + row * format.dim; }
  auto& scale(int64_t row) const {
    return as<float>(bytes + kPageRows * format.dim)[row];  // behind the codes
  }
};
using PageSource = PageHead<const std::byte>;
using PageTarget = PageHead<std::byte>;

void expand(const CpuKernels& kernels, const PageSource& page, const KvRange& rows, float* out) {
  const int64_t dim = page.format.dim;
  switch (page.format.type) {
    case KvType::fp32:
      std::memcpy(out, page.floats(rows.first), static_cast<size_t>(rows.count * dim) * sizeof(float));
      return;
    case KvType::fp16:
      return kernels.widen_f16(page.halves(rows.first), rows.count * dim, out);
    case KvType::bf16:
      return kernels.widen_bf16(page.halves(rows.first), rows.count * dim, out);
    case KvType::int8:
      for (int64_t i = 0; i < rows.count; ++i, out += dim)
        kernels.widen_int8(page.codes(rows.first + i), dim, page.scale(rows.first + i), out);
  }
}

/// An infinity or NaN makes the scale NaN, and so the whole row.
void store_int8(const CpuKernels& kernels, const float* x, const PageTarget& page, int64_t row) {
  const int64_t dim = page.format.dim;
  float least;
  float largest;
  kernels.extremes(x, dim, &least, &largest);
  const float bound = kernels.all_finite(x, dim) ? std::max(largest, -least) : NAN;
  page.scale(row) = bound / 127;
  // Of a bound so small that its scale or factor is no normal number nothing is kept.
  if (bound > 1e-30f) return kernels.narrow_int8(x, dim, 127 / bound, page.codes(row));
  std::memset(page.codes(row), 0, static_cast<size_t>(dim));
}

void store(const CpuKernels& kernels, const float* x, const PageTarget& page, int64_t row) {
  const int64_t dim = page.format.dim;
  switch (page.format.type) {
    case KvType::fp32:
      std::memcpy(page.floats(row), x, static_cast<size_t>(dim) * sizeof(float));
      return;
    case KvType::fp16:
      return kernels.narrow_f16(x, dim, page.halves(row));
    case KvType::bf16:
      return kernels.narrow_bf16(x, dim, page.halves(row));
    case KvType::int8:
      return store_int8(kernels, x, page, row);
  }
}

/// Rows that are expanded between two requests for memory.
constexpr int64_t kRowsAtOnce = 8;

/// Asks for rows [row, row + count) of what is read next. A head of a page is too short a stream for the
/// processor to follow by itself.
void prefetch_rows(const KvNext& next, int64_t row, int64_t count) {
  if (next.pages == nullptr) return;
  const int64_t position = next.first + row;
  if (position / kPageRows >= std::ssize(next.pages->blocks)) return;
  const KvFormat& format = next.pages->format;
  const size_t row_bytes = static_cast<size_t>(format.dim) * format.element_bytes();
  const PageSource page{next.pages->head(position / kPageRows, next.head), format};
  const std::byte* bytes = page.bytes + static_cast<size_t>(position % kPageRows) * row_bytes;
  // Into the second-level cache: the first is full of what is worked on.
  for (size_t i = 0; i < static_cast<size_t>(count) * row_bytes; i += 64) __builtin_prefetch(bytes + i, 0, 2);
  if (format.type == KvType::int8) __builtin_prefetch(&page.scale(position % kPageRows), 0, 2);
}

}  // namespace

KvRows rows_of(const CpuKernels& kernels, const KvPages& pages, const KvRange& range, ScratchUse use,
               const KvNext& next) {
  const int64_t dim = pages.format.dim;
  const int64_t end = range.first + range.count;
  const int64_t first_page = range.first / kPageRows;
  if (pages.format.type == KvType::fp32 && end <= (first_page + 1) * kPageRows) {
    const PageSource page{pages.head(first_page, range.head), pages.format};
    return {page.floats(range.first % kPageRows), dim};
  }
  auto* out = scratch<float>(use, range.count * dim);
  for (int64_t position = range.first; position < end;) {
    const PageSource page{pages.head(position / kPageRows, range.head), pages.format};
    const int64_t page_end = std::min(end, (position / kPageRows + 1) * kPageRows);
    while (position < page_end) {
      const int64_t done = position - range.first;
      const int64_t count = std::min(page_end - position, kRowsAtOnce);
      prefetch_rows(next, done, count);
      expand(kernels, page, {range.head, position % kPageRows, count}, out + done * dim);
      position += count;
    }
  }
  return {out, dim};
}

void store_rows(const CpuKernels& kernels, const KvStore& problem) {
  const KvPages& pages = problem.pages;
  const int64_t dim = pages.format.dim;
  const int64_t features = pages.format.heads * dim;
  const float* x = problem.x.values<float>().data();
  const auto grain = static_cast<size_t>(std::max<int64_t>(1, kPieceElements / features));
  parallel_for(static_cast<size_t>(problem.x.dim(0)), grain, [&](size_t begin, size_t end) {
    for (auto i = static_cast<int64_t>(begin); i < static_cast<int64_t>(end); ++i) {
      const int64_t position = problem.first + i;
      std::byte* heads = pages.mutable_head(position / kPageRows, 0);
      for (int64_t head = 0; head < pages.format.heads; ++head) {
        const PageTarget page{heads + static_cast<size_t>(head) * pages.format.head_bytes(), pages.format};
        store(kernels, x + i * features + head * dim, page, position % kPageRows);
      }
    }
  });
}

}  // namespace salient
