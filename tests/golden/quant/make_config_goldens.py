"""Quantizes a tiny random Llama with the real packages and keeps the quantization_config of the config.json they write.

Run once with each environment; a run skips the package that its environment lacks:
    llmcompressor 0.14.0.1, compressed-tensors 0.19, transformers 5:   python make_config_goldens.py
    autoawq 0.2.9, transformers 4.51.3, torch 2.6:                     python make_config_goldens.py
"""

import importlib.util
import json
import pathlib
import tempfile

import torch
import transformers
from tokenizers import Tokenizer, models

HERE = pathlib.Path(__file__).parent


def tiny_llama() -> transformers.LlamaForCausalLM:
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    return transformers.LlamaForCausalLM(config)


def keep(directory: str, name: str) -> None:
    config = json.loads((pathlib.Path(directory) / "config.json").read_text())
    (HERE / f"config_{name}.json").write_text(json.dumps(config["quantization_config"], indent=2) + "\n")


def compressed_tensors(name: str, scheme: dict) -> None:
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier

    recipe = QuantizationModifier(ignore=["lm_head", "re:.*gate_proj"], **scheme)
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    with tempfile.TemporaryDirectory() as directory:
        tiny_llama().to(torch.bfloat16).save_pretrained(directory)
        model = transformers.AutoModelForCausalLM.from_pretrained(directory)
        oneshot(model=model, recipe=recipe, processor=transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer))
        model.save_pretrained(directory, save_compressed=True)
        keep(directory, name)


def group(symmetric: bool, **rest) -> dict:
    weights = {"num_bits": 4, "type": "int", "symmetric": symmetric, "dynamic": False} | rest
    return {"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}


def autoawq() -> None:
    from awq import AutoAWQForCausalLM
    from awq.models.llama import LlamaAWQForCausalLM  # noqa: F401  the class that AutoAWQ picks

    with tempfile.TemporaryDirectory() as directory:
        tiny_llama().half().save_pretrained(directory)
        model = AutoAWQForCausalLM.from_pretrained(directory, device_map="cpu")
        data = [torch.randint(0, 64, (32,)).tolist() for _ in range(4)]
        config = {"zero_point": True, "q_group_size": 64, "w_bit": 4, "version": "GEMM"}
        model.quantize(
            None, quant_config=config, calib_data=data, max_calib_seq_len=32, apply_clip=False, duo_scaling=False
        )
        model.save_quantized(directory)
        keep(directory, "autoawq_gemm")


def main() -> None:
    if importlib.util.find_spec("llmcompressor"):
        compressed_tensors("w4a16_asym", {"scheme": "W4A16_ASYM", "targets": ["Linear"]})
        compressed_tensors("group_64", group(True, strategy="group", group_size=64))
        compressed_tensors("channel", group(True, strategy="channel"))
    if importlib.util.find_spec("awq"):
        autoawq()


if __name__ == "__main__":
    main()
