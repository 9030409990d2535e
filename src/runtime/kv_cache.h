#pragma once

#include <cstdint>
#include <vector>

#include "model/decoder_spec.h"
#include "tensor/tensor.h"

namespace salient {

/// What linear attention remembers of all tokens so far, f32.
struct RecurrentState {
  Tensor tail;      ///< [kernel - 1, channels], the last inputs of the convolution
  Tensor matrices;  ///< [value heads, key_dim, value_dim]
};

/// Keys (rotated) and values of one layer and sequence, of which row p belongs to position p, or its
/// recurrent state.
class LayerCache {
 public:
  LayerCache(int64_t key_features, int64_t value_features)
      : key_features_(key_features), value_features_(value_features) {}

  /// Writes `keys` and `values` f32 [count, features of each] at rows [first, first + count); doubles the
  /// capacity when they do not fit. Rows before `first` stay.
  void store(int64_t first, const Tensor& keys, const Tensor& values);

  /// Bytes of what is remembered of `rows` positions: of their keys and values, or of the recurrent state.
  uint64_t byte_size(int64_t rows) const;

  const Tensor& keys() const { return keys_; }      ///< f32 [capacity, key features]
  const Tensor& values() const { return values_; }  ///< f32 [capacity, value features]

  /// Of the first `rows` positions, in memory of its own.
  LayerCache copy(int64_t rows) const;

  void store(RecurrentState state) { state_ = std::move(state); }
  const RecurrentState& state() const { return state_; }

 private:
  void reserve(int64_t rows, int64_t used);

  int64_t key_features_;
  int64_t value_features_;
  Tensor keys_;
  Tensor values_;
  RecurrentState state_;
};

/// What a decoder remembers of one sequence. Copies share memory, so that only one of them may go on; see
/// `copy`.
class KvCache {
 public:
  explicit KvCache(const DecoderSpec& spec);

  /// In memory of its own: the two sequences may go different ways.
  KvCache copy() const;

  int64_t length() const { return length_; }
  /// Bytes that attention to all positions reads, unless a window keeps it from some.
  uint64_t byte_size() const;
  LayerCache& layer(int64_t index) { return layers_.at(static_cast<size_t>(index)); }
  const LayerCache& layer(int64_t index) const { return layers_.at(static_cast<size_t>(index)); }
  /// After every layer stored `count` more positions.
  void advance(int64_t count) { length_ += count; }
  /// Marks the length as one that `truncate` can come back to. Costs nothing: states are replaced, not
  /// changed.
  void mark();
  /// Forgets the positions from `length` on. Errors: invalid_argument when there are fewer; unsupported for a
  /// model with linear attention, whose states of other positions are gone, unless `length` is 0, all, or
  /// that of the last mark.
  void truncate(int64_t length);

 private:
  bool has_state_;
  std::vector<LayerCache> layers_;
  int64_t length_ = 0;
  std::vector<RecurrentState> marked_;  // of each layer, empty before the first mark
  int64_t marked_length_ = 0;
};

}  // namespace salient
