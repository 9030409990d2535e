#include "runtime/kv_cache.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace salient {
namespace {

constexpr int64_t kMinimumCapacity = 256;

void copy_rows(const Tensor& from, int64_t rows, Tensor& to, int64_t first) {
  const Tensor source = from.slice(0, rows);
  Tensor target = to.slice(first, first + rows);
  std::memcpy(target.mutable_bytes(), source.bytes(), source.byte_size());
}

}  // namespace

void LayerCache::store(int64_t first, const Tensor& keys, const Tensor& values) {
  const int64_t count = keys.dim(0);
  if (keys.dim(1) != key_features_ || values.shape() != Shape{count, value_features_} || first < 0) {
    fail(ErrorKind::internal, "kv cache of {} and {} features: keys {}, values {} at row {}", key_features_,
         value_features_, to_string(keys.shape()), to_string(values.shape()), first);
  }
  reserve(first + count, first);
  copy_rows(keys, count, keys_, first);
  copy_rows(values, count, values_, first);
}

void LayerCache::reserve(int64_t rows, int64_t used) {
  const int64_t capacity = keys_.defined() ? keys_.dim(0) : 0;
  if (used > capacity) fail(ErrorKind::internal, "kv cache: row {} of {}", used, capacity);
  if (rows <= capacity) return;
  const int64_t grown = std::max({rows, 2 * capacity, kMinimumCapacity});
  const auto grow = [&](int64_t features, Tensor& tensor) {
    Tensor larger = Tensor::empty(DType::f32, {grown, features});
    if (used > 0) copy_rows(tensor, used, larger, 0);
    tensor = std::move(larger);
  };
  grow(key_features_, keys_);
  grow(value_features_, values_);
}

LayerCache LayerCache::copy(int64_t rows) const {
  LayerCache result(key_features_, value_features_);
  if (rows > 0 && keys_.defined()) result.store(0, keys_.slice(0, rows), values_.slice(0, rows));
  result.state_ = state_;  // states are replaced, not changed
  return result;
}

uint64_t LayerCache::byte_size(int64_t rows) const {
  const auto bytes_of = [](const Tensor& tensor) { return tensor.defined() ? tensor.byte_size() : 0; };
  if (!keys_.defined()) return bytes_of(state_.tail) + bytes_of(state_.matrices);
  return static_cast<uint64_t>(rows * (key_features_ + value_features_)) * salient::byte_size(DType::f32);
}

KvCache::KvCache(const DecoderSpec& spec)
    : has_state_(spec.linear_attention.has_value()),
      layers_(static_cast<size_t>(spec.layers), LayerCache(spec.key_features(), spec.value_features())) {}

uint64_t KvCache::byte_size() const {
  uint64_t bytes = 0;
  for (const LayerCache& layer : layers_) bytes += layer.byte_size(length_);
  return bytes;
}

KvCache KvCache::copy() const {
  KvCache result = *this;
  for (LayerCache& layer : result.layers_) layer = layer.copy(length_);
  return result;
}

void KvCache::mark() {
  if (!has_state_) return;
  marked_.clear();
  for (const LayerCache& layer : layers_) marked_.push_back(layer.state());
  marked_length_ = length_;
}

void KvCache::truncate(int64_t length) {
  if (length < 0 || length > length_) {
    fail(ErrorKind::invalid_argument, "kv cache: cannot keep {} of {} positions", length, length_);
  }
  // Position 0 needs no state: the first pass begins with zeros.
  const bool marked = !marked_.empty() && length == marked_length_;
  if (has_state_ && length > 0 && length < length_ && !marked) {
    fail(ErrorKind::unsupported,
         "kv cache: a model with linear attention cannot go back to {} of {} positions", length, length_);
  }
  // Also where the length stays: layers may have run ahead of it when a pass failed.
  if (marked) {
    for (size_t layer = 0; layer < layers_.size(); ++layer) layers_[layer].store(marked_[layer]);
  }
  length_ = length;
}

}  // namespace salient
