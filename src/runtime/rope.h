#pragma once

#include <span>
#include <vector>

#include "model/decoder_spec.h"
#include "tensor/tensor.h"

namespace salient {

/// Rows of a batch that stand at positions [first_position, first_position + count) of a sequence whose
/// length, all chunks of this prompt included, is `sequence_length`: dynamic and longrope choose their
/// frequencies by it.
struct RopeSpan {
  int64_t first_position;
  int64_t count;
  int64_t sequence_length;
};

/// Cosines and sines of the rotation angles, one row per row of a batch.
class RopeTable {
 public:
  RopeTable(const RopeSpec& spec, std::span<const RopeSpan> spans);

  const Tensor& cosine() const { return cosine_; }  ///< f32 [rows, rotary_dim / 2]
  const Tensor& sine() const { return sine_; }      ///< f32 like cosine

 private:
  Tensor cosine_;
  Tensor sine_;
};

/// Angle per position of each rotated pair, rotary_dim / 2 of them, for a sequence of this length.
std::vector<float> rope_frequencies(const RopeSpec& spec, int64_t sequence_length);

/// What yarn and longrope multiply cosine and sine by; 1 for the others.
double rope_attention_factor(const RopeSpec& spec);

}  // namespace salient
