#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tensor/dtype.h"
#include "tensor/tensor_memory.h"

namespace salient {

using Shape = std::vector<int64_t>;

/// "[128, 576]"
std::string to_string(const Shape& shape);
/// Product of the dimensions; 1 for a scalar.
int64_t element_count(const Shape& shape);

/// The C++ type that holds elements of a DType.
template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<Half> {
  static constexpr DType value = DType::f16;
};
template <>
struct DTypeOf<BFloat16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::i64;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct DTypeOf<int16_t> {
  static constexpr DType value = DType::i16;
};
template <>
struct DTypeOf<int8_t> {
  static constexpr DType value = DType::i8;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::u8;
};

/// A contiguous row-major array that keeps its memory alive: owned (64-byte aligned, writable) or a read-only
/// view into something else, such as a mapped file. Copies are shallow. The memory may have a copy on a
/// device; whoever reads, there or on the host, gets what was written last, and each access says for how long
/// its address is good.
class Tensor {
 public:
  Tensor() = default;

  /// Owned, uninitialised. Errors: out_of_memory.
  static Tensor empty(DType dtype, Shape shape);
  static Tensor zeros(DType dtype, Shape shape);
  /// Uninitialised in memory from elsewhere, 64-byte aligned and large enough.
  static Tensor in(DType dtype, Shape shape, std::shared_ptr<std::byte> memory);
  /// Owned copy of `values`. Errors: internal when the counts differ.
  template <typename T>
  static Tensor of(Shape shape, std::span<const T> values);
  /// Read-only view; `owner` keeps `data` alive.
  static Tensor view(DType dtype, Shape shape, const void* data, std::shared_ptr<const void> owner);

  bool defined() const { return memory_ != nullptr; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t dim(size_t axis) const { return shape_.at(axis); }
  int64_t element_count() const { return salient::element_count(shape_); }
  size_t byte_size() const { return static_cast<size_t>(element_count()) * salient::byte_size(dtype_); }

  /// Whether it begins at the same place of the same memory.
  bool aliases(const Tensor& other) const { return data_ == other.data_; }

  /// Good until a device writes the memory.
  const std::byte* bytes() const {
    if (memory_ != nullptr) memory_->read_on_host();
    return data_;
  }
  /// Good until a device reads or writes the memory. Errors: internal for a view.
  std::byte* mutable_bytes();

  /// Typed access; internal error when T is not the dtype (or, for mutable_values, the tensor is a view).
  template <typename T>
  std::span<const T> values() const;
  template <typename T>
  std::span<T> mutable_values();

  /// Rows [begin, end) of the first axis, sharing memory.
  Tensor slice(int64_t begin, int64_t end) const;
  /// The same memory under another shape of the same count.
  Tensor reshape(Shape shape) const;
  /// Owned copy converted between floating types (a plain copy when the type is the same).
  Tensor to(DType dtype) const;
  /// Owned copy, on the device if the bytes are current there alone.
  Tensor duplicate() const;

  /// For back ends: where the first element lies on a device, current; null without elements. Good until the
  /// host writes the memory.
  const void* device_read(const std::shared_ptr<DeviceMemory>& device) const;
  /// The same for elements that are changed; the host's are stale from now on. Errors: internal for a view.
  void* device_update(const std::shared_ptr<DeviceMemory>& device);
  /// The address of a copy that is there already, see TensorMemory::find_on.
  void* device_find(const std::shared_ptr<DeviceMemory>& device, bool written, uint64_t use) const {
    void* address = memory_->find_on(device, written, use);
    return address == nullptr ? nullptr : static_cast<std::byte*>(address) + offset();
  }
  /// The same where each element is written and none read: they need not be current. What a slice leaves of
  /// its memory is kept. A tensor that is read as well, under another name, is to be asked for that first.
  void* device_write(const std::shared_ptr<DeviceMemory>& device);

 private:
  void require(DType dtype, bool writable) const;
  size_t offset() const { return static_cast<size_t>(data_ - memory_->host()); }
  void take_bytes(const Tensor& from);
  friend void copy_rows(const Tensor& from, Tensor& to, int64_t row);

  DType dtype_ = DType::f32;
  Shape shape_;
  std::byte* data_ = nullptr;  // in the host's bytes of memory_, current or not
  bool writable_ = false;
  std::shared_ptr<TensorMemory> memory_;
};

template <typename T>
std::span<const T> Tensor::values() const {
  require(DTypeOf<T>::value, false);
  return {reinterpret_cast<const T*>(bytes()), static_cast<size_t>(element_count())};
}

template <typename T>
std::span<T> Tensor::mutable_values() {
  require(DTypeOf<T>::value, true);
  memory_->write_on_host();
  return {reinterpret_cast<T*>(data_), static_cast<size_t>(element_count())};
}

/// Rows [row, row + rows of `from`) of `to` become those of `from`, which has its type and width.
void copy_rows(const Tensor& from, Tensor& to, int64_t row);

/// Fails with an internal error: `Tensor::of` was given the wrong number of values.
[[noreturn]] void fail_value_count(const Shape& shape, size_t count);

template <typename T>
Tensor Tensor::of(Shape shape, std::span<const T> values) {
  if (salient::element_count(shape) != static_cast<int64_t>(values.size()))
    fail_value_count(shape, values.size());
  Tensor result = empty(DTypeOf<T>::value, std::move(shape));
  std::copy(values.begin(), values.end(), result.mutable_values<T>().begin());
  return result;
}

}  // namespace salient
