#pragma once

#include <string>

#include "base/json.h"
#include "checkpoint/checkpoint_writer.h"
#include "model/families.h"
#include "support/random.h"

namespace salient {

/// A random decoder of any architecture of the table, as a directory. Norm gains spread over channels as in
/// trained models, so that activation-aware scaling has something to do.
struct TinyModel {
  std::string architecture = "LlamaForCausalLM";
  DType dtype = DType::bf16;
  Json extra = Json::object();        ///< further keys of config.json
  std::span<const Family> more = {};  ///< families beside those of the table

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
    const DecoderSpec spec = make_decoder_spec(JsonView(json, "config.json"), more);
    CheckpointWriter writer({.target = directory});
    uint32_t seed = 1;
    const auto add = [&](const std::string& name, Shape shape, float deviation) {
      writer.add(name, random_tensor(std::move(shape), seed++, deviation).to(dtype));
    };
    const auto add_norm = [&](const std::string& name, const Shape& shape) {
      if (name.empty()) return;
      Tensor gain = random_tensor(shape, seed++, 1.0f);
      for (float& value : gain.mutable_values<float>()) value = std::exp(value) - spec.norm.offset;
      writer.add(name + ".weight", gain.to(dtype));
      if (spec.norm.bias) add(name + ".bias", shape, 0.2f);
    };
    const auto add_linear = [&](const LinearSlot& slot) {
      const bool turned = slot.storage == LinearStorage::transposed;
      add(slot.name + ".weight",
          turned ? Shape{slot.in_features, slot.rows.count} : Shape{slot.rows.count, slot.in_features},
          0.08f);
      if (slot.bias) add(slot.name + ".bias", {slot.rows.count}, 0.1f);
    };
    add(spec.embedding_name, {spec.vocab_size, spec.hidden_size}, 1.0f);
    add_norm(spec.embedding_norm_name, {spec.hidden_size});
    if (spec.positions) add(spec.positions->name, {spec.positions->count, spec.hidden_size}, 0.3f);
    for (int64_t layer = 0; layer < spec.layers; ++layer) {
      std::string last;
      for (const auto& slot : spec.linears(layer)) {
        if (slot.name != last) add_linear(slot);
        last = slot.name;
      }
      for (size_t role = 0; role < kNormRoles; ++role) {
        const auto norm = static_cast<NormRole>(role);
        add_norm(spec.norm_name(layer, norm), spec.norm_shape(norm));
      }
      const std::string correction = spec.correction_name(layer);
      if (!correction.empty()) add(correction, spec.correction_shape(), 0.1f);
      for (size_t i = 0; i < kStateTensors; ++i) {
        const auto tensor = static_cast<StateTensor>(i);
        const std::string name = spec.state_tensor_name(layer, tensor);
        if (!name.empty()) add(name, spec.state_tensor_shape(tensor), 0.5f);
      }
    }
    add_norm(spec.final_norm_name, {spec.hidden_size});
    if (!spec.tie_word_embeddings) add(spec.head_name + ".weight", {spec.vocab_size, spec.hidden_size}, 0.2f);
    writer.add_file("config.json", json.dump(2));
    writer.finish();
  }
};

/// Keys that the families with experts read; each leaves out those of the others.
inline Json expert_keys() {
  return {{"num_local_experts", 3},
          {"num_experts", 4},
          {"n_routed_experts", 4},
          {"num_experts_per_tok", 2},
          {"moe_intermediate_size", 64},
          {"shared_expert_intermediate_size", 96},
          {"n_shared_experts", 1},
          {"first_k_dense_replace", 0},
          {"mlp_layer_types", {"sparse", "dense"}},
          {"moe_num_experts", 4},
          {"moe_k", 2},
          {"moe_num_shared_experts", 1},
          {"moe_layer_start_index", 0},
          {"num_shared_experts", 1},
          {"num_dense_layers", 0},
          {"n_group", 2},
          {"topk_group", 1},
          {"q_lora_rank", 32},
          {"kv_lora_rank", 32},
          {"qk_nope_head_dim", 16},
          {"qk_rope_head_dim", 16},
          {"v_head_dim", 16},
          {"linear_num_key_heads", 2},
          {"linear_num_value_heads", 4},
          {"linear_key_head_dim", 8},
          {"linear_value_head_dim", 16},
          {"full_attention_interval", 2}};
}

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
