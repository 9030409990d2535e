#pragma once

#include "runtime/decoder.h"

namespace salient::gpu {

/// Sizes of a decoder of the Llama family.
struct ModelShape {
  int64_t hidden = 4096;
  int64_t intermediate = 14336;
  int64_t layers = 32;
  int64_t heads = 32;
  int64_t kv_heads = 8;
  int64_t vocabulary = 128256;
};

/// The config.json of such a model.
Json config_of(const ModelShape& shape);
/// A decoder of random weights: linears of 4 bits, asymmetric, in groups of 128 columns; embedding and head
/// in f16. The back end must outlive it.
Decoder random_decoder(Backend& backend, const ModelShape& shape, KvType kv_type);
/// A checkpoint of dense random weights in bf16, with the tensors of trained models' sizes.
void write_random_checkpoint(const ModelShape& shape, const std::string& directory);

}  // namespace salient::gpu
