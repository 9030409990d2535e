#!/usr/bin/env python3
"""What compare_llama_cpp.py has llama.cpp do, in an interpreter that has llama_cpp, gguf and numpy.

  llama_cpp_speed.py make CHECKPOINT GGUF FORMAT   a Llama checkpoint in bf16 or f16, in one file, as GGUF
  llama_cpp_speed.py run GGUF THREADS DECODE REPEAT LENGTH...

`run` prints one JSON object: tokens a second of prompts of each length, and of DECODE tokens behind each, the fastest of
REPEAT runs; bytes of weights that a decoded token reads; what the build says of itself.
"""
import json
import pathlib
import random
import struct
import sys
import time

FORMATS = {"q4_0": "LLAMA_FTYPE_MOSTLY_Q4_0", "q4_k_m": "LLAMA_FTYPE_MOSTLY_Q4_K_M"}
PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(name):
    stem = name.removesuffix(".weight")
    if stem in OUTSIDE:
        return OUTSIDE[stem] + ".weight"
    layer, part = stem.removeprefix("model.layers.").split(".", 1)
    return f"blk.{layer}.{PARTS[part]}.weight"


def tensors(path):
    """(name, dtype, shape, bytes) of a safetensors file, mapped."""
    import numpy as np

    with open(path, "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(size))
    data = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + size)
    header.pop("__metadata__", None)
    for name, entry in header.items():
        if entry["dtype"] not in ("BF16", "F16"):
            raise SystemExit(f"{path}: {name} is {entry['dtype']}, but only BF16 and F16 are read")
        begin, end = entry["data_offsets"]
        yield name, entry["dtype"], entry["shape"], data[begin:end]


def write_dense(checkpoint, path):
    """Rows of q and k stay in Hugging Face's order: other numbers, and the same work."""
    import gguf
    import numpy as np

    config = json.loads((checkpoint / "config.json").read_text())
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_tokenizer_model("none")
    for name, dtype, shape, data in tensors(checkpoint / "model.safetensors"):
        if len(shape) == 1:  # norms, which llama.cpp wants in f32
            is_f16 = dtype == "F16"
            wide = data.view(np.float16).astype(np.float32) if is_f16 else (data.view(np.uint16).astype(np.uint32) << 16)
            writer.add_tensor(gguf_name(name), wide.view(np.float32))
        else:
            rows = data.reshape(shape[0], 2 * shape[1])
            writer.add_tensor(gguf_name(name), rows, raw_dtype=gguf.GGMLQuantizationType[dtype])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make(checkpoint, path, form):
    """As users get such a file: by llama.cpp's own quantization of a dense one."""
    import llama_cpp

    dense, part = path.with_suffix(".dense"), path.with_suffix(".part")
    write_dense(checkpoint, dense)
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, FORMATS[form])
    status = llama_cpp.llama_model_quantize(str(dense).encode(), str(part).encode(), parameters)
    dense.unlink()
    if status != 0:
        raise SystemExit(f"llama_model_quantize ended with status {status}")
    part.rename(path)


def step_weight_bytes(path):
    """All weights but the embedding, of which a token reads one row, unless it is the head too."""
    import gguf

    sizes = {each.name: int(each.n_bytes) for each in gguf.GGUFReader(path).tensors}
    return sum(sizes.values()) - (sizes["token_embd.weight"] if "output.weight" in sizes else 0)


class Engine:
    def __init__(self, path, threads, positions):
        import llama_cpp

        self.library = llama_cpp
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise SystemExit(f"llama.cpp does not load {path}")
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx, parameters.n_batch = positions, positions
        parameters.n_threads = parameters.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, parameters)
        if not self.context:
            raise SystemExit(f"llama.cpp makes no context of {positions} positions for {path}")
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.random = random.Random(0)

    def forget(self):
        self.library.llama_memory_clear(self.library.llama_get_memory(self.context), True)

    def seconds(self, count):
        """Of `count` random tokens behind those that are there, with the logits of the last."""
        array = (self.library.llama_token * count)(*(self.random.randrange(self.vocabulary) for _ in range(count)))
        batch = self.library.llama_batch_get_one(array, count)
        begin = time.perf_counter()
        status = self.library.llama_decode(self.context, batch)
        self.library.llama_synchronize(self.context)
        if status != 0:
            raise SystemExit(f"llama_decode ended with status {status}")
        return time.perf_counter() - begin


def run(path, threads, decode, repeat, lengths):
    engine = Engine(path, threads, max(lengths) + decode)
    rows = []
    for length in lengths:
        prefill, decoding = [], []
        for _ in range(repeat):
            engine.forget()
            prefill.append(engine.seconds(length))
            decoding.append(sum(engine.seconds(1) for _ in range(decode)))
        rows.append(
            {
                "prefill_length": length,
                "prefill_tokens_per_second": length / min(prefill),
                "decode_tokens_per_second": decode / min(decoding),
            }
        )
    device = engine.library.llama_print_system_info().decode()
    print(json.dumps({"device": device, "weight_bytes_per_step": step_weight_bytes(path), "rows": rows}))


def main(command, *rest):
    if command == "make":
        make(pathlib.Path(rest[0]), pathlib.Path(rest[1]), rest[2])
    else:
        run(pathlib.Path(rest[0]), *map(int, rest[1:4]), list(map(int, rest[4:])))


if __name__ == "__main__":
    main(*sys.argv[1:])
