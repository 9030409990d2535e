#pragma once

#include <string>

#include "base/json.h"
#include "checkpoint/checkpoint_writer.h"
#include "model/decoder_spec.h"
#include "support/random.h"

namespace salient {

/// A random decoder of any architecture of the table, as a directory. Norm gains spread over channels as in
/// trained models, so that activation-aware scaling has something to do.
struct TinyModel {
  std::string architecture = "LlamaForCausalLM";
  DType dtype = DType::bf16;
  Json extra = Json::object();  ///< further keys of config.json

  Json config() const {
    Json json = {{"architectures", {architecture}},
                 {"hidden_size", 64},
                 {"intermediate_size", 128},
                 {"num_hidden_layers", 2},
                 {"num_attention_heads", 4},
                 {"num_key_value_heads", 2},
                 {"vocab_size", 96},
                 {"max_position_embeddings", 128},
                 {"rms_norm_eps", 1e-5},
                 {"hidden_act", "silu"},
                 {"tie_word_embeddings", true},
                 {"torch_dtype", torch_name(dtype)}};
    json.update(extra);
    return json;
  }

  void write(const std::string& directory) const {
    const Json json = config();
    const DecoderSpec spec = make_decoder_spec(JsonView(json, "config.json"));
    CheckpointWriter writer({.target = directory});
    uint32_t seed = 1;
    const auto add = [&](const std::string& name, Shape shape, float deviation) {
      writer.add(name, random_tensor(std::move(shape), seed++, deviation).to(dtype));
    };
    const auto add_gain = [&](const std::string& name, int64_t size) {
      Tensor gain = random_tensor({size}, seed++, 1.0f);
      for (float& value : gain.mutable_values<float>()) value = std::exp(value);
      writer.add(name, gain.to(dtype));
    };
    add(spec.embedding_name, {spec.vocab_size, spec.hidden_size}, 1.0f);
    for (int64_t layer = 0; layer < spec.layers; ++layer) {
      for (const auto& slot : spec.linears(layer)) {
        add(slot.name + ".weight", {slot.out_features, slot.in_features}, 0.08f);
        if (slot.bias) add(slot.name + ".bias", {slot.out_features}, 0.1f);
      }
      for (const NormRole role : {NormRole::attention, NormRole::mlp, NormRole::query, NormRole::key}) {
        const std::string name = spec.norm_name(layer, role);
        if (name.empty()) continue;
        add_gain(name,
                 role == NormRole::attention || role == NormRole::mlp ? spec.hidden_size : spec.head_dim);
      }
    }
    add_gain(spec.final_norm_name, spec.hidden_size);
    if (!spec.tie_word_embeddings) add(spec.head_name, {spec.vocab_size, spec.hidden_size}, 0.2f);
    writer.add_file("config.json", json.dump(2));
    writer.finish();
  }
};

/// Token windows below `vocabulary`, seeded.
inline std::vector<std::vector<int32_t>> random_windows(size_t count, size_t length, int32_t vocabulary) {
  std::mt19937 generator(7);
  std::vector<std::vector<int32_t>> windows(count, std::vector<int32_t>(length));
  for (auto& window : windows) {
    for (auto& token : window) token = static_cast<int32_t>(generator() % static_cast<uint32_t>(vocabulary));
  }
  return windows;
}

}  // namespace salient
