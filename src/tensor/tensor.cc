#include "tensor/tensor.h"

#include <cstring>

#include "base/error.h"
#include "base/parallel.h"

namespace salient {
std::string to_string(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

int64_t element_count(const Shape& shape) {
  int64_t count = 1;
  for (const int64_t dim : shape) count *= dim;
  return count;
}

Tensor Tensor::empty(DType dtype, Shape shape) {
  Tensor result;
  result.dtype_ = dtype;
  result.shape_ = std::move(shape);
  result.memory_ = std::make_shared<TensorMemory>(result.byte_size());
  result.data_ = result.memory_->host();
  result.writable_ = true;
  return result;
}

Tensor Tensor::in(DType dtype, Shape shape, std::shared_ptr<std::byte> memory) {
  Tensor result;
  result.dtype_ = dtype;
  result.shape_ = std::move(shape);
  result.data_ = memory.get();
  result.writable_ = true;
  result.memory_ = std::make_shared<TensorMemory>(result.data_, result.byte_size(), std::move(memory),
                                                  TensorMemory::State::fresh);
  return result;
}

Tensor Tensor::zeros(DType dtype, Shape shape) {
  Tensor result = empty(dtype, std::move(shape));
  std::memset(result.mutable_bytes(), 0, result.byte_size());
  return result;
}

Tensor Tensor::view(DType dtype, Shape shape, const void* data, std::shared_ptr<const void> owner) {
  Tensor result;
  result.dtype_ = dtype;
  result.shape_ = std::move(shape);
  result.data_ = const_cast<std::byte*>(static_cast<const std::byte*>(data));
  result.memory_ = std::make_shared<TensorMemory>(result.data_, result.byte_size(), std::move(owner),
                                                  TensorMemory::State::host);
  return result;
}

std::byte* Tensor::mutable_bytes() {
  require(dtype_, true);
  memory_->write_on_host();
  return data_;
}

const void* Tensor::device_read(const std::shared_ptr<DeviceMemory>& device) const {
  if (byte_size() == 0) return nullptr;
  return static_cast<const std::byte*>(memory_->read_on(device)) + offset();
}

void* Tensor::device_update(const std::shared_ptr<DeviceMemory>& device) {
  require(dtype_, true);
  if (byte_size() == 0) return nullptr;
  return static_cast<std::byte*>(memory_->update_on(device)) + offset();
}

void* Tensor::device_write(const std::shared_ptr<DeviceMemory>& device) {
  require(dtype_, true);
  if (byte_size() != memory_->byte_size()) return device_update(device);
  return memory_->overwrite_on(device);
}

/// On the device where the bytes of one of the two are current there alone, so that none comes to the host.
void Tensor::take_bytes(const Tensor& from) {
  const size_t bytes = byte_size();
  if (bytes == 0 || from.memory_->state() == TensorMemory::State::fresh) return;
  auto device = from.memory_->only_on();
  if (device == nullptr) device = memory_->only_on();
  const auto take_there = [&] {
    struct LetGo {
      DeviceMemory& device;
      ~LetGo() { device.let_go(); }
    } const behind{*device};
    const bool is_there = from.memory_->is_current_on(device);
    const void* source = is_there ? from.device_read(device) : nullptr;
    void* to = device_write(device);
    if (is_there) {
      device->copy(to, source, bytes);
    } else {
      device->upload(to, from.bytes(), bytes);
    }
  };
  try {
    if (device != nullptr) return take_there();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::out_of_memory) throw;  // else the host has room
  }
  std::memcpy(mutable_bytes(), from.bytes(), bytes);
}

void copy_rows(const Tensor& from, Tensor& to, int64_t row) {
  Tensor target = to.slice(row, row + from.dim(0));
  if (target.dtype() != from.dtype() || target.shape() != from.shape()) {
    fail(ErrorKind::internal, "rows {} {} for a tensor {} {}", to_string(from.dtype()),
         to_string(from.shape()), to_string(to.dtype()), to_string(to.shape()));
  }
  target.take_bytes(from);
}

Tensor Tensor::duplicate() const {
  Tensor result = empty(dtype_, shape_);
  result.take_bytes(*this);
  return result;
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
  if (dtype == dtype_) return duplicate();
  Tensor result = empty(dtype, shape_);
  const std::byte* from = bytes();
  std::byte* to = result.mutable_bytes();
  constexpr size_t kGrain = 1 << 16;
  const size_t from_bytes = salient::byte_size(dtype_);
  const size_t to_bytes = salient::byte_size(dtype);
  parallel_for(static_cast<size_t>(element_count()), kGrain, [&](size_t begin, size_t end) {
    const std::byte* in = from + begin * from_bytes;
    std::byte* out = to + begin * to_bytes;
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
