"""Which modules a checkpoint holds, from the headers of its files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

from salient._core import FormatError


def tensor_names(directory: str) -> list[str]:
    """Names of the tensors of a model directory."""
    index = os.path.join(directory, "model.safetensors.index.json")
    if os.path.exists(index):
        with open(index, encoding="utf-8") as file:
            return list(json.load(file)["weight_map"])
    files = sorted(entry.path for entry in os.scandir(directory) if entry.name.endswith(".safetensors"))
    return [name for path in files for name in _names_of_file(path)]


def _names_of_file(path: str) -> list[str]:
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > os.path.getsize(path) - 8:
            raise FormatError(f"{path}: the header has {size} bytes by its first 8, more than the file")
        return [name for name in json.loads(file.read(size)) if name != "__metadata__"]


def parts_present(directory: str, parts: Iterable[str]) -> list[str]:
    """Those of `parts` that are whole words of the name of a module in the checkpoint."""
    names = [f".{name}." for name in tensor_names(directory)]
    return [part for part in parts if any(f".{part}." in name for name in names)]
