#include "tensor/tensor.h"

#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "base/parallel.h"

namespace salient {
namespace {

constexpr size_t kAlignment = 64;  // a cache line and a zmm register

std::shared_ptr<std::byte> allocate(size_t bytes) {
  const size_t rounded = (std::max<size_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(kAlignment, rounded));
  if (memory == nullptr) fail(ErrorKind::out_of_memory, "cannot allocate {} bytes for a tensor", bytes);
  return {memory, [](std::byte* p) { std::free(p); }};
}

}  // namespace

std::string to_string(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

int64_t element_count(const Shape& shape) {
  int64_t count = 1;
  for (const int64_t dim : shape) count *= dim;
  return count;
}

Tensor Tensor::empty(DType dtype, Shape shape) {
  const size_t bytes = static_cast<size_t>(salient::element_count(shape)) * salient::byte_size(dtype);
  return in(dtype, std::move(shape), allocate(bytes));
}

Tensor Tensor::in(DType dtype, Shape shape, std::shared_ptr<std::byte> memory) {
  Tensor result;
  result.dtype_ = dtype;
  result.shape_ = std::move(shape);
  result.data_ = memory.get();
  result.writable_ = true;
  result.owner_ = std::move(memory);
  return result;
}

Tensor Tensor::zeros(DType dtype, Shape shape) {
  Tensor result = empty(dtype, std::move(shape));
  std::memset(result.data_, 0, result.byte_size());
  return result;
}

Tensor Tensor::view(DType dtype, Shape shape, const void* data, std::shared_ptr<const void> owner) {
  Tensor result;
  result.dtype_ = dtype;
  result.shape_ = std::move(shape);
  result.data_ = const_cast<std::byte*>(static_cast<const std::byte*>(data));
  result.owner_ = std::move(owner);
  return result;
}

std::byte* Tensor::mutable_bytes() {
  require(dtype_, true);
  return data_;
}

void copy_rows(const Tensor& from, Tensor& to, int64_t row) {
  Tensor target = to.slice(row, row + from.dim(0));
  if (target.dtype() != from.dtype() || target.shape() != from.shape()) {
    fail(ErrorKind::internal, "rows {} {} for a tensor {} {}", to_string(from.dtype()),
         to_string(from.shape()), to_string(to.dtype()), to_string(to.shape()));
  }
  std::memcpy(target.mutable_bytes(), from.bytes(), from.byte_size());
}

Tensor Tensor::slice(int64_t begin, int64_t end) const {
  if (shape_.empty() || begin < 0 || end < begin || end > shape_[0]) {
    fail(ErrorKind::internal, "rows [{}, {}) of a tensor {}", begin, end, to_string(shape_));
  }
  Tensor result = *this;
  result.shape_[0] = 1;
  result.data_ += static_cast<size_t>(begin) * result.byte_size();
  result.shape_[0] = end - begin;
  return result;
}

Tensor Tensor::reshape(Shape shape) const {
  if (salient::element_count(shape) != element_count()) {
    fail(ErrorKind::internal, "cannot reshape {} to {}", to_string(shape_), to_string(shape));
  }
  Tensor result = *this;
  result.shape_ = std::move(shape);
  return result;
}

Tensor Tensor::to(DType dtype) const {
  Tensor result = empty(dtype, shape_);
  if (dtype == dtype_) {
    std::memcpy(result.data_, data_, byte_size());
    return result;
  }
  constexpr size_t kGrain = 1 << 16;
  const size_t from_bytes = salient::byte_size(dtype_);
  const size_t to_bytes = salient::byte_size(dtype);
  parallel_for(static_cast<size_t>(element_count()), kGrain, [&](size_t begin, size_t end) {
    const std::byte* in = data_ + begin * from_bytes;
    std::byte* out = result.data_ + begin * to_bytes;
    if (dtype == DType::f32)
      return convert_to_float(dtype_, in, {reinterpret_cast<float*>(out), end - begin});
    std::vector<float> buffer(end - begin);
    convert_to_float(dtype_, in, buffer);
    convert_from_float(buffer, dtype, out);
  });
  return result;
}

void Tensor::require(DType dtype, bool writable) const {
  if (dtype != dtype_) {
    fail(ErrorKind::internal, "a {} tensor {} was read as {}", salient::to_string(dtype_), to_string(shape_),
         salient::to_string(dtype));
  }
  if (writable && !writable_) fail(ErrorKind::internal, "write to a read-only tensor {}", to_string(shape_));
}

void fail_value_count(const Shape& shape, size_t count) {
  fail(ErrorKind::internal, "{} values for a tensor {}", count, to_string(shape));
}

}  // namespace salient
