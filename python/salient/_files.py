"""Model directories on disk: temporary ones, and copies that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from salient import _core

__all__ = ["save_directory", "scratch_directory"]

_WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json")
_MODEL_FILES = (".json", ".jinja", ".model", ".txt", ".md", ".yaml", ".gitattributes", *_WEIGHTS)


def scratch_directory() -> str:
    """A fresh directory for weights that nobody has named a place for yet: in $SALIENT_WORK, else where Python puts
    temporary files ($TMPDIR). Whoever asks for it removes it."""
    parent = os.environ.get("SALIENT_WORK")
    if parent:
        os.makedirs(parent, exist_ok=True)
    return tempfile.mkdtemp(prefix="salient-", dir=parent or None)


def save_directory(source: str, target: str | os.PathLike[str], shard_size: int | str = "5GB") -> None:
    """Copies a model directory, its weights in files of at most `shard_size` (bytes, or "5GB").

    A directory that stands there is replaced if it is empty or holds nothing but files such as models have; those
    that are neither weights nor written anew (a README, a tokenizer saved before) are kept.

    Errors: ValueError when anything else stands there; OSError; KeyboardInterrupt, which leaves the target as it was.
    """
    path = Path(os.path.abspath(target))
    size = _core.parse_byte_size(str(shard_size))
    if os.path.realpath(path) == os.path.realpath(source):
        return
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _core.reshard(source, str(path), size, False)
        return
    _check_replaceable(path)
    fresh = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        _core.reshard(source, str(fresh / "new"), size, False)
        _keep_others(path, fresh / "new")
        os.rename(path, fresh / "old")
        os.rename(fresh / "new", path)
    finally:
        if not path.exists() and (fresh / "old").exists():
            os.rename(fresh / "old", path)
        shutil.rmtree(fresh, ignore_errors=True)


def _check_replaceable(path: Path) -> None:
    if not path.is_dir():
        raise ValueError(f"{path} is a file; a model is saved as a directory")
    for entry in path.iterdir():
        if entry.is_dir() or not entry.name.endswith((*_MODEL_FILES, "LICENSE", "NOTICE")):
            raise ValueError(
                f"{path} is not replaced: {entry.name} in it is no file of a model; name an empty or new place"
            )


def _keep_others(old: Path, new: Path) -> None:
    for entry in old.iterdir():
        if not entry.name.endswith(_WEIGHTS) and not (new / entry.name).exists():
            shutil.copy2(entry, new / entry.name)
