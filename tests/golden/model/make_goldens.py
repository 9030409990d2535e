"""Makes the golden models of tests/model and tests/runtime: tiny random models with the logits of transformers.

usage: make_goldens.py [--models SHARED_MODELS]     (torch, transformers 5, safetensors; f32, eager attention)
Each folder holds config.json, golden.safetensors (input ids, logits of one forward pass, for some cases the logits of a
pass token by token through the cache) and model.safetensors, or a file "weights_of" naming the folder with the weights.
"""
import argparse, json, math, pathlib, tempfile
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer, DynamicCache
from transformers.models.llama import modeling_llama

torch.set_grad_enabled(False)
torch.set_num_threads(1)
HERE = pathlib.Path(__file__).parent
SIZES = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             vocab_size=96, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, hidden_act="silu")
NEW = "rope_parameters"  # spelling of transformers 5; the other cases use that of transformers 4
LLAMA = dict(architectures=["LlamaForCausalLM"], model_type="llama", rms_norm_eps=1e-5, tie_word_embeddings=False,
             rope_theta=10000.0)


def rope(**keys):
    return LLAMA | dict(max_position_embeddings=16, rope_scaling=keys)


CASES = {
    "llama_gqa": LLAMA,
    "llama_tied": LLAMA | dict(tie_word_embeddings=True, rope_theta=500000.0, rms_norm_eps=1e-6, eos_token_id=[2, 5]),
    "llama_tied_by_head": LLAMA | dict(tie_word_embeddings=True, num_hidden_layers=1),
    "llama_bias": LLAMA | dict(head_dim=16, attention_bias=True, mlp_bias=True, num_key_value_heads=4, hidden_act="gelu"),
    "mistral_window": dict(architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=7, rms_norm_eps=1e-6,
                           rope_theta=10000.0, hidden_act="gelu_pytorch_tanh"),
    "qwen2": dict(architectures=["Qwen2ForCausalLM"], model_type="qwen2", rms_norm_eps=1e-6, rope_theta=1000000.0,
                  tie_word_embeddings=True, use_sliding_window=False, sliding_window=4, max_window_layers=1),
    "qwen2_window": dict(architectures=["Qwen2ForCausalLM"], model_type="qwen2", rms_norm_eps=1e-6, num_hidden_layers=3,
                         use_sliding_window=True, sliding_window=5, max_window_layers=1,
                         rope_parameters=dict(rope_type="default", rope_theta=20000.0)),
    "qwen3": dict(architectures=["Qwen3ForCausalLM"], model_type="qwen3", rms_norm_eps=1e-6, rope_theta=1000000.0,
                  head_dim=16, tie_word_embeddings=True, attention_bias=False),
    "qwen3_layer_types": dict(architectures=["Qwen3ForCausalLM"], model_type="qwen3", rms_norm_eps=1e-6, head_dim=16,
                              attention_bias=True, rope_theta=1000000.0, use_sliding_window=True, sliding_window=6,
                              layer_types=["sliding_attention", "full_attention"]),
    "rope_linear": rope(type="linear", factor=4.0),
    "rope_dynamic": rope(type="dynamic", factor=2.0),
    "rope_llama3": rope(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                        original_max_position_embeddings=8) | dict(max_position_embeddings=64),
    "rope_yarn": rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=16) | dict(max_position_embeddings=64),
    "rope_yarn_mscale": rope(rope_type="yarn", factor=8.0, original_max_position_embeddings=256, beta_fast=16, beta_slow=2,
                             mscale=0.9, mscale_all_dim=0.5) | dict(max_position_embeddings=2048),
    "rope_yarn_attention_factor": LLAMA | dict(max_position_embeddings=64, rope_parameters=dict(
        rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=128, attention_factor=1.3,
        truncate=False)),
    "rope_longrope_short": rope(type="longrope", short_factor=[1.0, 1.1, 1.3, 1.7], long_factor=[1.5, 2.5, 4.0, 7.0],
                                factor=4.0, original_max_position_embeddings=64) | dict(max_position_embeddings=256),
    "rope_longrope_long": rope(rope_type="longrope", short_factor=[1.0, 1.1, 1.3, 1.7], long_factor=[1.5, 2.5, 4.0, 7.0])
    | dict(max_position_embeddings=128, original_max_position_embeddings=16),
    "rope_partial": rope(rope_type="linear", factor=1.0) | dict(partial_rotary_factor=0.5, max_position_embeddings=64),
}
GEMMA = dict(head_dim=16, rms_norm_eps=1e-6, tie_word_embeddings=True, hidden_activation="gelu_pytorch_tanh")
LEARNED = dict(vocab_size=96, bos_token_id=1, eos_token_id=2)
MOE = dict(moe_intermediate_size=24, num_experts=6, num_experts_per_tok=2, rms_norm_eps=1e-6, rope_theta=1000000.0)
GLM = dict(moe_intermediate_size=24, n_shared_experts=1, norm_topk_prob=True, rms_norm_eps=1e-5)
LATENT = dict(num_key_value_heads=4, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=12, moe_intermediate_size=24,
              rms_norm_eps=1e-6)
