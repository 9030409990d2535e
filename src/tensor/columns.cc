#include "tensor/columns.h"

#include <cstring>

#include "base/error.h"
#include "base/parallel.h"

namespace salient {
namespace {

constexpr size_t kRowsPerChunk = 64;

void require_inside(const Tensor& matrix, const ColumnRange& range) {
  if (matrix.shape().size() == 2 && range.begin >= 0 && range.begin <= range.end &&
      range.end <= matrix.dim(1)) {
    return;
  }
  fail(ErrorKind::internal, "columns [{}, {}) of a tensor {}", range.begin, range.end,
       to_string(matrix.shape()));
}

}  // namespace

Tensor take_columns(const Tensor& matrix, const ColumnRange& range, int64_t row_step) {
  require_inside(matrix, range);
  const int64_t rows = (matrix.dim(0) + row_step - 1) / row_step;
  Tensor result = Tensor::empty(matrix.dtype(), {rows, range.count()});
  const size_t element = byte_size(matrix.dtype());
  const size_t width = static_cast<size_t>(range.count()) * element;
  const size_t stride = static_cast<size_t>(matrix.dim(1) * row_step) * element;
  const std::byte* from = matrix.bytes() + static_cast<size_t>(range.begin) * element;
  std::byte* to = result.mutable_bytes();
  parallel_for(static_cast<size_t>(rows), kRowsPerChunk, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row) std::memcpy(to + row * width, from + row * stride, width);
  });
  return result;
}

void put_columns(const Tensor& part, int64_t begin, Tensor& matrix) {
  const int64_t count = part.shape().size() == 2 ? part.dim(1) : 0;
  require_inside(matrix, {begin, begin + count});
  if (part.dtype() != matrix.dtype() || part.dim(0) != matrix.dim(0)) {
    fail(ErrorKind::internal, "columns {} {} do not go into a tensor {} {}", to_string(part.dtype()),
         to_string(part.shape()), to_string(matrix.dtype()), to_string(matrix.shape()));
  }
  const size_t element = byte_size(matrix.dtype());
  const size_t width = static_cast<size_t>(count) * element;
  const size_t stride = static_cast<size_t>(matrix.dim(1)) * element;
  std::byte* to = matrix.mutable_bytes() + static_cast<size_t>(begin) * element;
  for (size_t row = 0; row < static_cast<size_t>(part.dim(0)); ++row)
    std::memcpy(to + row * stride, part.bytes() + row * width, width);
}

}  // namespace salient
