#pragma once

#include <functional>
#include <span>

#include "backend/backend.h"
#include "model/weights.h"
#include "runtime/kv_cache.h"
#include "runtime/rope.h"

namespace salient {

/// One decoder layer ready to run.
struct PreparedLayer {
  std::array<std::unique_ptr<PreparedLinear>, kLinearRoles> linears;
  std::array<Tensor, kNormRoles> norms;  ///< f32

  const PreparedLinear& operator[](LinearRole role) const { return *linears[static_cast<size_t>(role)]; }
  const Tensor& operator[](NormRole role) const { return norms[static_cast<size_t>(role)]; }
};

PreparedLayer prepare_layer(Backend& backend, const LayerWeights& weights);

/// Rows [begin, begin + count) of a batch belong to one sequence and continue at position `first_position`.
struct SequenceSpan {
  int64_t begin;
  int64_t count;
  int64_t first_position;
  LayerCache* cache;  ///< keys and values of this layer and sequence; null: the sequence starts and ends in
                      ///< this batch
};

/// Angles for a batch of whole sequences, or of chunks that end at the last position known.
RopeTable make_rope_table(const RopeSpec& spec, std::span<const SequenceSpan> sequences);

/// Sees the input of a linear [rows, in_features] before the product. Linears that share an input each report
/// it.
using LinearObserver = std::function<void(LinearRole role, const Tensor& input)>;

struct LayerRun {
  Backend& backend;
  const DecoderSpec& spec;
  const RopeTable& rope;  ///< one row per row of the batch, see make_rope_table
  int64_t layer;
  std::span<const SequenceSpan> sequences;
  const LinearObserver* observer = nullptr;
};

/// hidden [rows, hidden_size] -> hidden, in place: x += attention(norm(x)); x += mlp(norm(x)).
void run_layer(const LayerRun& run, const PreparedLayer& weights, Tensor& hidden);

}  // namespace salient
