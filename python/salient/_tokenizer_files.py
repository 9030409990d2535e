"""The files of a tokenizer: read once, so that they may go; what their vocabulary is; copies of them."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from typing import Any

from . import _core
from ._special_tokens import NAMED_TOKENS, parse_object

_TEMPLATE = "chat_template.jinja"
_TEMPLATES = "additional_chat_templates"
_SETTINGS = "tokenizer_config.json"
_NAMES = (
    _SETTINGS,
    "special_tokens_map.json",
    "tokenizer.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    _TEMPLATE,
    "chat_template.json",
)

Files = dict[str, bytes]  # content by path within the directory


def read(directory: str) -> Files:
    """Those that there are. Errors: OSError."""
    names = [name for name in _NAMES if os.path.isfile(os.path.join(directory, name))]
    templates = os.path.join(directory, _TEMPLATES)
    if os.path.isdir(templates):
        names += [os.path.join(_TEMPLATES, name) for name in sorted(os.listdir(templates)) if name.endswith(".jinja")]
    contents = {}
    for name in names:
        with open(os.path.join(directory, name), "rb") as file:
            contents[name] = file.read()
    return contents


def compiled(files: Files) -> _core.Tokenizer:
    """The tokenizer of files whose directory may be gone."""
    with tempfile.TemporaryDirectory(prefix="salient-") as directory:
        for name in ("tokenizer.json", _SETTINGS):
            if name in files:
                _replace(os.path.join(directory, name), files[name])
        return _core.Tokenizer.from_directory(directory)


def json_object(files: Files, name: str) -> dict[str, Any]:
    """A file's object; empty where there is no such file. Errors: salient.FormatError."""
    return parse_object(files[name], name) if name in files else {}


def base_vocabulary(files: Files) -> dict[str, int]:
    """Token to id, without added tokens."""
    vocabulary: dict[str, int] = json_object(files, "tokenizer.json")["model"]["vocab"]
    return vocabulary


def added_tokens(files: Files) -> list[str]:
    """The added tokens of tokenizer.json and tokenizer_config.json."""
    entries = list(json_object(files, "tokenizer.json").get("added_tokens", []))
    entries += json_object(files, _SETTINGS).get("added_tokens_decoder", {}).values()
    return [entry["content"] for entry in entries]


def write(files: Files, target: str, changes: Mapping[str, Any]) -> tuple[str, ...]:
    """Writes the files with ``changes`` of settings (None removes one); each appears whole or not at all. Gives the
    paths. Errors: OSError."""
    if os.path.exists(target) and not os.path.isdir(target):
        raise NotADirectoryError(f"{target} is a file: a directory to save the tokenizer in is expected")
    os.makedirs(target, exist_ok=True)
    contents = _changed_files(files, dict(changes))
    paths = []
    for name in sorted(contents, key=_place):
        path = os.path.join(target, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _replace(path, contents[name])
        paths.append(path)
    stale = os.path.join(target, _TEMPLATE)
    if "chat_template" in changes and _TEMPLATE not in contents and os.path.exists(stale):
        os.unlink(stale)
    return tuple(paths)


def _place(name: str) -> tuple[int, str]:
    return (_NAMES.index(name) if name in _NAMES else len(_NAMES), name)


def _changed_files(files: Files, changes: dict[str, Any]) -> Files:
    """A template that is one text has a file of its own, several stand among the settings, as in transformers."""
    contents = dict(files)
    if "chat_template" in changes:
        contents.pop(_TEMPLATE, None)
        if isinstance(changes["chat_template"], str):
            contents[_TEMPLATE] = changes["chat_template"].encode()
            changes["chat_template"] = None
    if changes:
        contents[_SETTINGS] = _changed(files, _SETTINGS, changes)
    tokens = {key: value for key, value in changes.items() if key in (*NAMED_TOKENS, "extra_special_tokens")}
    if tokens and "special_tokens_map.json" in files:
        contents["special_tokens_map.json"] = _changed(files, "special_tokens_map.json", tokens)
    return contents


def _changed(files: Files, name: str, changes: Mapping[str, Any]) -> bytes:
    settings = json_object(files, name)
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
