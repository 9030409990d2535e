#!/usr/bin/env python3
"""Makes tokenizer_calls.json: what the tokenizers of transformers answer, for test_tokenizer.py.

    {"version": ..., "tokenizers": {NAME: {"tokenizer": a file of tests/golden/text, or null for the demo model,
                                           "files": {name: content}, "attributes": {...}, "calls": [...]}}}
    a call      {"method", "arguments", "options", "answer"}, or "error" (a class) in place of an answer

usage: make_tokenizer_goldens.py (writes beside itself; needs the Python package transformers 5)
"""

import copy
import json
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import transformers

FOLDER = pathlib.Path(__file__).parent
REPOSITORY = FOLDER.parents[2]
ATTRIBUTES = [
    *(
        "bos_token",
        "eos_token",
        "unk_token",
        "pad_token",
        "bos_token_id",
        "eos_token_id",
        "unk_token_id",
        "pad_token_id",
    ),
    *("padding_side", "truncation_side", "model_max_length", "vocab_size", "special_tokens_map", "all_special_tokens"),
    *("all_special_ids", "chat_template", "is_fast"),
]
ADDED = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
FAST = "PreTrainedTokenizerFast"

# name: (file of tests/golden/text, other files of the directory)
TOKENIZERS: dict[str, tuple[str | None, dict[str, Any]]] = {
    "demo": (None, {}),
    "plain": ("qwen2.json", {}),
    "begin": (
        "llama3.json",
        {
            "tokenizer_config.json": {
                "tokenizer_class": FAST,
                "bos_token": "<s>",
                "eos_token": "<|end|>",
                "model_max_length": 6,
                "padding_side": "left",
            }
        },
    ),
    "begin_end": (
        "llama2_legacy.json",
        {
            "tokenizer_config.json": {
                "tokenizer_class": FAST,
                "added_tokens_decoder": {
                    "0": {"content": "<unk>", **ADDED},
                    "1": {"content": "<s>", **ADDED},
                    "2": {"content": "</s>", **ADDED},
                },
                "bos_token": {"content": "<s>", **ADDED, "__type": "AddedToken"},
                "eos_token": "</s>",
                "unk_token": "<unk>",
                "pad_token": "<unk>",
                "truncation_side": "left",
                "chat_template": "{{ messages }}",
            },
            "special_tokens_map.json": {"pad_token": "</s>"},
        },
    ),
    "map": (
        "smollm.json",
        {
            "tokenizer_config.json": {
                "tokenizer_class": FAST,
                "bos_token": "<|end|>",
                "image_token": "<s>",
                "additional_special_tokens": ["<|end|>"],
            },
            "special_tokens_map.json": {
                "bos_token": "<s>",
                "eos_token": {
                    "content": "<|end|>",
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                },
                "pad_token": "<|end|>",
            },
        },
    ),
}
TEXTS = ["the river follows the lamp", "a", "", "it's in 1984\n\nThen \u65e5\u672c"]


