#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/layer.h"

namespace salient {

/// Whole sequences that run through the layers together, without caches: rows [begin, begin + rows) of the
/// hidden states of all of them.
struct SequenceBatch {
  int64_t begin;
  int64_t rows;
  std::vector<SequenceSpan> sequences;  ///< relative to `begin`
  std::vector<RopeTable> ropes;
};

/// Enough rows to keep a matrix product busy, few enough for small intermediate tensors.
inline constexpr int64_t kRowsPerBatch = 2048;

/// Packs sequences, in order, into batches of at most `rows_per_batch` rows (a longer sequence has a batch of
/// its own). Batches whose sequences are as long share their angles.
std::vector<SequenceBatch> make_batches(const DecoderSpec& spec,
                                        std::span<const std::vector<int32_t>> sequences,
                                        int64_t rows_per_batch = kRowsPerBatch);

/// The same without angles, which take memory.
std::vector<SequenceBatch> pack_batches(std::span<const std::vector<int32_t>> sequences,
                                        int64_t rows_per_batch);

/// Whether the sequences of two batches are as long, one by one.
bool same_lengths(const SequenceBatch& a, const SequenceBatch& b);

/// Hidden states f32 [tokens of all, hidden] before the first layer, one sequence behind the other.
Tensor embed_sequences(Backend& backend, const ModelWeights& weights,
                       std::span<const std::vector<int32_t>> sequences);

}  // namespace salient
