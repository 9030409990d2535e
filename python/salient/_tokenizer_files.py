"""The files of a tokenizer in a model directory: what their vocabulary is, and copies of them."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from typing import Any

from ._special_tokens import NAMED_TOKENS, read_object

NAMES = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
)


def base_vocabulary(directory: str) -> dict[str, int]:
    """Token to id, without added tokens."""
    vocabulary: dict[str, int] = read_object(os.path.join(directory, "tokenizer.json"))["model"]["vocab"]
    return vocabulary


def added_tokens(directory: str) -> list[str]:
    """The added tokens of tokenizer.json and tokenizer_config.json."""
    entries = list(read_object(os.path.join(directory, "tokenizer.json")).get("added_tokens", []))
    configuration = read_object(os.path.join(directory, "tokenizer_config.json"))
    entries += configuration.get("added_tokens_decoder", {}).values()
    return [entry["content"] for entry in entries]


def copy(source: str, target: str, changes: dict[str, Any]) -> tuple[str, ...]:
    """Copies the files that there are, with ``changes`` of settings (None removes one); each appears whole or not at
    all. Gives the paths. Errors: FileNotFoundError when the source holds no tokenizer, OSError."""
    if not os.path.isfile(os.path.join(source, "tokenizer.json")):
        raise FileNotFoundError(f"{source}: there is no tokenizer.json to copy")
    if os.path.exists(target) and not os.path.isdir(target):
        raise NotADirectoryError(f"{target} is a file: a directory to save the tokenizer in is expected")
    os.makedirs(target, exist_ok=True)
    contents = {name: _content(source, name, changes) for name in NAMES}
    paths = []
    for name, content in contents.items():
        if content is not None:
            path = os.path.join(target, name)
            _replace(path, content)
            paths.append(path)
    return tuple(paths + _copy_templates(source, target))


def _content(source: str, name: str, changes: dict[str, Any]) -> bytes | None:
    path = os.path.join(source, name)
    if name == "special_tokens_map.json":
        changes = {key: value for key, value in changes.items() if key in (*NAMED_TOKENS, "extra_special_tokens")}
    is_settings = name in ("tokenizer_config.json", "special_tokens_map.json")
    if changes and is_settings and (os.path.isfile(path) or name == "tokenizer_config.json"):
        return _changed(path, changes)
    if not os.path.isfile(path):
        return None
    with open(path, "rb") as file:
        return file.read()


def _changed(path: str, changes: dict[str, Any]) -> bytes:
    settings = read_object(path)
    if "extra_special_tokens" in changes:
        settings.pop("additional_special_tokens", None)
    settings = {key: value for key, value in {**settings, **changes}.items() if value is not None or key not in changes}
    return (json.dumps(settings, indent=2, ensure_ascii=False) + "\n").encode()


def _replace(path: str, content: bytes) -> None:
    """Writes a file beside its place and moves it there."""
    beside = f"{path}.{secrets.token_hex(8)}"
    try:
        with open(beside, "xb") as file:
            file.write(content)
        os.replace(beside, path)
    except BaseException:
        if os.path.exists(beside):
            os.unlink(beside)
        raise


def _copy_templates(source: str, target: str) -> list[str]:
    folder, copied = (
        os.path.join(source, "additional_chat_templates"),
        os.path.join(target, "additional_chat_templates"),
    )
    if not os.path.isdir(folder):
        return []
    if not (os.path.exists(copied) and os.path.samefile(folder, copied)):
        shutil.copytree(folder, copied, dirs_exist_ok=True)
    return [os.path.join(copied, name) for name in sorted(os.listdir(copied))]