def calls() -> Iterator[tuple[str, list[Any], dict[str, Any]]]:
    for text in [*TEXTS, TEXTS[:2], TEXTS]:
        yield "__call__", [text], {}
        yield "__call__", [text], {"padding": True}
        yield "__call__", [text], {"add_special_tokens": False, "padding": "longest", "padding_side": "left"}
        yield "__call__", [text], {"truncation": True, "max_length": 4}
        yield "__call__", [text], {"padding": True, "truncation": True, "max_length": 5, "return_tensors": "np"}
        yield "__call__", [text], {"truncation": True}
    batch = TEXTS
    yield "__call__", [batch], {"padding": "max_length", "max_length": 9}
    yield "__call__", [batch], {"padding": "max_length"}
    yield "__call__", [batch], {"padding": "max_length", "max_length": 3, "truncation": "longest_first"}
    yield "__call__", [batch], {"padding": True, "pad_to_multiple_of": 8}
    yield "__call__", [batch], {"padding": True, "truncation": True, "max_length": 6, "pad_to_multiple_of": 4}
    yield "__call__", [batch], {"max_length": 4}
    yield "__call__", [batch], {"max_length": 4, "truncation": False}
    yield "__call__", [batch], {"padding": True, "return_attention_mask": False}
    yield "__call__", [batch], {"padding": True, "return_special_tokens_mask": True, "return_token_type_ids": True}
    yield "__call__", [batch], {"padding": True, "return_length": True}
    yield "__call__", [batch], {"return_tensors": "np"}
    yield "__call__", [batch], {"padding": "longer"}
    yield "__call__", [batch], {"truncation": "all"}
    yield "__call__", [batch[0]], {"return_tensors": "np", "max_length": 5, "padding": "max_length", "truncation": True}
    for text in TEXTS:
        yield "encode", [text], {}
        yield "encode", [text], {"add_special_tokens": False, "max_length": 3, "truncation": True}
        yield "tokenize", [text], {}
        yield "tokenize", [text], {"add_special_tokens": True}
    yield "encode", [TEXTS[0]], {"return_tensors": "np"}
    ids = [2, 1, 0, 40, 41, 300, 301, 10**6]
    for options in ({}, {"skip_special_tokens": True}):
        yield "decode", [ids], options
        yield "decode", [[ids, ids[3:5]]], options
        yield "decode", [[]], options
        yield "decode", [40], options
        yield "batch_decode", [[ids[:4], []]], options
        yield "batch_decode", [ids], options
        yield "convert_ids_to_tokens", [ids], options
    yield "convert_ids_to_tokens", [41], {}
    yield "convert_ids_to_tokens", [10**6], {}
    yield "convert_tokens_to_ids", ["a"], {}
    yield "convert_tokens_to_ids", [["a", "no token of any"]], {}
    yield "convert_tokens_to_string", [["a", "b"]], {}
    yield "num_special_tokens_to_add", [], {}
    yield "pad", [{"input_ids": [[5, 6], [7]]}], {}
    yield "pad", [[{"input_ids": [5, 6], "attention_mask": [0, 1]}, {"input_ids": [7], "attention_mask": [1]}]], {}
    yield "pad", [{"input_ids": [5, 6]}], {"padding": "max_length", "max_length": 4, "return_tensors": "np"}


def plain(value: Any) -> Any:
    """As JSON can hold it; an array is {"array": nested lists}."""
    if isinstance(value, transformers.BatchEncoding):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray) and value.dtype == object:
        raise ValueError('an array of arrays of different lengths, which Salient refuses as "pt" does')
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "shape": list(value.shape), "dtype": str(value.dtype)}
    return value


def ask(tokenizer: Any, method: str, arguments: list[Any], options: dict[str, Any]) -> dict[str, Any]:
    call = {"method": method, "arguments": arguments, "options": options}
    try:
        return {**call, "answer": plain(getattr(tokenizer, method)(*copy.deepcopy(arguments), **options))}
    except Exception as error:
        return {**call, "error": type(error).__name__}


def open_tokenizer(directory: str, source: str | None, files: dict[str, Any]) -> Any:
    if source is None:
        for path in (REPOSITORY / "examples/demo/model").glob("*token*.json"):
            shutil.copy(path, directory)
    else:
        content = json.loads((REPOSITORY / "tests/golden/text" / source).read_text())["tokenizer"]
        files = {**files, "tokenizer.json": content}
    for name, content in files.items():
        (pathlib.Path(directory) / name).write_text(json.dumps(content))
    return transformers.AutoTokenizer.from_pretrained(directory)


def main() -> None:
    tokenizers = {}
    for name, (source, files) in TOKENIZERS.items():
        with tempfile.TemporaryDirectory() as directory:
            tokenizer = open_tokenizer(directory, source, files)
            attributes = {key: getattr(tokenizer, key) for key in ATTRIBUTES} | {"length": len(tokenizer)}
            attributes["model_max_length"] = str(attributes["model_max_length"])
            answers = [ask(tokenizer, *call) for call in calls()]
        tokenizers[name] = {"tokenizer": source, "files": files, "attributes": attributes, "calls": answers}
    text = json.dumps({"version": transformers.__version__, "tokenizers": tokenizers}, ensure_ascii=True)
    (FOLDER / "tokenizer_calls.json").write_text(text.replace('{"method"', '\n{"method"') + "\n")


if __name__ == "__main__":
    main()