HYBRID = dict(head_dim=16, rms_norm_eps=1e-6, linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=8,
              linear_value_head_dim=12, linear_conv_kernel_dim=4)
# Families that are not of the Llama kind; their files are written by save_pretrained, with the names of the ecosystem.
FAMILIES = {
    "gemma": GEMMA | dict(architectures=["GemmaForCausalLM"], model_type="gemma", num_key_value_heads=1, hidden_act="gelu_pytorch_tanh"),
    "gemma2": GEMMA | dict(architectures=["Gemma2ForCausalLM"], model_type="gemma2", sliding_window=6, query_pre_attn_scalar=12,
                           attn_logit_softcapping=2.0, final_logit_softcapping=3.0, num_hidden_layers=3),
    "gemma3": GEMMA | dict(architectures=["Gemma3ForCausalLM"], model_type="gemma3_text", sliding_window=6, query_pre_attn_scalar=20,
                           num_hidden_layers=3, sliding_window_pattern=3, rope_theta=500000.0, rope_local_base_freq=1000.0,
                           rope_scaling=dict(rope_type="linear", factor=2.0)),
    "phi3": dict(architectures=["Phi3ForCausalLM"], model_type="phi3", rms_norm_eps=1e-5, sliding_window=9, pad_token_id=0,
                 original_max_position_embeddings=64),
    "cohere": dict(architectures=["CohereForCausalLM"], model_type="cohere", layer_norm_eps=1e-5, logit_scale=0.25),
    "cohere_qk_norm": dict(architectures=["CohereForCausalLM"], model_type="cohere", layer_norm_eps=1e-5, use_qk_norm=True,
                           attention_bias=True),
    "opt": LEARNED | dict(architectures=["OPTForCausalLM"], model_type="opt", ffn_dim=64, word_embed_proj_dim=32, pad_token_id=0,
                          activation_function="relu"),
    "gpt2": LEARNED | dict(architectures=["GPT2LMHeadModel"], model_type="gpt2", n_embd=32, n_layer=2, n_head=4, n_positions=64,
                           activation_function="gelu_new"),
    "bloom": LEARNED | dict(architectures=["BloomForCausalLM"], model_type="bloom", hidden_size=48, n_layer=2, n_head=6),
    "mixtral": dict(architectures=["MixtralForCausalLM"], model_type="mixtral", num_local_experts=4, num_experts_per_tok=2,
                    rms_norm_eps=1e-5, sliding_window=None),
    "qwen2_moe": MOE | dict(architectures=["Qwen2MoeForCausalLM"], model_type="qwen2_moe", shared_expert_intermediate_size=40,
                            norm_topk_prob=False, num_hidden_layers=3, mlp_only_layers=[1]),
    "qwen3_moe": MOE | dict(architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe", head_dim=16, norm_topk_prob=True,
                            num_hidden_layers=4, decoder_sparse_step=2),
    "deepseek_v3": dict(architectures=["DeepseekV3ForCausalLM"], model_type="deepseek_v3", num_key_value_heads=4, q_lora_rank=24,
                        kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=12, n_routed_experts=8, n_group=4,
                        topk_group=2, num_experts_per_tok=3, moe_intermediate_size=24, n_shared_experts=2, first_k_dense_replace=1,
                        routed_scaling_factor=1.7, rms_norm_eps=1e-6, num_hidden_layers=3,
                        rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, mscale=1.0,
                                          mscale_all_dim=0.8)),
    "granite": dict(architectures=["GraniteForCausalLM"], model_type="granite", embedding_multiplier=3.0, residual_multiplier=0.4,
                    attention_multiplier=0.2, logits_scaling=2.5, rms_norm_eps=1e-5, attention_bias=True),
    "seed_oss": dict(architectures=["SeedOssForCausalLM"], model_type="seed_oss", head_dim=16, attention_out_bias=True,
                     rms_norm_eps=1e-6, rope_theta=1000000.0),
    "cohere2": dict(architectures=["Cohere2ForCausalLM"], model_type="cohere2", layer_norm_eps=1e-5, logit_scale=0.25,
                    sliding_window=6, num_hidden_layers=3, sliding_window_pattern=2, rope_theta=50000.0),
    "glm4_moe": GLM | dict(architectures=["Glm4MoeForCausalLM"], model_type="glm4_moe", n_routed_experts=8, n_group=1, topk_group=1,
                           num_experts_per_tok=3, first_k_dense_replace=1, routed_scaling_factor=1.3, attention_bias=True,
                           use_qk_norm=True, head_dim=16, partial_rotary_factor=0.5),
    "glm4_moe_defaults": GLM | dict(architectures=["Glm4MoeForCausalLM"], model_type="glm4_moe", n_routed_experts=4,
                                    num_experts_per_tok=2),
    "deepseek_v2": LATENT | dict(architectures=["DeepseekV2ForCausalLM"], model_type="deepseek_v2", q_lora_rank=None,
                                 n_routed_experts=8, topk_method="group_limited_greedy", n_group=4, topk_group=2,
                                 num_experts_per_tok=3, n_shared_experts=2, first_k_dense_replace=1, routed_scaling_factor=1.7,
                                 norm_topk_prob=False, attention_bias=True,
                                 rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16,
                                                   mscale=0.707, mscale_all_dim=0.9)),
    "deepseek_v2_greedy": LATENT | dict(architectures=["DeepseekV2ForCausalLM"], model_type="deepseek_v2", q_lora_rank=24,
                                        n_routed_experts=4, topk_method="greedy", num_experts_per_tok=2, n_shared_experts=1,
                                        num_hidden_layers=1),
    "ernie4_5_moe": dict(architectures=["Ernie4_5_MoeForCausalLM"], model_type="ernie4_5_moe", moe_intermediate_size=24,
                         moe_num_experts=6, moe_k=2, moe_num_shared_experts=2, moe_layer_start_index=1, moe_layer_end_index=-1,
                         moe_layer_interval=2, moe_norm_min=0.6, num_hidden_layers=4, rms_norm_eps=1e-5, use_bias=False,
                         tie_word_embeddings=True),
    "olmo": dict(architectures=["OlmoForCausalLM"], model_type="olmo", clip_qkv=None),
    "olmo2": dict(architectures=["Olmo2ForCausalLM"], model_type="olmo2", rms_norm_eps=1e-5, rope_theta=500000.0),
    "olmo3": dict(architectures=["Olmo3ForCausalLM"], model_type="olmo3", rms_norm_eps=1e-5, sliding_window=6, num_hidden_layers=3,
                  layer_types=["sliding_attention", "full_attention", "sliding_attention"],
                  rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)),
    "exaone4": dict(architectures=["Exaone4ForCausalLM"], model_type="exaone4", rms_norm_eps=1e-5, sliding_window=6, head_dim=16,
                    num_hidden_layers=3, sliding_window_pattern=2, rope_theta=20000.0),
    "exaone4_full": dict(architectures=["Exaone4ForCausalLM"], model_type="exaone4", rms_norm_eps=1e-5, sliding_window=None,
                         layer_types=["full_attention", "full_attention"]),
    "glm4_moe_lite": LATENT | dict(architectures=["Glm4MoeLiteForCausalLM"], model_type="glm4_moe_lite", q_lora_rank=24,
                                   n_routed_experts=4, num_experts_per_tok=2, n_shared_experts=1, rms_norm_eps=1e-5,
                                   mlp_layer_types=["sparse", "dense"]),
    "afmoe": dict(architectures=["AfmoeForCausalLM"], model_type="afmoe", moe_intermediate_size=24, num_experts=6,
                  num_experts_per_tok=2, num_shared_experts=2, num_dense_layers=1, route_scale=1.4, global_attn_every_n_layers=3,
                  num_hidden_layers=3, sliding_window=6, mup_enabled=True, head_dim=16, rms_norm_eps=1e-5),
    "qwen3_next": HYBRID | dict(architectures=["Qwen3NextForCausalLM"], model_type="qwen3_next", full_attention_interval=3,
                                num_hidden_layers=3, moe_intermediate_size=24, num_experts=6, num_experts_per_tok=2,
                                shared_expert_intermediate_size=40, rope_theta=1000000.0),
    "qwen3_5": HYBRID | dict(architectures=["Qwen3_5ForCausalLM"], model_type="qwen3_5_text", attention_bias=True,
                             layer_types=["full_attention", "linear_attention"], rope_parameters=dict(
                                 rope_type="default", rope_theta=50000.0, partial_rotary_factor=0.5, mrope_section=[1, 1, 2],
                                 mrope_interleaved=True)),
    "qwen3_5_moe": HYBRID | dict(architectures=["Qwen3_5MoeForCausalLM"], model_type="qwen3_5_moe_text", full_attention_interval=2,
                                 moe_intermediate_size=24, num_experts=6, num_experts_per_tok=2,
                                 shared_expert_intermediate_size=40),
}
VISION = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8)
# Models of text and images: what is golden is their text part, the rest is carried along.
MULTIMODAL = {
    "gemma3_vision": dict(architectures=["Gemma3ForConditionalGeneration"], model_type="gemma3", mm_tokens_per_image=4,
                          image_token_index=500, vision_config=VISION | dict(model_type="siglip_vision_model"),
                          text_config=SIZES | GEMMA | dict(model_type="gemma3_text", sliding_window=6, query_pre_attn_scalar=20,
                                                           sliding_window_pattern=2, rope_scaling=dict(rope_type="linear", factor=2.0))),
    "llava": dict(architectures=["LlavaForConditionalGeneration"], model_type="llava", image_token_index=500,
                  vision_config=VISION | dict(model_type="clip_vision_model", projection_dim=16), tie_word_embeddings=False,
                  text_config=SIZES | dict(model_type="llama", rms_norm_eps=1e-5, rope_theta=50000.0)),
    "mistral3": dict(architectures=["Mistral3ForConditionalGeneration"], model_type="mistral3", image_token_index=500,
                     vision_config=VISION | dict(model_type="pixtral", head_dim=8), tie_word_embeddings=False,
                     text_config=SIZES | dict(model_type="mistral", rms_norm_eps=1e-5, sliding_window=None, head_dim=16,
                                              rope_theta=1000000.0)),
    "qwen2_5_vl": SIZES | dict(architectures=["Qwen2_5_VLForConditionalGeneration"], model_type="qwen2_5_vl", image_token_id=500,
                               video_token_id=501, vision_start_token_id=502, vision_end_token_id=503, tie_word_embeddings=True,
                               rms_norm_eps=1e-6, rope_scaling=dict(type="mrope", mrope_section=[1, 1, 2]),
                               vision_config=dict(hidden_size=16, intermediate_size=32, depth=1, num_heads=2, patch_size=8,
                                                  out_hidden_size=32, fullatt_block_indexes=[0])),
}
STEPWISE = {"rope_dynamic", "rope_longrope_long"}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def rotate_first_dimensions(q, k, cos, sin, unsqueeze_dim=1):
    """Partial rotation as GLM and StableLM define it; transformers' Llama lacks it for factors below 1."""
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    n = cos.shape[-1]
    turn = lambda x: torch.cat([x[..., :n] * cos + modeling_llama.rotate_half(x[..., :n]) * sin, x[..., n:]], -1)
    return turn(q), turn(k)


