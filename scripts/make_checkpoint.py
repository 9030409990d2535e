#!/usr/bin/env python3
"""Writes a Llama checkpoint of any shape, to measure memory and time on: what its weights say is of no interest.

usage: make_checkpoint.py DIRECTORY --tokenizer TOKENIZER_JSON [--layers 32] [--sparse] [--hidden 4096 ...]

The default is the shape of Llama 2 7B. Weights are normal numbers in bfloat16, pieces of one table of a million. With
--sparse every weight is 0 and the file takes no room on a disk that knows holes: enough for a plan. Needs only Python.
"""

import argparse
import json
import os
import random
import shutil
import struct

TABLE = 1 << 20  # weights
PIECE = 1 << 16


def tensors(shape):
    """Names and shapes, in the order of the file."""
    hidden, wide, head = shape.hidden, shape.intermediate, shape.hidden // shape.heads
    yield "model.embed_tokens.weight", [shape.vocab, hidden]
    for layer in range(shape.layers):
        name = f"model.layers.{layer}"
        yield f"{name}.input_layernorm.weight", [hidden]
        yield f"{name}.self_attn.q_proj.weight", [hidden, hidden]
        yield f"{name}.self_attn.k_proj.weight", [shape.kv_heads * head, hidden]
        yield f"{name}.self_attn.v_proj.weight", [shape.kv_heads * head, hidden]
        yield f"{name}.self_attn.o_proj.weight", [hidden, hidden]
        yield f"{name}.post_attention_layernorm.weight", [hidden]
        yield f"{name}.mlp.gate_proj.weight", [wide, hidden]
        yield f"{name}.mlp.up_proj.weight", [wide, hidden]
        yield f"{name}.mlp.down_proj.weight", [hidden, wide]
    yield "model.norm.weight", [hidden]
    yield "lm_head.weight", [shape.vocab, hidden]


def bf16(values):
    """Cut off, not rounded: nobody will see the difference."""
    return b"".join(struct.pack("<f", value)[2:] for value in values)


def weights(count, table, generator):
    """`count` weights, piece by piece."""
    while count > 0:
        size = min(count, PIECE)
        begin = generator.randrange(TABLE - size + 1)
        yield table[2 * begin : 2 * (begin + size)]
        count -= size


def element_count(shape):
    count = 1
    for size in shape:
        count *= size
    return count


def write_weights(path, shape, sparse):
    header, offset = {}, 0
    for name, dims in tensors(shape):
        end = offset + 2 * element_count(dims)
        header[name] = {"dtype": "BF16", "shape": dims, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 64)
    generator = random.Random(1)
    table = b"" if sparse else bf16(generator.gauss(0, 0.02) for _ in range(TABLE))
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        if sparse:
            file.truncate(file.tell() + offset)
            return
        for name, dims in tensors(shape):
            if len(dims) == 1:
                file.write(bf16([1.0]) * dims[0])
                continue
            for piece in weights(element_count(dims), table, generator):
                file.write(piece)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory")
    parser.add_argument("--tokenizer", required=True, help="tokenizer.json to copy, of no more tokens than --vocab")
    parser.add_argument("--sparse", action="store_true")
    for name, value in {"hidden": 4096, "intermediate": 11008, "layers": 32, "heads": 32, "kv-heads": 32, "vocab": 32000, "positions": 4096}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    shape = parser.parse_args()
    os.makedirs(shape.directory)
    shutil.copyfile(shape.tokenizer, os.path.join(shape.directory, "tokenizer.json"))
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "hidden_size": shape.hidden, "intermediate_size": shape.intermediate, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads, "vocab_size": shape.vocab,
        "max_position_embeddings": shape.positions, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    }
    with open(os.path.join(shape.directory, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2)
    write_weights(os.path.join(shape.directory, "model.safetensors"), shape, shape.sparse)


if __name__ == "__main__":
    main()
