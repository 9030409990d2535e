"""Makes tiny quantized checkpoints with the released packages, and the logits of transformers on the dequantized weights.

usage: make_quantized_goldens.py ct       in an environment with llmcompressor (compressed-tensors, transformers 5)
       make_quantized_goldens.py autoawq  in an environment with autoawq 0.2.9 (transformers 4.51)
"""
import json, math, pathlib, shutil, sys, tempfile
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
HERE = pathlib.Path(__file__).parent
SIZES = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             vocab_size=96, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, rms_norm_eps=1e-5)
ROLES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@torch.no_grad()
def random_model(seed, dtype, **changes):
    model = LlamaForCausalLM(LlamaConfig(**(SIZES | changes))).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        x = torch.randn(p.shape, generator=generator)
        if "norm" in name:
            x = 1 + 0.3 * x
        elif name.endswith("bias"):
            x = 0.3 * x
        elif "embed" not in name:
            x = 1.5 * x / math.sqrt(p.shape[-1])
        p.copy_(x.to(dtype).float())
    return model.to(dtype)


@torch.no_grad()
def write_golden(folder, model):
    """`model` has f32 weights, the dequantized ones among them."""
    ids = torch.randint(0, 96, (1, 40), generator=torch.Generator().manual_seed(3))
    logits = model.float().eval()(ids).logits[0].contiguous()
    save_file({"input_ids": ids[0].to(torch.int32), "logits": logits}, folder / "golden.safetensors")


def make_ct(name, scheme, group_size, **changes):
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model = random_model(11, torch.bfloat16, **changes)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, "a")))  # oneshot wants one
    weights = dict(num_bits=4, type="int", symmetric=scheme == "sym", strategy="group" if group_size > 0 else "channel")
    if group_size > 0:
        weights["group_size"] = group_size
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    recipe = QuantizationModifier(config_groups=groups, ignore=["lm_head", "re:.*layers.1.mlp.down_proj"])
    with tempfile.TemporaryDirectory() as original:
        model.save_pretrained(original)
        tokenizer.save_pretrained(original)
        model = oneshot(model=original, recipe=recipe)
        model.save_pretrained(folder, save_compressed=True)
    for extra in folder.glob("*"):
        if extra.name not in ("config.json", "model.safetensors"):
            extra.unlink()
    dequantized = LlamaForCausalLM(LlamaConfig(**(SIZES | changes)))
    dequantized.load_state_dict(unpack_ct(load_file(folder / "model.safetensors")))
    write_golden(folder, dequantized)


def unpack_ct(tensors):
    """By the package's own function, scales kept in f32."""
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
    state = {k: v.float() for k, v in tensors.items() if v.dtype == torch.bfloat16 and not k.endswith("weight_scale")}
    for key in [k for k in tensors if k.endswith("weight_packed")]:
        name = key.removesuffix("_packed")
        shape = torch.Size(tensors[name + "_shape"].tolist())
        scale = tensors[name + "_scale"].float()
        codes = unpack_from_int32(tensors[key], 4, shape).float()
        if name + "_zero_point" in tensors:
            zero = unpack_from_int32(tensors[name + "_zero_point"], 4, scale.shape, packed_dim=0).float()
        else:
            zero = torch.zeros_like(scale)
        width = shape[1] // scale.shape[1]
        state[name] = (codes - zero.repeat_interleave(width, 1)) * scale.repeat_interleave(width, 1)
    return state


@torch.no_grad()
def make_autoawq(name, group_size, old_config):
    from awq.modules.linear.gemm import WQLinear_GEMM
    from awq.utils.packing_utils import reverse_awq_order, unpack_awq
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    model = random_model(12, torch.float16, attention_bias=True)
    tensors = {}
    for module_name, module in list(model.named_modules()):
        if module_name.endswith(ROLES):
            width = group_size if group_size > 0 else module.in_features
            w = module.weight.float().reshape(module.out_features, -1, width)
            low, high = w.amin(-1).clamp(max=0), w.amax(-1).clamp(min=0)
            scales = ((high - low) / 15).half().float()
            zeros = torch.round(-low / scales).clamp(0, 15)
            codes = torch.clamp(torch.round(w / scales[..., None]) + zeros[..., None], 0, 15)
            dense = (codes - zeros[..., None]) * scales[..., None]
            module.weight.data = dense.reshape(module.weight.shape)
            packed = WQLinear_GEMM.from_linear(module, 4, width, scales=scales.T.contiguous(), zeros=zeros.T.contiguous())
            # What the package itself reads back is what counts.
            iweight, izeros = reverse_awq_order(*unpack_awq(packed.qweight, packed.qzeros, 4), 4)
            iweight, izeros = iweight & 15, izeros & 15
            read = (iweight - izeros.repeat_interleave(width, 0)) * packed.scales.float().repeat_interleave(width, 0)
            module.weight.data = read.T.contiguous()
            tensors |= {f"{module_name}.{k}": v.contiguous() for k, v in packed.state_dict().items()}
    for key, value in model.state_dict().items():
        if not key.removesuffix(".weight").removesuffix(".bias").endswith(ROLES):
            tensors[key] = value.half().contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads(model.config.to_json_string()) | {"architectures": ["LlamaForCausalLM"], "torch_dtype": "float16"}
    if old_config:
        block = {"zero_point": True, "q_group_size": group_size, "w_bit": 4, "version": "GEMM"}
        (folder / "quant_config.json").write_text(json.dumps(block) + "\n")
    else:
        config["quantization_config"] = {"quant_method": "awq", "bits": 4, "group_size": group_size, "zero_point": True,
                                         "version": "gemm", "modules_to_not_convert": None}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    write_golden(folder, model)


if sys.argv[1] == "ct":
    make_ct("ct_asym_32", "asym", 32)
    make_ct("ct_sym_32", "sym", 32, head_dim=32)
    make_ct("ct_asym_channel", "asym", -1)
else:
    make_autoawq("autoawq_32", 32, old_config=False)
    make_autoawq("autoawq_whole_row_old_config", -1, old_config=True)
