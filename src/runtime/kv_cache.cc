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
  if (keys.dim(1) != features_ || values.shape() != keys.shape() || first < 0) {
    fail(ErrorKind::internal, "kv cache of {} features: keys {}, values {} at row {}", features_,
         to_string(keys.shape()), to_string(values.shape()), first);
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
  for (Tensor* tensor : {&keys_, &values_}) {
    Tensor larger = Tensor::empty(DType::f32, {grown, features_});
    if (used > 0) copy_rows(*tensor, used, larger, 0);
    *tensor = std::move(larger);
  }
}

KvCache::KvCache(const DecoderSpec& spec)
    : layers_(static_cast<size_t>(spec.layers), LayerCache(spec.kv_heads * spec.head_dim)) {}

void KvCache::truncate(int64_t length) {
  if (length < 0 || length > length_) {
    fail(ErrorKind::invalid_argument, "kv cache: cannot keep {} of {} positions", length, length_);
  }
  length_ = length;
}

}  // namespace salient
