#include "runtime/kv_cache.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace salient {
namespace {

int64_t pages_of(int64_t rows) { return (rows + kPageRows - 1) / kPageRows; }

/// `count` bytes that lie together, in a page and in a tensor of KvTensors.
struct Run {
  int64_t page;
  int64_t head;
  size_t at;  ///< behind the start of the head
  const Tensor& tensor;
  size_t position;  ///< in the tensor
  size_t count;
};

/// Calls visit(Run) for the runs of a tensor [heads, rows, width bytes] that lie `at` bytes behind the start
/// of each head of a page.
template <typename Visit>
void for_each_run(const KvFormat& format, size_t at, size_t width, const Tensor& tensor, const Visit& visit) {
  const int64_t rows = tensor.dim(1);
  size_t position = 0;
  for (int64_t head = 0; head < format.heads; ++head) {
    for (int64_t row = 0; row < rows; row += kPageRows) {
      const size_t count = static_cast<size_t>(std::min(kPageRows, rows - row)) * width;
      visit(Run{row / kPageRows, head, at, tensor, position, count});
      position += count;
    }
  }
}

/// Of elements, and of what stands behind them in a head of a page.
template <typename Visit>
void for_each_part(const KvFormat& format, const KvTensors& tensors, const Visit& visit) {
  const size_t width = static_cast<size_t>(format.dim) * format.element_bytes();
  for_each_run(format, 0, width, tensors.elements, visit);
  if (!tensors.scales.defined()) return;
  for_each_run(format, kPageRows * width, sizeof(float), tensors.scales, visit);
}

}  // namespace

KvLayout::KvLayout(const DecoderSpec& spec, KvType type)
    : keys{type, spec.kv_heads, spec.head_dim}, values{type, spec.kv_heads, spec.value_dim} {
  for (int64_t layer = 0; layer < spec.layers; ++layer) {
    offsets_.push_back(spec.has_state(layer) ? kNone : block_bytes);
    if (has_pages(layer)) block_bytes += keys.page_bytes() + values.page_bytes();
  }
}

KvCache::KvCache(const DecoderSpec& spec, KvType type)
    : layout_(std::make_shared<KvLayout>(spec, type)),
      states_(spec.linear_attention ? static_cast<size_t>(spec.layers) : 0) {}

uint64_t KvCache::byte_size() const {
  uint64_t bytes = layout_->block_bytes * static_cast<uint64_t>(length_) / kPageRows;
  for (const RecurrentState& state : states_) {
    if (state.tail.defined()) bytes += state.tail.byte_size() + state.matrices.byte_size();
  }
  return bytes;
}

void KvCache::reserve(int64_t first, int64_t count) {
  const auto begin = static_cast<size_t>(first / kPageRows);
  const auto end = static_cast<size_t>(pages_of(first + count));
  if (begin > blocks_.size()) fail(ErrorKind::internal, "kv cache: row {} behind its blocks", first);
  blocks_.resize(std::max(end, blocks_.size()));
  const Shape shape{static_cast<int64_t>(layout_->block_bytes)};
  for (size_t i = begin; i < end; ++i) {
    KvBlock& block = blocks_[i];
    if (block.use_count() == 1) continue;
    block = std::make_shared<Tensor>(block ? block->duplicate() : Tensor::empty(DType::u8, shape));
  }
}

KvView KvCache::view(int64_t layer) const {
  return {.keys = {layout_->keys, blocks_, layout_->keys_at(layer)},
          .values = {layout_->values, blocks_, layout_->values_at(layer)}};
}

void KvCache::mark() {
  marked_ = states_;
  marked_length_ = length_;
}

void KvCache::truncate(int64_t length) {
  if (length < 0 || length > length_) {
    fail(ErrorKind::invalid_argument, "kv cache: cannot keep {} of {} positions", length, length_);
  }
  // Position 0 needs no state: the first pass begins with zeros.
  const bool marked = !marked_.empty() && length == marked_length_;
  if (!states_.empty() && length > 0 && length < length_ && !marked) {
    fail(ErrorKind::unsupported,
         "kv cache: a model with linear attention cannot go back to {} of {} positions", length, length_);
  }
  // Also where the length stays: layers may have run ahead of it when a pass failed.
  if (marked) states_ = marked_;
  blocks_.resize(std::min(blocks_.size(), static_cast<size_t>(pages_of(length))));
  length_ = length;
}

std::span<const KvBlock> KvCache::full_blocks() const {
  return std::span(blocks_).first(static_cast<size_t>(length_ / kPageRows));
}

void KvCache::begin_with(std::span<const KvBlock> blocks) {
  if (length_ > 0 || !states_.empty())
    fail(ErrorKind::internal, "kv cache: blocks for one that is not empty, or that has states");
  blocks_.assign(blocks.begin(), blocks.end());
  length_ = std::ssize(blocks_) * kPageRows;
}

KvTensors KvCache::gather(const KvFormat& format, size_t offset) const {
  KvTensors tensors;
  tensors.elements = Tensor::empty(format.element_type(), {format.heads, length_, format.dim});
  if (format.type == KvType::int8) tensors.scales = Tensor::empty(DType::f32, {format.heads, length_});
  const KvPages pages{format, blocks_, offset};
  for_each_part(format, tensors, [&](const Run& run) {
    Tensor to = run.tensor;
    std::memcpy(to.mutable_bytes() + run.position, pages.head(run.page, run.head) + run.at, run.count);
  });
  return tensors;
}

void KvCache::restore(int64_t layer, const KvTensors& keys, const KvTensors& values) {
  reserve(0, keys.elements.dim(1));
  const KvView pages = view(layer);
  const auto put = [](const KvPages& to, const KvTensors& from) {
    for_each_part(to.format, from, [&](const Run& run) {
      std::memcpy(to.mutable_head(run.page, run.head) + run.at, run.tensor.bytes() + run.position, run.count);
    });
  };
  put(pages.keys, keys);
  put(pages.values, values);
}

}  // namespace salient
