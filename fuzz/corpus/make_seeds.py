"""Writes the seeds of safetensors_fuzz, packing_fuzz, model_config_fuzz, layer_file_fuzz and sequence_state_fuzz.

Run: python make_seeds.py
"""

import json
import math
import pathlib
import struct

HERE = pathlib.Path(__file__).parent
TYPES = ["i32", "f16", "bf16", "f32", "i64", "u8", "i8"]  # as in packing_fuzz.cc
SIZES = {"i32": 4, "f16": 2, "bf16": 2, "f32": 4, "i64": 8, "u8": 1, "i8": 1}


def safetensors(name: str, header, data: int) -> None:
    text = header.encode() if isinstance(header, str) else json.dumps(header).encode()
    (HERE / "safetensors" / name).write_bytes(struct.pack("<Q", len(text)) + text + bytes(range(data)))


def entry(dtype: str, shape: list, begin: int, end: int) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def tensor(dtype: str, *shape: int, data: bytes = b"") -> bytes:
    count = SIZES[dtype]
    for dim in shape:
        count *= dim
    filled = data or bytes(i * 37 % 64 for i in range(count))
    return bytes([len(shape), *shape, TYPES.index(dtype)]) + filled


def packing(name: str, choice: int, absent: int, *tensors: bytes, bits: int = 4) -> None:
    (HERE / "packing" / name).write_bytes(bytes([choice, bits - 2, absent]) + b"".join(tensors))


LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "eos_token_id": [1, 2],
}
YARN = {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 512, "beta_fast": 32}
LLAMA3 = {"type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 512}
LONGROPE = {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8, "original_max_position_embeddings": 512}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm", "modules_to_not_convert": ["lm_head"]}
WEIGHTS = {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": 32, "dynamic": False}
COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head", "re:.*gate"],
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": WEIGHTS, "input_activations": None}},
}


def model_config(name: str, **changes: object) -> None:
    (HERE / "model_config" / name).write_text(json.dumps(LLAMA | changes, indent=1))


def model_configs() -> None:
    model_config("llama")
    model_config("mistral", architectures=["MistralForCausalLM"], sliding_window=32)
    model_config("qwen2", architectures=["Qwen2ForCausalLM"], layer_types=["full_attention", "sliding_attention"])
    model_config("qwen3", architectures=None, model_type="qwen3", head_dim=16, tie_word_embeddings=True)
    model_config("yarn", rope_scaling=YARN, rope_theta=1e6)
    model_config("llama3", rope_scaling=LLAMA3)
    model_config("longrope", rope_parameters=LONGROPE)
    model_config("awq", quantization_config=AWQ)
    model_config("compressed", quantization_config=COMPRESSED)
    model_config("no_heads", num_attention_heads=0)
    model_config("huge", hidden_size=2**63 - 1, vocab_size=-1)
    model_config("wrong_types", hidden_size="64", rope_scaling=[1], quantization_config="awq")


# The layer of layer_file_fuzz.cc: width 16, 32 within the feed-forward block, codes of 3 bits in nibbles, groups of 16.
# q is symmetric, down stays dense. The checksums are wrong: the target mends them.
SHAPES = {"q": (16, 16), "k": (16, 16), "v": (16, 16), "o": (16, 16), "up": (32, 16), "down": (16, 32)}
MAPPING = {
    "mapping": "fc1 -> fc2",
    "loss_before": "inf",
    "loss_after": 0.25,
    "ratio": 0.5,
    "duo": True,
    "left_alone": False,
    "failure": "",
    "scale_quantiles": [0.5, 1, 1, 1, 1, 2, 3],
}
LINEAR = {
    "name": "q_proj",
    "scheme": {"num_bits": 3, "symmetric": True, "group_size": 16},
    "signal": 1,
    "loss_nearest": 0.5,
    "loss_scaled": "nan",
    "loss_clipped": "-inf",
    "loss": 1e-300,
    "dead_channels": 2,
    "largest_channels": [{"channel": 3, "mean_absolute": 0.5, "times_median": 40}],
}
SECONDS = dict.fromkeys(("forward", "statistics", "scales", "clips", "rounding", "checks", "total"), 0.5)
LAYER = {
    "layer": 0,
    "mappings": [MAPPING],
    "linears": [LINEAR],
    "clip_loss_before": 1,
    "clip_loss_after": 0.5,
    "equivalence_error": 1e-6,
    "pooled_experts": [1],
    "seconds": SECONDS,
}


def layer_file(name: str, dense: bool, *, cut: int | None = None, changes: dict | None = None, **report: object) -> None:
    head = {"job": "0123456789abcdef", "source": "fedcba9876543210", "layer": LAYER | report}
    tensors = {"report": ("U8", [len(json.dumps(head))], json.dumps(head).encode())}

    def add(key: str, dtype: str, *shape: int) -> None:
        count = (2 if dtype == "BF16" else 1) * math.prod(shape)
        tensors[key] = (dtype, list(shape), bytes(i * 37 % 64 for i in range(count)))

    for number, (role, (rows, columns)) in enumerate(SHAPES.items()):
        if dense or role == "down":
            add(f"linear.{number}.dense", "BF16", rows, columns)
        else:
            add(f"linear.{number}.codes", "U8", rows, columns // 2)
            add(f"linear.{number}.scales", "BF16", rows, columns // 16)
            if role != "q":
                add(f"linear.{number}.zeros", "U8", rows, columns // 16)
        add(f"linear.{number}.bias", "BF16", rows)
    for number in range(2):
        add(f"norm.{number}.weight", "BF16", 16)
        add(f"norm.{number}.bias", "BF16", 16)
    (HERE / "layer_file" / name).write_bytes(sealed(tensors | (changes or {}))[:cut])


def sealed(tensors: dict) -> bytes:
    """A file of {name: (type, shape, bytes)} and a checksum, which is wrong: the targets mend it."""
    tensors = tensors if "checksum" in tensors else tensors | {"checksum": ("U8", [16], b"0" * 16)}
    header, data = {}, b""
    for key, (dtype, shape, content) in tensors.items():
        header[key] = entry(dtype, shape, len(data), len(data) + len(content))
        data += content
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


# The model of sequence_state_fuzz.cc: linear attention, then attention with keys and values 8 wide, 10 tokens.
def sequence_state(name: str, rows: int, *, changes: dict | None = None, text: str = "", **head: object) -> None:
    said = {"format": "salient sequence state", "version": 1, "model": "0123456789abcdef", "cached": rows, "draws": 2}
    text = text or json.dumps(said | head)

    def floats(*shape: int) -> tuple:
        return "F32", list(shape), b"".join(struct.pack("<f", i / 8) for i in range(math.prod(shape)))

    tensors = {"head": ("U8", [len(text)], text.encode()), "tokens": ("I32", [3], struct.pack("<3i", 1, 9, 0))}
    if rows == 3:
        tensors["logits"] = floats(10)
    if rows > 0:
        tensors |= {"layer.0.tail": floats(3, 16), "layer.0.matrices": floats(2, 4, 4)}
        tensors |= {"layer.1.keys": floats(rows, 8), "layer.1.values": floats(rows, 8)}
    tensors |= changes or {}
    present = {key: value for key, value in tensors.items() if value is not None}
    (HERE / "sequence_state" / name).write_bytes(sealed(present))


def sequence_states() -> None:
    (HERE / "sequence_state").mkdir(exist_ok=True)
    sequence_state("pending", 2)
    sequence_state("complete", 3)
    sequence_state("nothing_cached", 0)
    sequence_state("other_model", 2, model="fedcba9876543210")
    sequence_state("later_version", 2, version=2)
    sequence_state("too_much_cached", 4)
    sequence_state("huge_cached", 2, cached=2**62)
    sequence_state("negative_draws", 2, draws=-1)
    sequence_state("no_logits", 3, changes={"logits": None})
    sequence_state("wrong_token", 2, changes={"tokens": ("I32", [3], struct.pack("<3i", 1, 10, 0))})
    sequence_state("tokens_in_a_square", 2, changes={"tokens": ("I32", [1, 3], bytes(12))})
    sequence_state("other_shape", 2, changes={"layer.1.keys": ("F32", [8, 2], bytes(64))})
    sequence_state("other_type", 2, changes={"layer.0.matrices": ("I32", [2, 4, 4], bytes(128))})
    sequence_state("head_twice", 2, text='{"format":"salient sequence state","format":"salient sequence state"}')
    sequence_state("not_json", 2, text='{"for')


def layer_files() -> None:
    layer_file("quantized", False)
    layer_file("scaled", True)
    layer_file("cut_short", False, cut=4000)
    layer_file("other_layer", False, layer=1)
    layer_file("no_record", False, mappings=None)
    layer_file("huge_numbers", True, layer=2**63, clip_loss_before=1e308, pooled_experts=[-(2**63)])
    layer_file("short_checksum", False, changes={"checksum": ("U8", [3], b"abc")})
    layer_file("floating_codes", False, changes={"linear.0.codes": ("F64", [16, 1], bytes(128))})
    layer_file("turned", True, changes={"linear.4.dense": ("BF16", [16, 32], bytes(1024))})
    layer_file("not_json", False, changes={"report": ("U8", [4], b'{"jo')})


def main() -> None:
    model_configs()
    layer_files()
    sequence_states()
    two = {"a": entry("F32", [2, 1], 0, 8), "__metadata__": {"format": "pt"}, "b": entry("BF16", [3], 8, 14)}
    safetensors("two", two, 14)
    safetensors("empty", {}, 0)
    safetensors("padded", json.dumps(two) + "   ", 14)
    safetensors("foreign", {"a": entry("F8_E4M3", [3], 0, 3), "z": entry("I64", [0, 9], 3, 3)}, 3)
    safetensors("hole", {"a": entry("U8", [1], 2, 3)}, 3)
    safetensors("overlap", {"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 1, 3)}, 3)
    safetensors("overflow", {"a": entry("F64", [2**62, 2**62], 0, 0)}, 0)
    safetensors("twice", '{"a":{"dtype":"U8","dtype":"U8","shape":[],"data_offsets":[0,1]}}', 1)
    safetensors("deep", '{"a":' + "[" * 64, 0)
    safetensors("not_utf8", '{"a\\ud800":1}', 0)
    (HERE / "safetensors" / "short").write_bytes(b"\x01\x02\x03")
    (HERE / "safetensors" / "long_header").write_bytes(struct.pack("<Q", 2**63) + b"{}")

    # The first byte: bit 0 the packing, bit 1 symmetric, the rest the group size; the second: the bits of a code, less
    # 2; the third: absent suffixes.
    shape = struct.pack("<qq", 16, 64)
    packed, zeros = tensor("i32", 16, 8), tensor("i32", 2, 2)
    packing("ct_asymmetric", 0, 0b10000, packed, tensor("bf16", 16, 2), zeros, tensor("i64", 2, data=shape))
    packing("ct_symmetric", 2, 0b10100, packed, tensor("f16", 16, 2), tensor("i64", 2, data=shape))
    odd = tensor("i64", 2, data=struct.pack("<qq", 5, 20))
    packing("ct_odd", 8 + 2, 0b10100, tensor("i32", 5, 3), tensor("f32", 5, 1), odd)
    packing("ct_wrong_shape", 0, 0b10000, packed, tensor("bf16", 16, 2), zeros, tensor("i64", 2, data=b"\xff" * 16))
    words, rows = tensor("i32", 5, 5), tensor("i64", 2, data=struct.pack("<qq", 5, 18))
    packing("ct_8_bits", 12, 0b10000, words, tensor("bf16", 5, 2), tensor("i32", 2, 2), rows, bits=8)
    packing("ct_8_bits_channel", 8 + 2, 0b10100, words, tensor("f16", 5, 1), rows, bits=8)
    packing("ct_8_bits_tensor", 16, 0b10000, words, tensor("f32", 1), tensor("i8", 1, data=b"\x80"), rows, bits=8)
    packing("ct_3_bits", 12, 0b10000, tensor("i32", 5, 2), tensor("bf16", 5, 2), tensor("i32", 1, 2), rows, bits=3)
    packing("ct_5_bits_channel", 8 + 2, 0b10100, tensor("i32", 5, 3), tensor("f16", 5, 1), rows, bits=5)
    whole, both = tensor("i32", 16, 7), tensor("i64", 2, data=shape)
    packing("ct_3_bits_whole_words", 2, 0b10100, whole, tensor("f16", 16, 2), both, bits=3)
    packing("ct_tensor", 16, 0b10000, tensor("i32", 5, 3), tensor("f32", 1), tensor("i8", 1, data=b"\x07"), odd)
    packing("ct_tensor_symmetric", 16 + 2, 0b10100, tensor("i32", 5, 3), tensor("bf16", 1), odd)
    packing("ct_tensor_wrong_zero", 16, 0b10000, tensor("i32", 5, 3), tensor("f32", 1), tensor("i8", 1, data=b"\x08"), odd)
    packing("awq_8_bits", 1, 0, tensor("i32", 64, 2), tensor("i32", 2, 2), tensor("f16", 2, 16), bits=8)
    packing("awq_tensor", 16 + 1, 0, tensor("i32", 64, 2), tensor("i32", 2, 2), tensor("f16", 2, 16))
    packing("awq", 1, 0, tensor("i32", 64, 2), tensor("i32", 2, 2), tensor("f16", 2, 16))
    packing("awq_symmetric", 3, 0b10, tensor("i32", 64, 2), tensor("f16", 2, 16))
    packing("awq_channel", 8 + 1, 0, tensor("i32", 20, 2), tensor("i32", 1, 2), tensor("f16", 1, 16))
    packing("awq_ragged", 1, 0, tensor("i32", 60, 2), tensor("i32", 2, 2), tensor("f16", 2, 16))


if __name__ == "__main__":
    main()
