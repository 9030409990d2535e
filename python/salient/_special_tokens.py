"""Which tokens a tokenizer's files call begin, end, padding and so on, as transformers 5 reads them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from ._core import FormatError

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

# What the classes of transformers assume where the files are silent; "Fast" at the end of a name means nothing.
_CLASS_DEFAULTS: dict[str, dict[str, str]] = {
    "LlamaTokenizer": {"padding_side": "left", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
    "GemmaTokenizer": {
        "padding_side": "left",
        "unk_token": "<unk>",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
    },
    "CohereTokenizer": {"padding_side": "left"},
    "Qwen2Tokenizer": dict.fromkeys(("unk_token", "eos_token", "pad_token"), "<|endoftext|>"),
    "GPT2Tokenizer": dict.fromkeys(("unk_token", "bos_token", "eos_token"), "<|endoftext|>"),
}


def read_settings(directory: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    """tokenizer_config.json with what special_tokens_map.json adds to it, tokens as plain strings, the tokens without
    a name as ``extra_special_tokens``; ``files`` are contents by name, those of ``directory``.

    As in transformers, special_tokens_map.json counts only where tokenizer_config.json lists no
    ``added_tokens_decoder``, and then it has the last word. Errors: salient.FormatError.
    """
    settings = _read(directory, files, "tokenizer_config.json")
    if "added_tokens_decoder" not in settings:
        settings.update(_read(directory, files, "special_tokens_map.json"))
    if "chat_template.jinja" in files:
        settings["chat_template"] = files["chat_template.jinja"].decode("utf-8", errors="replace")
    return with_class_defaults(plain_tokens(settings))


def _read(directory: str, files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    return parse_object(files[name], os.path.join(directory, name)) if name in files else {}


def with_class_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    name = str(settings.get("tokenizer_class") or "").removesuffix("Fast")
    return {**_CLASS_DEFAULTS.get(name, {}), **settings}


def plain_tokens(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings whose tokens are strings, not objects with the flags of an added token."""
    plain = {
        key: token_text(value) if key.endswith("_token") and isinstance(value, dict) else value
        for key, value in settings.items()
    }
    extra = plain.pop("additional_special_tokens", None) or []
    extra = plain.pop("extra_special_tokens", None) or extra
    if isinstance(extra, dict):
        plain.update({name: token_text(token) for name, token in extra.items()})
        extra = []
    plain["extra_special_tokens"] = [token_text(token) for token in extra]
    return plain


def named_tokens(settings: dict[str, Any]) -> dict[str, str]:
    """Name to token: the seven of transformers and those a model adds, like "image_token"."""
    named = {name: settings[name] for name in NAMED_TOKENS if settings.get(name) is not None}
    own = {
        name: value
        for name, value in settings.items()
        if name.endswith("_token") and name not in NAMED_TOKENS and isinstance(value, str)
    }
    return {**named, **own}


def token_text(token: Any) -> str:
    """A token that is a string, an AddedToken of the ``tokenizers`` library, or its object in JSON."""
    return str(token["content"]) if isinstance(token, dict) else str(token)


def parse_object(content: bytes, source: str) -> dict[str, Any]:
    """The object that a JSON file holds; ``source`` leads the message. Errors: salient.FormatError."""
    try:
        value = json.loads(content)
    except ValueError as error:
        raise FormatError(f"{source}: {error}") from None
    if not isinstance(value, dict):
        raise FormatError(f"{source}: an object is expected, not {type(value).__name__}")
    return value