def load_config(folder):
    return AutoConfig.from_pretrained(folder)


def randomize(model, dtype, generator):
    for name, p in model.named_parameters():
        x = torch.randn(p.shape, generator=generator)
        if "norm" in name:
            x = 1 + 0.3 * x
        elif name.endswith("bias"):
            x = 0.3 * x
        elif "embed" not in name:
            x = 1.5 * x / math.sqrt(p.shape[-1])
        p.copy_(x.to(dtype).float())


def stepwise(model, ids):
    cache, rows = DynamicCache(config=model.config), []
    for i in range(ids.shape[1]):
        rows.append(model(ids[:, i:i + 1], past_key_values=cache, use_cache=True).logits[0, 0])
    return torch.stack(rows)


def make(name, index):
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    dtype = DTYPES[index % 3] if not name.startswith("rope_") else torch.bfloat16
    config = SIZES | CASES[name] | {"torch_dtype": str(dtype).split(".")[1]}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    model = AutoModelForCausalLM.from_config(load_config(folder), dtype=torch.float32, attn_implementation="eager").eval()
    shared = name.startswith("rope_")
    generator = torch.Generator().manual_seed(7 if shared else 100 + index)
    randomize(model, dtype, generator)
    original = modeling_llama.apply_rotary_pos_emb
    if name == "rope_partial":
        modeling_llama.apply_rotary_pos_emb = rotate_first_dimensions
    ids = torch.randint(0, 96, (1, 40), generator=generator)
    golden = {"input_ids": ids[0].to(torch.int32), "logits": model(ids).logits[0].contiguous()}
    if name in STEPWISE:
        golden["stepwise_logits"] = stepwise(model, ids).contiguous()
    modeling_llama.apply_rotary_pos_emb = original
    save_file(golden, folder / "golden.safetensors")
    if shared and name != "rope_linear":
        (folder / "weights_of").write_text("rope_linear\n")
        return
    tensors = {k: v.to(dtype).contiguous() for k, v in model.state_dict().items()}
    if config.get("tie_word_embeddings"):
        tensors.pop("model.embed_tokens.weight" if name == "llama_tied_by_head" else "lm_head.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def make_family(name, index):
    own = FAMILIES[name]
    make_saved(name, index, (LEARNED if "n_embd" in own or "n_layer" in own else SIZES) | own, AutoModelForCausalLM)


def make_saved(name, index, config, kind):
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    dtype = DTYPES[index % 3]
    config = config | {"torch_dtype": str(dtype).split(".")[1]}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    model = kind.from_config(load_config(folder), dtype=torch.float32, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(300 + index)
    randomize(model, dtype, generator)
    for layer_name, buffer in model.named_buffers():
        if layer_name.endswith("e_score_correction_bias"):
            buffer.copy_((0.2 * torch.randn(buffer.shape, generator=generator)).to(dtype).float())
    ids = torch.randint(0, 96, (1, 40), generator=generator)
    save_file({"input_ids": ids[0].to(torch.int32), "logits": model(ids).logits[0].contiguous()}, folder / "golden.safetensors")
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        tensors = {k: v.to(dtype).contiguous() for k, v in load_file(f"{scratch}/model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def perplexity(model, windows):
    nll = count = 0
    for window in windows:
        logits = torch.log_softmax(model(window[None]).logits[0, :-1].double(), -1)
        nll -= logits.gather(1, window[1:, None]).sum().item()
        count += len(window) - 1
    return math.exp(nll / count)


def trained(models):
    """Numbers of trained models that are not part of the project: ids of a few windows, their perplexity, some logits."""
    text = (models.parent / "texts" / "tinystories_317docs.txt").read_text(encoding="utf-8")
    result = {}
    for name in ["stories260k", "tinystories-656k"]:
        tokenizer = AutoTokenizer.from_pretrained(models / name)
        model = AutoModelForCausalLM.from_pretrained(models / name, dtype=torch.float32, attn_implementation="eager").eval()
        ids = torch.tensor(tokenizer(text[:20000], add_special_tokens=False).input_ids)
        windows = ids[:4 * 128].reshape(4, 128)
        result[name] = {"windows": windows.tolist(), "perplexity": perplexity(model, windows),
                        "last_logits": model(windows[:1]).logits[0, -1].tolist()}
    (HERE / "trained.json").write_text(json.dumps(result) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=pathlib.Path)
    parser.add_argument("--only", nargs="*", help="names of cases")
    arguments = parser.parse_args()
    for index, name in enumerate(CASES):
        if arguments.only is not None and name not in arguments.only:
            continue
        make(name, index)
        print("made", name)
    for index, name in enumerate(FAMILIES):
        if arguments.only is not None and name not in arguments.only:
            continue
        make_family(name, index)
        print("made", name)
    for index, name in enumerate(MULTIMODAL):
        if arguments.only is not None and name not in arguments.only:
            continue
        make_saved(name, 100 + index, MULTIMODAL[name], AutoModelForImageTextToText)
        print("made", name)
    if arguments.models:
        trained(arguments.models)


main()
