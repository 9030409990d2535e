"""Model directories on disk: temporary ones, and such as appear whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from salient import _core

__all__ = ["Scratch", "check_target", "model_target", "save_directory"]

# What describes weights or their use, and is wrong beside others: it goes when a model takes another one's place.
_OF_THE_WEIGHTS = re.compile(
    r"model.*\.safetensors|model\.safetensors\.index\.json|pytorch_model.*\.bin(\.index\.json)?"
    r"|quant_config\.json|quantize_config\.json|recipe\.yaml|generation_config\.json"
)


class Scratch:
    """A temporary directory for weights that nobody has named a place for yet, in $SALIENT_WORK, else where Python puts
    temporary files ($TMPDIR). It goes with the last one who holds this object, or with the process."""

    def __init__(self) -> None:
        parent = os.environ.get("SALIENT_WORK")
        if parent:
            os.makedirs(parent, exist_ok=True)
        self.path = tempfile.mkdtemp(prefix="salient-", dir=parent or None)
        self._finalizer = weakref.finalize(self, _remove, self.path, os.getpid())

    def remove(self) -> None:
        self._finalizer()


def _remove(path: str, process: int) -> None:
    if os.getpid() == process:  # a forked child leaves it to its parent
        shutil.rmtree(path, ignore_errors=True)


def check_target(target: str | os.PathLike[str], *, overwrite: bool = True) -> Path:
    """Where a model named `target` will lie, symbolic links followed.

    Errors: ValueError for a file, a config.json there that is no model's, or with overwrite=False anything there.
    """
    path = Path(os.path.realpath(target))
    if not os.path.lexists(path):
        return path
    if not path.is_dir():
        raise ValueError(f"{path} is a file; a model is saved as a directory")
    if not overwrite and any(path.iterdir()):
        raise ValueError(f"{path} exists already, and overwrite is False")
    config = path / "config.json"
    if config.exists() and not _is_model_config(config):
        raise ValueError(f"{config} is no model's and would be replaced; name another directory")
    return path


def _is_model_config(path: Path) -> bool:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(config, dict) and bool(config.keys() & {"architectures", "model_type"})


@contextmanager
def model_target(target: str | os.PathLike[str], *, overwrite: bool = True) -> Iterator[str]:
    """A name for a directory to write, which at the end of the `with` takes the place `target`: whole, or after an
    exception not at all. Of what stands there the weights of another model and what describes them go, and files of
    the same names are replaced; everything else stays.

    Errors: those of `check_target`; OSError.
    """
    path = check_target(target, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    # On the same file system, though it be a mounted one.
    with tempfile.TemporaryDirectory(prefix=".salient-", dir=path if path.exists() else path.parent) as fresh:
        new = Path(fresh, "model")
        yield str(new)
        if path.exists():
            _move_in(new, path)
        else:
            os.rename(new, path)


def _move_in(new: Path, path: Path) -> None:
    """Without config.json a directory is no model: it goes first and comes last."""
    config = path / "config.json"
    config.unlink(missing_ok=True)
    for entry in path.iterdir():
        if entry.is_file() and _OF_THE_WEIGHTS.fullmatch(entry.name):
            entry.unlink()
    for entry in sorted(new.iterdir(), key=lambda entry: entry.name == "config.json"):
        os.replace(entry, path / entry.name)


def save_directory(
    source: str, target: str | os.PathLike[str], shard_size: int | str = "5GB", *, config: str | None = None
) -> None:
    """Copies a model directory to `target` as `model_target` has it, its weights in files of at most `shard_size`
    (bytes, or "5GB"), with the text `config` as its config.json where one is given.

    Errors: as `model_target`; ValueError for a size that is none; KeyboardInterrupt.
    """
    size = _core.parse_byte_size(str(shard_size))
    if os.path.realpath(target) == os.path.realpath(source) and config is None:
        return
    with model_target(target) as fresh:
        _core.reshard(source, fresh, size, False)
        if config is not None:
            Path(fresh, "config.json").write_text(config, encoding="utf-8")
