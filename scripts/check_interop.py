#!/usr/bin/env python3
"""Loads a checkpoint that Salient wrote with the packages whose format it is, and compares logits with Salient-independent
dense weights.

usage: check_interop.py CHECKPOINT TEXT [--tokens 256]

compressed-tensors: transformers loads the directory with compressed-tensors and runs it; its logits are compared with those
of a dense model built from weights that this script unpacks with numpy, and its unpacked weights with those, bit by bit.
AutoAWQ gemm: AutoAWQ's own unpacking (awq.utils.packing_utils) is compared, code by code, with this script's.
Needs torch, transformers, safetensors, numpy and compressed-tensors or autoawq (a CPU is enough)."""

import argparse
import glob
import json
import os

import numpy as np
import torch
from safetensors import safe_open

GEMM_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def load(directory):
    tensors = {}
    for path in sorted(glob.glob(os.path.join(directory, "*.safetensors"))):
        with safe_open(path, "pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys()}
    return tensors


def codes_of(words, bits):
    """int32 [rows, words] -> uint8 [rows, 32 * words // bits], lowest bits first and without gaps."""
    single = np.unpackbits(words.contiguous().numpy().view(np.uint8), axis=1, bitorder="little")
    count = single.shape[1] // bits
    return (single[:, : count * bits].reshape(len(single), count, bits) << np.arange(bits)).sum(-1).astype(np.uint8)


def dense_of(tensors, linear):
    """The weight of a linear in pack-quantized, f32 [rows, columns]. The bits follow from the width of the packed rows."""
    rows, columns = tensors[linear + ".weight_shape"].tolist()
    packed = tensors[linear + ".weight_packed"]
    bits = 32 * packed.shape[1] // columns
    assert packed.shape[1] == -(-columns * bits // 32), (linear, packed.shape, columns)
    codes = codes_of(packed, bits)[:, :columns].astype(np.float32)
    scales = tensors[linear + ".weight_scale"].float().numpy()
    zeros = np.full_like(scales, 2 ** (bits - 1))
    stored = tensors.get(linear + ".weight_zero_point")
    if stored is not None and stored.dtype == torch.int8:  # strategy tensor: as it is, without the offset
        zeros = stored.numpy().astype(np.float32) + 2 ** (bits - 1)
    elif stored is not None:
        zeros = codes_of(stored.T.contiguous(), bits)[:, :rows].T.astype(np.float32)
    if scales.ndim == 1:
        return (codes - zeros[0]) * scales[0]
    width = columns // scales.shape[1]
    return (codes - zeros.repeat(width, 1)) * scales.repeat(width, 1)


def check_compressed_tensors(directory, ids):
    from transformers import AutoConfig, AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    config = AutoConfig.from_pretrained(directory)
    del config.quantization_config
    dense = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    tensors, state = load(directory), {}
    for name, tensor in tensors.items():
        linear = name.removesuffix(".weight_packed")
        if linear != name:
            state[linear + ".weight"] = torch.from_numpy(dense_of(tensors, linear))
        elif name.rsplit(".", 1)[-1] in ("weight", "bias"):
            state[name] = tensor.float()
    missing, unexpected = dense.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    assert all(name == "lm_head.weight" for name in missing), missing
    dense.tie_weights()
    with torch.no_grad():
        ours, theirs = dense(ids).logits, loaded(ids).logits.float()
    unpacked = loaded.state_dict()  # what was packed before the first run
    linears = [name.removesuffix(".weight_packed") for name in tensors if name.endswith(".weight_packed")]
    equal = sum(torch.equal(unpacked[name + ".weight"].float(), state[name + ".weight"]) for name in linears)
    error = ((ours - theirs).abs().max() / ours.abs().max()).item()
    return {"linears": len(linears), "equal_tensors": equal, "of": len(linears), "logits_relative_error": error}


def check_gemm(directory):
    from awq.utils.packing_utils import reverse_awq_order, unpack_awq

    tensors, linears, equal = load(directory), 0, 0
    for name, packed in tensors.items():
        if not name.endswith(".qweight"):
            continue
        zeros = tensors[name.replace("qweight", "qzeros")]
        theirs = [t.numpy() & 15 for t in reverse_awq_order(*unpack_awq(packed, zeros, 4), 4)]
        for words, unpacked in ((packed, theirs[0]), (zeros, theirs[1])):
            ours = np.empty((words.shape[0], words.shape[1], 8), np.uint8)
            ours[..., GEMM_ORDER] = codes_of(words, 4).reshape(*words.shape, 8)
            equal += int(np.array_equal(ours.reshape(words.shape[0], -1), unpacked))
        linears += 1
    assert linears > 0
    return {"linears": linears, "equal_tensors": equal, "of": 2 * linears}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("text")
    parser.add_argument("--tokens", type=int, default=256)
    arguments = parser.parse_args()
    with open(os.path.join(arguments.checkpoint, "config.json")) as file:
        method = json.load(file)["quantization_config"]["quant_method"]
    if method == "awq":
        result = check_gemm(arguments.checkpoint)
    else:
        from transformers import AutoTokenizer

        with open(arguments.text, encoding="utf-8") as file:
            text = file.read(20 * arguments.tokens)
        tokenizer = AutoTokenizer.from_pretrained(arguments.checkpoint)
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids[:, : arguments.tokens]
        result = check_compressed_tensors(arguments.checkpoint, ids)
    print(json.dumps({"checkpoint": arguments.checkpoint, "method": method} | result))
    if result.get("equal_tensors") != result.get("of") or result.get("logits_relative_error", 0) > 1e-4:
        raise SystemExit("the packages read this checkpoint differently")


main()
