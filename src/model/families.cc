#include "model/families.h"

namespace salient {
namespace {

constexpr TensorNames kLlamaNames{
    .embedding = "model.embed_tokens.weight",
    .final_norm = "model.norm.weight",
    .head = "lm_head",
    .linears = {"model.layers.{}.self_attn.q_proj", "model.layers.{}.self_attn.k_proj",
                "model.layers.{}.self_attn.v_proj", "model.layers.{}.self_attn.o_proj",
                "model.layers.{}.mlp.gate_proj", "model.layers.{}.mlp.up_proj",
                "model.layers.{}.mlp.down_proj"},
    .norms = {"model.layers.{}.input_layernorm.weight", "model.layers.{}.post_attention_layernorm.weight",
              "model.layers.{}.self_attn.q_norm.weight", "model.layers.{}.self_attn.k_norm.weight"},
};

constexpr Family kFamilies[] = {
    {.architecture = "LlamaForCausalLM",
     .model_type = "llama",
     .names = kLlamaNames,
     .qkv_bias = BiasRule::attention_bias,
     .output_bias = BiasRule::attention_bias,
     .mlp_bias = BiasRule::mlp_bias},
    {.architecture = "MistralForCausalLM",
     .model_type = "mistral",
     .names = kLlamaNames,
     .window = WindowRule::every_layer,
     .default_max_position_embeddings = 131072,
     .default_kv_heads = 8},
    {.architecture = "Qwen2ForCausalLM",
     .model_type = "qwen2",
     .names = kLlamaNames,
     .qkv_bias = BiasRule::always,
     .window = WindowRule::by_layer_types,
     .default_max_position_embeddings = 32768,
     .default_kv_heads = 32},
    {.architecture = "Qwen3ForCausalLM",
     .model_type = "qwen3",
     .names = kLlamaNames,
     .query_key_norm = true,
     .qkv_bias = BiasRule::attention_bias,
     .output_bias = BiasRule::attention_bias,
     .window = WindowRule::by_layer_types,
     .default_head_dim = 128,
     .default_max_position_embeddings = 32768,
     .default_kv_heads = 32},
};

}  // namespace

std::span<const Family> families() { return kFamilies; }

}  // namespace salient
