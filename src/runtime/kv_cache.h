#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "model/decoder_spec.h"
#include "tensor/tensor.h"

namespace salient {

/// What linear attention remembers of all tokens so far, f32.
struct RecurrentState {
  Tensor tail;      ///< [kernel - 1, channels], the last inputs of the convolution
  Tensor matrices;  ///< [value heads, key_dim, value_dim]
};

/// Where the pages of a model lie in a block.
class KvLayout {
 public:
  KvLayout(const DecoderSpec& spec, KvType type);

  KvFormat keys;
  KvFormat values;
  size_t block_bytes = 0;

  bool has_pages(int64_t layer) const { return offsets_[static_cast<size_t>(layer)] != kNone; }
  size_t keys_at(int64_t layer) const { return offsets_[static_cast<size_t>(layer)]; }
  size_t values_at(int64_t layer) const { return keys_at(layer) + keys.page_bytes(); }

 private:
  static constexpr size_t kNone = SIZE_MAX;
  std::vector<size_t> offsets_;  // of a layer's keys, its values behind them
};

/// Keys or values of one layer as they are kept, for files.
struct KvTensors {
  Tensor elements;  ///< f32, f16 or i8 [heads, positions, dim]
  Tensor scales;    ///< of i8: f32 [heads, positions]; else undefined
};

/// What a decoder remembers of one sequence. Copies share memory until one of them writes to it, so that each
/// may go its own way.
class KvCache {
 public:
  explicit KvCache(const DecoderSpec& spec, KvType type = KvType::fp32);

  KvType type() const { return layout_->keys.type; }
  int64_t length() const { return length_; }
  /// Of kPageRows positions.
  size_t block_bytes() const { return layout_->block_bytes; }
  /// Bytes that attention to all positions reads, unless a window keeps it from some.
  uint64_t byte_size() const;

  /// Makes room for the positions [first, first + count), in blocks that no other cache has.
  void reserve(int64_t first, int64_t count);
  /// Where a layer's keys and values stand. Valid until the next `reserve`.
  KvView view(int64_t layer) const;
  void store(int64_t layer, RecurrentState state) { states_[static_cast<size_t>(layer)] = std::move(state); }
  const RecurrentState& state(int64_t layer) const { return states_[static_cast<size_t>(layer)]; }

  /// After every layer stored `count` more positions.
  void advance(int64_t count) { length_ += count; }
  /// Marks the length as one that `truncate` can come back to. Costs nothing: states are replaced, not
  /// changed.
  void mark();
  /// Forgets the positions from `length` on. Errors: invalid_argument when there are fewer; unsupported for a
  /// model with linear attention, whose states of other positions are gone, unless `length` is 0, all, or
  /// that of the last mark.
  void truncate(int64_t length);

  /// The blocks that are full. Whoever keeps them keeps what they hold.
  std::span<const KvBlock> full_blocks() const;
  /// Makes an empty cache begin with full blocks of a cache of the same model and type.
  void begin_with(std::span<const KvBlock> blocks);

  KvTensors keys(int64_t layer) const { return gather(layout_->keys, layout_->keys_at(layer)); }
  KvTensors values(int64_t layer) const { return gather(layout_->values, layout_->values_at(layer)); }
  /// Fills positions [0, count) of a layer.
  void restore(int64_t layer, const KvTensors& keys, const KvTensors& values);

 private:
  KvTensors gather(const KvFormat& format, size_t offset) const;

  std::shared_ptr<const KvLayout> layout_;
  std::vector<KvBlock> blocks_;
  std::vector<RecurrentState> states_;  // of each layer, empty without linear attention
  int64_t length_ = 0;
  std::vector<RecurrentState> marked_;  // empty before the first mark
  int64_t marked_length_ = 0;
};

}  // namespace salient
