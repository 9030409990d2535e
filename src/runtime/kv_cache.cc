#include "runtime/kv_cache.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/error.h"

namespace salient {
namespace {

constexpr size_t kCacheLine = 64;

int64_t pages_of(int64_t rows) { return (rows + kPageRows - 1) / kPageRows; }

KvBlock new_block(size_t bytes) {
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(kCacheLine, std::max(bytes, kCacheLine)));
  if (memory == nullptr) fail(ErrorKind::out_of_memory, "cannot allocate {} bytes of a kv cache", bytes);
  return {memory, [](std::byte* p) { std::free(p); }};
}

/// Calls visit(bytes in the page, bytes in the tensor, count) for runs of a tensor [heads, rows, width bytes]
/// that lie `at` bytes behind the start of each head of a page.
template <typename Visit>
void for_each_run(const KvPages& pages, size_t at, size_t width, const Tensor& tensor, const Visit& visit) {
  const int64_t rows = tensor.dim(1);
  size_t position = 0;
  for (int64_t head = 0; head < pages.format.heads; ++head) {
    for (int64_t row = 0; row < rows; row += kPageRows) {
      const size_t count = static_cast<size_t>(std::min(kPageRows, rows - row)) * width;
      visit(pages.head(row / kPageRows, head) + at, position, count);
      position += count;
    }
  }
}

/// Of elements, and of what stands behind them in a head of a page.
template <typename Visit>
void for_each_part(const KvPages& pages, const KvTensors& tensors, const Visit& visit) {
  const size_t width = static_cast<size_t>(pages.format.dim) * pages.format.element_bytes();
  for_each_run(pages, 0, width, tensors.elements, [&](std::byte* page, size_t position, size_t count) {
    visit(page, tensors.elements, position, count);
  });
  if (!tensors.scales.defined()) return;
  for_each_run(
      pages, kPageRows * width, sizeof(float), tensors.scales,
      [&](std::byte* page, size_t position, size_t count) { visit(page, tensors.scales, position, count); });
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

void KvCache::set_block(size_t index, KvBlock block) {
  pointers_[index] = block.get();
  blocks_[index] = std::move(block);
}

/// Blocks for the positions [first, first + count), none of them shared.
void KvCache::reserve(int64_t first, int64_t count) {
  const auto begin = static_cast<size_t>(first / kPageRows);
  const auto end = static_cast<size_t>(pages_of(first + count));
  if (begin > blocks_.size()) fail(ErrorKind::internal, "kv cache: row {} behind its blocks", first);
  blocks_.resize(std::max(end, blocks_.size()));
  pointers_.resize(blocks_.size());
  for (size_t i = begin; i < end; ++i) {
    if (blocks_[i].use_count() == 1) continue;
    KvBlock own = new_block(layout_->block_bytes);
    if (blocks_[i]) std::memcpy(own.get(), blocks_[i].get(), layout_->block_bytes);
    set_block(i, std::move(own));
  }
}

void KvCache::store(Backend& backend, int64_t layer, int64_t first, const Tensor& keys,
                    const Tensor& values) {
  reserve(first, keys.dim(0));
  const KvView pages = view(layer);
  backend.store_rows({.x = keys, .first = first, .pages = pages.keys});
  backend.store_rows({.x = values, .first = first, .pages = pages.values});
}

KvView KvCache::view(int64_t layer) const {
  return {.keys = {layout_->keys, pointers_, layout_->keys_at(layer)},
          .values = {layout_->values, pointers_, layout_->values_at(layer)}};
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
  pointers_.resize(blocks_.size());
  length_ = length;
}

std::span<const KvBlock> KvCache::full_blocks() const {
  return std::span(blocks_).first(static_cast<size_t>(length_ / kPageRows));
}

void KvCache::begin_with(std::span<const KvBlock> blocks) {
  if (length_ > 0 || !states_.empty())
    fail(ErrorKind::internal, "kv cache: blocks for one that is not empty, or that has states");
  blocks_.assign(blocks.begin(), blocks.end());
  pointers_.clear();
  for (const KvBlock& block : blocks_) pointers_.push_back(block.get());
  length_ = std::ssize(blocks_) * kPageRows;
}

KvTensors KvCache::gather(const KvFormat& format, size_t offset) const {
  KvTensors tensors;
  tensors.elements = Tensor::empty(format.element_type(), {format.heads, length_, format.dim});
  if (format.type == KvType::int8) tensors.scales = Tensor::empty(DType::f32, {format.heads, length_});
  for_each_part({format, pointers_, offset}, tensors,
                [](const std::byte* page, Tensor tensor, size_t position, size_t count) {
                  std::memcpy(tensor.mutable_bytes() + position, page, count);
                });
  return tensors;
}

void KvCache::restore(int64_t layer, const KvTensors& keys, const KvTensors& values) {
  reserve(0, keys.elements.dim(1));
  const KvView pages = view(layer);
  const auto put = [](std::byte* page, const Tensor& tensor, size_t position, size_t count) {
    std::memcpy(page, tensor.bytes() + position, count);
  };
  for_each_part(pages.keys, keys, put);
  for_each_part(pages.values, values, put);
}

}  // namespace salient
