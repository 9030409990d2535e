#include "gpu/synthetic_model.h"

#include <cmath>

#include "checkpoint/checkpoint_writer.h"
#include "gpu/random_data.h"

namespace salient::gpu {
namespace {

/// As initialised for training: outputs of linears are about as large as their inputs.
float deviation_of(int64_t columns) { return 1 / std::sqrt(static_cast<float>(columns)); }

PreparedLayer random_layer(Backend& backend, const DecoderSpec& spec, int64_t layer) {
  PreparedLayer prepared;
  auto seed = static_cast<uint64_t>(1000 * (layer + 1));
  for (const LinearSlot& slot : spec.linears(layer)) {
    LinearWeight weight;
    weight.quantized =
        random_weight({.num_bits = 4, .symmetric = false, .group_size = 128}, slot.out_features,
                      slot.in_features, seed += 10, deviation_of(slot.in_features));
    prepared.linears[slot.id] = backend.prepare(weight);
  }
  for (const NormRole role : {NormRole::attention, NormRole::mlp}) {
    Tensor gain = random_floats({spec.hidden_size}, ++seed, 0.2f);
    for (float& value : gain.mutable_values<float>()) value += 1;
    prepared.norms[static_cast<size_t>(role)].gain = gain;
  }
  return prepared;
}

}  // namespace

Json config_of(const ModelShape& shape) {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"hidden_size", shape.hidden},
          {"intermediate_size", shape.intermediate},
          {"num_hidden_layers", shape.layers},
          {"num_attention_heads", shape.heads},
          {"num_key_value_heads", shape.kv_heads},
          {"vocab_size", shape.vocabulary},
          {"max_position_embeddings", 131072},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 500000.0},
          {"hidden_act", "silu"},
          {"tie_word_embeddings", false},
          {"torch_dtype", "bfloat16"}};
}

Decoder random_decoder(Backend& backend, const ModelShape& shape, KvType kv_type) {
  const Json config = config_of(shape);
  DecoderParts parts{
      .spec = make_decoder_spec(JsonView(config, "config")), .layers = {}, .embedding = {}, .head = {}};
  for (int64_t layer = 0; layer < shape.layers; ++layer)
    parts.layers.push_back(random_layer(backend, parts.spec, layer));
  const Tensor table = random_halves({shape.vocabulary, shape.hidden}, DType::f16, 7, 1);
  parts.embedding.table = table;
  parts.head.norm.gain = random_floats({shape.hidden}, 8, 1);
  LinearWeight head;
  head.dense = random_halves({shape.vocabulary, shape.hidden}, DType::f16, 9, deviation_of(shape.hidden));
  parts.head.projection = backend.prepare(head);
  parts.head.form = "f16";
  return Decoder::of(backend, std::move(parts), kv_type);
}

void write_random_checkpoint(const ModelShape& shape, const std::string& directory) {
  const Json config = config_of(shape);
  const DecoderSpec spec = make_decoder_spec(JsonView(config, "config"));
  CheckpointWriter writer({.target = directory});
  uint64_t seed = 1;
  const auto add = [&](const std::string& name, Shape sizes, float deviation) {
    writer.add(name, random_halves(std::move(sizes), DType::bf16, seed++, deviation));
  };
  // Gains of channels far apart, as trained models have them, so that scales have something to find.
  const auto add_norm = [&](const std::string& name) {
    Tensor gain = random_floats({shape.hidden}, seed++, 1);
    for (float& value : gain.mutable_values<float>()) value = std::exp(value);
    writer.add(name + ".weight", gain.to(DType::bf16));
  };
  add(spec.embedding_name, {shape.vocabulary, shape.hidden}, 1);
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    for (const LinearSlot& slot : spec.linears(layer))
      add(slot.name + ".weight", {slot.out_features, slot.in_features}, deviation_of(slot.in_features));
    for (const NormRole role : {NormRole::attention, NormRole::mlp}) add_norm(spec.norm_name(layer, role));
  }
  add_norm(spec.final_norm_name);
  add(spec.head_name + ".weight", {shape.vocabulary, shape.hidden}, deviation_of(shape.hidden));
  writer.add_file("config.json", config.dump(2));
  writer.finish();
}

}  // namespace salient::gpu
